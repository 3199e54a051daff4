"""Ages on the command line: 12h, 30d, 8w."""

from __future__ import annotations

import re

SECONDS = {"h": 3600, "d": 86400, "w": 604800}


def parse_age(text: str) -> int:
    """The age in seconds. Raises ValueError."""
    match = re.fullmatch(r"([1-9]\d{0,5})([hdw])", text)
    if match is None:
        raise ValueError(f"{text!r} is no age: a number and h, d or w, as in 12h, 30d or 8w")
    return int(match[1]) * SECONDS[match[2]]

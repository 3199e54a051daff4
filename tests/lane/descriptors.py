"""What this process has open: counted before and after a test."""

from __future__ import annotations

import gc
import os
from collections import Counter


def descriptors() -> Counter[str]:
    """The targets of all descriptors, sockets and the like without their numbers."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{number}").partition(":[")[0]] += 1
        except FileNotFoundError:
            pass  # the listing's own
    return found


def left_since(before: Counter[str]) -> list[str]:
    """What is open now and was not before. A collection takes a tenth of a second, so only where it matters."""
    if descriptors() - before:
        gc.collect()
    return sorted((descriptors() - before).elements())

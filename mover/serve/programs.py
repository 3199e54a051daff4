"""The command lines of the children, and the environment they get."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import config

# -P keeps the current directory off the module path: `mover serve` started in a directory that holds a file
# called config.py must not run it. -s does the same for the user's own packages.
PYTHON = (sys.executable, "-s", "-P", "-m")


def _environment() -> dict[str, str]:
    """The supervisor's own environment, and its own copy of the code: no child runs another version."""
    home = str(Path(next(iter(config.__path__))).resolve().parent)
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, others] if others else [home])}


@dataclass(frozen=True)
class Programs:
    """What to run; each command line gets `--control-fd N` appended."""

    front_end: Sequence[str] = (*PYTHON, "mover.front")
    worker: Sequence[str] = (*PYTHON, "workers.image")
    environment: Mapping[str, str] = field(default_factory=_environment)

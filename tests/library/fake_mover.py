"""`python -m tests.library.fake_mover serve …`: `mover` with fake_front_end.py in its front ends' place."""

from __future__ import annotations

import sys
from functools import partial

from mover.cli.main import main
from mover.serve import main as serve
from mover.serve.programs import PYTHON, Programs

if __name__ == "__main__":
    fake = partial(Programs, front_end=(*PYTHON, "tests.library.fake_front_end"))
    setattr(serve, "Programs", fake)  # noqa: B010 - mypy knows that it is another module's name
    sys.exit(main())

"""`python -m tests.haul.mover serve …`: `mover` with tests/haul/front_end.py in its front ends' place."""

from __future__ import annotations

import sys
from functools import partial

from mover.cli.main import main
from mover.serve import main as serve
from mover.serve.programs import PYTHON, Programs

if __name__ == "__main__":
    haul = partial(Programs, front_end=(*PYTHON, "tests.haul.front_end"))
    setattr(serve, "Programs", haul)  # noqa: B010 - mypy knows that it is another module's name
    sys.exit(main())

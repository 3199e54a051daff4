"""`mover` whose front ends have Sanic's own timeouts at half a second: `python impatient.py serve …`.

What Mover itself sets for its bodies stays as it is.
"""

from __future__ import annotations

import sys
from typing import Any

from sanic import Sanic

from mover.cli.main import main
from mover.front import __main__ as front
from mover.front import sanic_seam
from mover.serve import main as serve
from mover.serve.programs import Programs

SHORT_S = 0.5
AS_A_FRONT_END = "front-end"


def be_a_front_end() -> int:
    """A front end that configures Sanic as Mover does, and then shorter."""
    patient = sanic_seam.configure

    def configure(app: Sanic[Any, Any], keep_alive_s: float) -> None:
        patient(app, keep_alive_s)
        app.config.REQUEST_TIMEOUT = app.config.KEEP_ALIVE_TIMEOUT = SHORT_S

    sanic_seam.configure = configure
    return front.main()


def be_mover() -> int:
    """`mover` with such front ends."""
    programs = Programs(front_end=(sys.executable, __file__, AS_A_FRONT_END))
    setattr(serve, "Programs", lambda: programs)  # noqa: B010 - mypy knows of no such name there
    return main()


if __name__ == "__main__":
    sys.exit(be_a_front_end() if AS_A_FRONT_END in sys.argv else be_mover())

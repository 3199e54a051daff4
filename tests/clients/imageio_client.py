"""imageio's own client, in the Python that has ovirt-imageio."""

from __future__ import annotations

from pathlib import Path

from mover.bench.servers import find_imageio
from tests.clients.conftest import run

IMAGEIO = find_imageio()
PROGRAM = Path(__file__).parent / "imageio_program.py"


def imageio(*arguments: str | Path | int) -> str:
    """Run the program (imageio_program.py); what it printed."""
    assert IMAGEIO is not None
    return run(IMAGEIO.parent / "python", PROGRAM, *map(str, arguments))

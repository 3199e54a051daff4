"""`mover serve` with the fakes in place of its programs; the settings come as a file of JSON, resolved."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from config.settings import Settings
from mover.serve.main import serve
from mover.serve.programs import Programs

HERE = Path(__file__).parent


def command(name: str) -> list[str]:
    return [sys.executable, "-s", "-P", str(HERE / name)]


if __name__ == "__main__":
    settings = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Settings)
    sys.exit(serve(settings, Programs(command("fake_front_end.py"), command("fake_worker.py"))))

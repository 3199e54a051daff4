"""`python -m tests.library.fake_front_end --control-fd N`: a front end whose library keeps its bytes in a fake."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from config.settings import LibrarySettings
from config.store_settings import FileStore
from mover.front import __main__ as front_end
from mover.front.visit import Door
from mover.library import start
from mover.library.seam import Carrier, WhoHas
from tests.library.fake_carrier import FakeCarrier


def _fake(settings: LibrarySettings, stores: Sequence[FileStore], door: Door, who_has: WhoHas) -> Carrier:
    return FakeCarrier(Path(settings.token_file).parent / "fake")


if __name__ == "__main__":
    setattr(start, "make_carrier", _fake)  # noqa: B010 - mypy knows that it is another module's name
    sys.exit(front_end.main())

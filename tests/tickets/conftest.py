"""A Mover with imageio's ticket service, a disk, and the agent that installs tickets for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.mover import Mover
from tests.harness.servers import NbdServer
from tests.tickets.vdsm import Vdsm

MIB = 1 << 20
# More than all buffers on the way to a client that does not read.
BYTES = 64 * MIB


@pytest.fixture
def vdsm(room: Path) -> Vdsm:
    """The agent of `mover`."""
    return Vdsm(room / "tickets.sock")


@pytest.fixture
def mover(vdsm: Vdsm, start_mover: StartMover) -> Mover:
    """Two front ends, and no image of the configuration's."""
    return start_mover({}, {"serve": {"ticket_socket": str(vdsm.path)}}, 2)


@pytest.fixture
def disk(images: Images) -> NbdServer:
    """A server of a disk whose every block says where it is from."""
    return images.qemu_nbd(images.pattern("disk.raw", 1, BYTES))

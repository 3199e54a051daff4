"""An hour's worth of short transfers, compressed: at the end Mover holds what it held at the beginning."""

from __future__ import annotations

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.operation.metrics import metrics
from tests.operation.short_transfers import SIZE, Host, grown, serve_many, settings

pytestmark = [pytest.mark.nbd, pytest.mark.slow]

WARM, MORE = 40, 90


def test_descriptors_memory_and_processes_are_flat(images: Images, start_mover: StartMover) -> None:
    """Tickets of both kinds, each of an image of its own, workers that come and go: nothing grows with their number."""
    room = images.room
    server = serve_many(room, images)
    mover = start_mover({}, settings(room), front_ends=2)
    host = Host(mover, room, server)
    host.run(WARM)
    before, memory = host.at_rest(), host.memory_bytes()
    host.run(MORE)
    assert host.at_rest() == before
    assert grown(memory, host.memory_bytes()) == {}
    page = metrics(mover)
    assert page.value("mover_tickets") == 0
    assert page.value("mover_client_bytes_total", direction="out") == (WARM + MORE) * SIZE
    assert page.value("mover_nbd_bytes_total", operation="write") == (WARM + MORE) * 16 * 1024
    assert page.value("mover_workers") == 0
    mover.stop_clean()

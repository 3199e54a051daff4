"""The life of a ticket on a real Mover: installed, used, looked at, extended, replaced, cancelled, expired."""

from __future__ import annotations

import pytest

from tests.harness.http import connect, head, read_to_end
from tests.harness.mover import Mover
from tests.harness.patterns import pattern
from tests.harness.servers import NbdServer
from tests.harness.transfers import BrokenOff, download
from tests.harness.waiting import wait_until
from tests.tickets.conftest import BYTES, MIB
from tests.tickets.vdsm import Vdsm, nbd_url

pytestmark = pytest.mark.nbd


def test_a_transfer_from_end_to_end(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """PUT the ticket, write, read, look at what was moved, DELETE: each is in force for every client at its answer."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")
    for _ in range(8):  # over both front ends, as the kernel deals connections out
        assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0").status == 206
    assert mover.ask("PUT", f"/images/{ticket}", pattern(7, 0, MIB)).status == 200
    assert vdsm.look(ticket)["transferred"] == MIB
    assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-4095").body == pattern(7, 0, 4096)
    vdsm.remove(ticket)
    for _ in range(8):
        answer = mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0")
        assert (answer.status, answer.headers["connection"]) == (403, "close")
    assert vdsm.ask("GET", ticket).status == 404
    mover.stop_clean()
    assert not vdsm.path.exists()


def test_removing_a_ticket_ends_a_put_in_flight(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """Its client is told so at once, and not a byte is written after the agent has its answer."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")
    with connect(mover.address()) as client:
        client.sendall(head("PUT", f"/images/{ticket}", Content_Length=BYTES) + pattern(9, 0, 8 * MIB))
        wait_until("the upload is in flight", lambda: vdsm.look(ticket)["transferred"] == 8 * MIB)
        assert vdsm.look(ticket)["active"]
        vdsm.remove(ticket)
        assert read_to_end(client).startswith(b"HTTP/1.1 403")


def test_removing_a_ticket_breaks_a_get_off(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """What has come is right, and the rest never comes."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "read")
    source = memoryview(pattern(1, 0, BYTES))
    with pytest.raises(BrokenOff):
        download(mover.address(), f"/images/{ticket}", source, {MIB: lambda: vdsm.remove(ticket)})
    mover.settled_census()
    mover.stop_clean()


def test_a_ticket_survives_a_restart(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """However the service ended: stopped, or killed."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "read")
    mover.ask("GET", f"/images/{ticket}", Range=f"bytes=0-{MIB - 1}")
    assert vdsm.look(ticket)["transferred"] == MIB
    assert mover.stop() == 0
    mover.start()
    assert vdsm.look(ticket)["transferred"] == MIB
    mover.process.kill()
    mover.wait_for_end()
    mover.start()
    assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-4095").body == pattern(1, 0, 4096)

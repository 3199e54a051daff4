"""The life of a ticket on a real Mover: installed, used, looked at, extended, replaced, cancelled, expired."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.harness.http import connect, head, read_to_end
from tests.harness.mover import Mover
from tests.harness.patterns import pattern
from tests.harness.servers import NbdServer
from tests.harness.waiting import wait_until
from tests.tickets.conftest import BYTES, MIB
from tests.tickets.vdsm import Vdsm, nbd_url

pytestmark = pytest.mark.nbd

BEARER = "Bearer a-token-of-some-length"


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


def test_a_ticket_survives_a_restart(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """However the service ended: stopped, or killed. It expires when it would have, and what was moved is known."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "read", token=BEARER.removeprefix("Bearer "), timeout=3600)
    assert mover.ask("GET", f"/images/{ticket}", Range=f"bytes=0-{MIB - 1}", Authorization=BEARER).status == 206
    before = vdsm.look(ticket)
    assert before["transferred"] == MIB
    assert mover.stop() == 0
    mover.start()
    after = vdsm.look(ticket)
    assert abs(after.pop("expires") - before.pop("expires")) <= 2
    assert {**after, "idle_time": 0, "connections": 0} == {**before, "idle_time": 0, "connections": 0}
    mover.process.kill()
    mover.wait_for_end()
    mover.start()
    assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-4095").status == 401
    answer = mover.ask("GET", f"/images/{ticket}", Range="bytes=0-4095", Authorization=BEARER)
    assert answer.body == pattern(1, 0, 4096)


def test_a_killed_front_end_takes_no_ticket_with_it(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """Its client sends again what it was doing, and the ticket is as good as before; so it is removed."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")
    target = f"/images/{ticket}?flush=n"
    with connect(mover.address()) as client:
        client.sendall(head("PUT", target, Content_Length=BYTES) + pattern(9, 0, MIB))
        wait_until("the upload is in flight", lambda: vdsm.look(ticket)["active"])
        for pid in mover.front_end_pids():
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ConnectionError):
            assert read_to_end(client) == b""
    wait_until("nobody uses it", lambda: not vdsm.look(ticket)["active"])
    wait_until("it is served again", lambda: _put(mover, target) == 200)
    vdsm.remove(ticket)
    assert _put(mover, target) == 403


def _put(mover: Mover, target: str) -> int | None:
    try:
        return mover.ask("PUT", target, pattern(9, 0, MIB)).status
    except OSError:
        return None


def test_removing_all_ends_all(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """Uploads of several tickets at once, a checksum, and a list of extents whose client does not read."""
    tickets = [vdsm.install(nbd_url(disk), BYTES, "write") for _ in range(4)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(mover.address())) for _ in tickets]
        for ticket, client in zip(tickets, clients, strict=True):
            client.sendall(head("PUT", f"/images/{ticket}", Content_Length=BYTES) + pattern(9, 0, MIB))
        for ticket in tickets:
            wait_until("all are in flight", lambda ticket=ticket: vdsm.look(ticket)["active"])  # type: ignore[misc]
        vdsm.remove()
        for client in clients:
            assert read_to_end(client).startswith(b"HTTP/1.1 403")
    assert vdsm.ask("GET").json() == []
    mover.settled_census()
    mover.stop_clean()


@pytest.mark.slow
def test_a_thousand_tickets(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """All are in force, survive a killed service and its front ends, and go."""
    tickets = [vdsm.install(nbd_url(disk), BYTES, "read") for _ in range(1000)]
    mover.process.kill()
    mover.wait_for_end()
    mover.start()
    assert sorted(one["uuid"] for one in vdsm.ask("GET").json()) == sorted(tickets)
    for pid in mover.front_end_pids():
        os.kill(pid, signal.SIGKILL)
    wait_until("front ends are back", lambda: _status(mover, tickets[0]) == 206)
    for ticket in tickets[::50]:
        assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0").status == 206
    vdsm.remove()
    assert {_status(mover, ticket) for ticket in tickets[::50]} == {403}
    assert vdsm.ask("GET").json() == []


def _status(mover: Mover, ticket: str) -> int | None:
    try:
        return mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0").status
    except OSError:
        return None

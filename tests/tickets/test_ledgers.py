"""What a crash of the whole service leaves: the ledgers, and those who still finish what they had begun."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.harness.fixtures import Images
from tests.harness.http import connect, head, read_to_end
from tests.harness.mover import Mover
from tests.harness.patterns import pattern
from tests.harness.servers import NbdServer
from tests.harness.waiting import wait_until
from tests.tickets.conftest import BYTES, MIB
from tests.tickets.vdsm import Vdsm, nbd_url
from workers.image.ledger import BOOT, HEADER_BYTES, LEDGER_BYTES

pytestmark = pytest.mark.nbd


def crash(mover: Mover) -> None:
    """Every process at once, as when the kernel is short of memory: none has the time to flush."""
    mover.signal(signal.SIGSTOP)
    for process in sorted(mover.family(), key=lambda one: one.pid == mover.pid):  # a worker without it would flush
        process.kill()
    mover.wait_for_end()


def ledgers(mover: Mover) -> list[Path]:
    """The files."""
    return sorted((mover.state_dir / "ledgers").glob("*"))


def write(mover: Mover, ticket: str, offset: int, length: int) -> None:
    """An acknowledged write that is not flushed."""
    where = f"bytes {offset}-{offset + length - 1}/*"
    answer = mover.ask("PUT", f"/images/{ticket}?flush=n", pattern(2, offset, length), Content_Range=where)
    assert answer.json() == {"ok": True, "bytes_written": length, "flushed": False}


def flush(mover: Mover, ticket: str) -> tuple[int, object]:
    answer = mover.ask("PATCH", f"/images/{ticket}", b'{"op": "flush"}')
    return answer.status, answer.json().get("lost")


def wait_until_told(mover: Mover, ticket: str) -> None:
    """A loss is struck off after the answer is written: told twice is better than never."""
    wait_until("the loss is struck off", lambda: flush(mover, ticket) == (200, None))


def test_a_crash_of_the_service_alone_loses_nothing(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """The server has the writes, and the next service knows that it is the same server."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")
    write(mover, ticket, MIB, MIB)
    crash(mover)
    mover.start()
    assert mover.ask("GET", f"/images/{ticket}", Range=f"bytes={MIB}-{2 * MIB - 1}").body == pattern(2, MIB, MIB)
    assert flush(mover, ticket) == (200, None)


def test_what_the_server_lost_is_told_after_a_crash(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """Each ticket is told of its own writes, once, whatever happened to the service meanwhile."""
    one, other = (vdsm.install(nbd_url(disk), BYTES, "write") for _ in range(2))
    write(mover, one, 0, MIB)
    write(mover, one, 5 * MIB, 4096)
    write(mover, other, 9 * MIB, MIB)
    crash(mover)
    disk.kill()
    disk.start()
    mover.start()
    write(mover, one, 5 * MIB, 4096)
    assert flush(mover, one) == (500, [[0, MIB]])
    wait_until_told(mover, one)
    crash(mover)
    mover.start()
    assert flush(mover, other) == (500, [[9 * MIB, MIB]])
    wait_until_told(mover, other)
    assert flush(mover, one) == (200, None)
    wait_until("it stands in the log as it was answered", lambda: "method=PATCH kind=image status=500" in mover.log())
    assert "status=499" not in mover.log()


@pytest.mark.parametrize("log_survives", [True, False])
def test_after_a_boot_of_the_host_whoever_wrote_is_told(
    log_survives: bool, mover: Mover, vdsm: Vdsm, disk: NbdServer
) -> None:
    """Nobody knows what the host has not written to its disk: all of the image, also where the ledger itself is torn.

    Whoever only read, or wrote after that, is told nothing.
    """
    one, other = (vdsm.install(nbd_url(disk), BYTES, "write") for _ in range(2))
    write(mover, one, 0, MIB)
    assert mover.ask("GET", f"/images/{other}", Range="bytes=0-0").status == 206
    crash(mover)
    [file] = ledgers(mover)
    content = bytearray(file.read_bytes())
    content[BOOT] = bytes(16)
    if not log_survives:
        content[HEADER_BYTES:LEDGER_BYTES] = bytes(LEDGER_BYTES - HEADER_BYTES)
    file.write_bytes(content)
    mover.start()
    assert flush(mover, other) == (200, None)
    assert flush(mover, one) == (500, [[0, BYTES]])
    wait_until_told(mover, one)


def test_a_ledger_goes_with_what_is_in_it(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """With its ticket; also when the ticket was removed while there was no worker, or no service."""
    for _ in range(2):
        ticket = vdsm.install(nbd_url(disk), BYTES, "write")
        write(mover, ticket, 0, MIB)
        crash(mover)
        disk.kill()
        disk.start()
        mover.start()
        assert len(ledgers(mover)) == 1
        vdsm.remove(ticket)
        assert ledgers(mover) == []
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")
    write(mover, ticket, 0, MIB)
    vdsm.remove(ticket)
    mover.stop_clean()
    assert ledgers(mover) == []


def test_a_ledger_that_is_none_is_replaced(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """Whatever became of the file; the log says so, and the image is served."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")
    write(mover, ticket, 0, MIB)
    crash(mover)
    [file] = ledgers(mover)
    for content in (b"\xff" * file.stat().st_size, b"short"):
        file.write_bytes(content)
        mover.start()
        write(mover, ticket, 0, MIB)
        crash(mover)
        assert "replaced a broken ledger" in mover.log()


# -- those who are left over -------------------------------------------------------------------------------------


def test_what_was_in_flight_ends_before_the_next_service_writes(mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
    """A PUT that a killed supervisor has left behind is finished; whoever comes to the new one waits for that."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")
    with connect(mover.address()) as client:
        body = pattern(3, 0, 8 * MIB)
        client.sendall(head("PUT", f"/images/{ticket}", Content_Length=len(body), Connection="close"))
        client.sendall(body[: 4 * MIB])
        wait_until("the upload is in flight", lambda: vdsm.look(ticket)["transferred"] == 4 * MIB)
        mover.process.kill()
        mover.process.wait()
        mover.start()
        with mover.client() as late:
            late.request("GET", f"/images/{ticket}", headers={"Range": "bytes=0-4095"})
            wait_until("it waits", lambda: "a worker of an earlier service has not left yet" in mover.log())
            client.sendall(body[4 * MIB :])
            assert read_to_end(client).startswith(b"HTTP/1.1 200")
            assert late.read_answer(late.getresponse()).body == body[:4096]
    assert flush(mover, ticket) == (200, None)
    mover.stop_clean()


def test_a_removed_ticket_ends_what_an_earlier_service_left(
    mover: Mover, vdsm: Vdsm, disk: NbdServer, images: Images
) -> None:
    """Nobody can ask for it to stop: its worker is ended, and not a byte more is written."""
    ticket = vdsm.install(nbd_url(disk), BYTES, "write")
    with connect(mover.address()) as client:
        client.sendall(head("PUT", f"/images/{ticket}", Content_Length=BYTES) + pattern(3, 0, 4 * MIB))
        wait_until("the upload is in flight", lambda: vdsm.look(ticket)["transferred"] == 4 * MIB)
        mover.process.kill()
        mover.process.wait()
        mover.start()
        vdsm.remove(ticket)
        client.sendall(pattern(3, 4 * MIB, MIB))
        assert (images.room / "disk.raw").read_bytes() == pattern(3, 0, 4 * MIB) + pattern(1, 4 * MIB, BYTES - 4 * MIB)
        assert mover.ask("GET", f"/images/{ticket}").status == 403

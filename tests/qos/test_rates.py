"""Bytes a second and requests at once, of a ticket, an image and the host, over all front ends; changed under way."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import connect, head
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, difference, pattern
from tests.harness.servers import NbdServer
from tests.harness.transfers import BrokenOff, Doing, download, upload
from tests.harness.waiting import wait_until
from tests.tickets.vdsm import Vdsm, nbd_url

pytestmark = pytest.mark.nbd

SIZE = 8 * MIB
# A loaded machine may be slower than any limit, but never faster.
SLACK_S = 0.3


@pytest.fixture
def vdsm(room: Path) -> Vdsm:
    return Vdsm(room / "tickets")


def settings(vdsm: Vdsm, **qos: int) -> dict[str, dict[str, str | int]]:
    return {"serve": {"ticket_socket": str(vdsm.path)}, "qos": {**qos}}


@pytest.fixture
def disk(images: Images) -> NbdServer:
    return images.qemu_nbd(images.pattern("disk", 1, SIZE))


def body(image: int = 1) -> memoryview:
    return memoryview(pattern(image, 0, SIZE))


@contextlib.contextmanager
def takes_at_least(seconds: float) -> Iterator[None]:
    """Faster is an error; slower may be the machine."""
    began_s = time.monotonic()
    yield
    assert time.monotonic() - began_s >= seconds - SLACK_S


@pytest.mark.slow
@pytest.mark.parametrize("limited", ["ticket", "image", "host"])
def test_a_limit_holds_for_reads_and_writes_over_all_front_ends(
    limited: str, vdsm: Vdsm, disk: NbdServer, start_mover: StartMover
) -> None:
    """Four clients together are as slow as one would be, and every byte is right."""
    qos = {} if limited == "ticket" else {f"{limited}_bytes_s": 16 * MIB}
    mover = start_mover({}, settings(vdsm, **qos), 2)
    own: dict[str, Any] = {"bytes_per_second": 16 * MIB} if limited == "ticket" else {}
    ticket = vdsm.install(nbd_url(disk), SIZE, "read", "write", **own)
    with takes_at_least(1.25):
        moving = [Doing(partial(download, mover.address(unix), f"/images/{ticket}", body())) for unix in (True, False)]
        quarter = SIZE // 4
        for number in range(2):
            part = body()[number * quarter : (number + 1) * quarter]
            span = f"bytes {number * quarter}-{(number + 1) * quarter - 1}/*"
            assert upload(mover.tcp, f"/images/{ticket}", part, Content_Range=span).status == 200
        for one in moving:
            one.result()
    mover.stop_clean()


def checksum(mover: Mover, ticket: str, unix: bool = False) -> str:
    """As the service answers, of blocks of 1 MiB."""
    answer = mover.ask("GET", f"/images/{ticket}/checksum?algorithm=sha256&block_size={MIB}", unix=unix)
    assert answer.status == 200, answer.body
    found: str = answer.json()["checksum"]
    return found


def digest(block: int) -> str:
    """The same of the disk's bytes."""
    whole = hashlib.sha256()
    for at in range(0, SIZE, block):
        whole.update(hashlib.sha256(body()[at : at + block]).digest())
    return whole.hexdigest()


def has_requests(vdsm: Vdsm, ticket: str) -> bool:
    """Whether somebody uses it."""
    return bool(vdsm.look(ticket)["requests"])


@pytest.mark.slow
def test_a_limit_changes_under_way(vdsm: Vdsm, disk: NbdServer, start_mover: StartMover) -> None:
    """By PATCH and by SIGHUP: transfers that would have taken minutes end, a fast one becomes slow; 0 is no limit."""
    mover = start_mover({}, settings(vdsm, image_bytes_s=65536), 2)
    ticket = vdsm.install(nbd_url(disk), SIZE, "read", bytes_per_second=65536)
    moving = Doing(partial(download, mover.tcp, f"/images/{ticket}", body()))
    writing_id = vdsm.install(nbd_url(disk), SIZE, bytes_per_second=65536)
    writing = Doing(partial(upload, mover.tcp, f"/images/{writing_id}", body()))
    for one in (ticket, writing_id):
        wait_until("it has begun", partial(has_requests, vdsm, one))
        assert vdsm.look(one)["bytes_per_second"] == 65536
        assert vdsm.ask("PATCH", one, {"bytes_per_second": 0}).status == 200
    assert not moving.done
    assert not writing.done
    mover.configure(settings(vdsm))
    mover.signal(signal.SIGHUP)
    moving.result()
    assert writing.result().status == 200
    assert vdsm.ask("PATCH", ticket, {"bytes_per_second": 4 * MIB, "timeout": 100}).status == 200
    with takes_at_least(SIZE / (4 * MIB)):
        download(mover.tcp, f"/images/{ticket}", body())
    assert vdsm.ask("PATCH", ticket, {"bytes_per_second": None}).status == 200
    assert "bytes_per_second" not in vdsm.look(ticket)
    mover.stop_clean()


@pytest.mark.slow
@pytest.mark.parametrize("limited", ["ticket", "host"])
def test_what_a_checksum_reads_is_limited_like_a_body(
    limited: str, vdsm: Vdsm, disk: NbdServer, start_mover: StartMover
) -> None:
    """Whatever limits it, and together with another one where both have the limit; the digest is right."""
    qos = {} if limited == "ticket" else {f"{limited}_bytes_s": 16 * MIB}
    mover = start_mover({}, settings(vdsm, **qos), 2)
    own: dict[str, Any] = {"bytes_per_second": 16 * MIB} if limited == "ticket" else {}
    ticket = vdsm.install(nbd_url(disk), SIZE, **own)
    with takes_at_least(2 * SIZE / (16 * MIB)):
        asking = [Doing(partial(checksum, mover, ticket, unix)) for unix in (True, False)]
        assert {one.result() for one in asking} == {digest(MIB)}
    mover.stop_clean()


@pytest.mark.slow
def test_a_checksum_under_way_is_freed_of_its_limit(vdsm: Vdsm, disk: NbdServer, start_mover: StartMover) -> None:
    """One that would take minutes ends by PATCH, and by DELETE with nothing left; another ticket goes on meanwhile."""
    mover = start_mover({}, settings(vdsm), 1)
    first, other = (vdsm.install(nbd_url(disk), SIZE) for _ in range(2))
    assert checksum(mover, other) == digest(MIB)
    before = mover.settled_census()
    assert vdsm.ask("PATCH", first, {"bytes_per_second": 65536}).status == 200
    asking = Doing(partial(checksum, mover, first))
    wait_until("it has begun", partial(has_requests, vdsm, first))
    assert checksum(mover, other) == digest(MIB)
    assert not asking.done
    assert vdsm.ask("PATCH", first, {"bytes_per_second": 0}).status == 200
    assert asking.result() == digest(MIB)
    assert vdsm.ask("PATCH", first, {"bytes_per_second": 65536}).status == 200
    refused = Doing(partial(mover.ask, "GET", f"/images/{first}/checksum"))
    wait_until("the next one has begun", partial(has_requests, vdsm, first))
    vdsm.remove(first)
    assert refused.result().status == 403
    mover.assert_returns_to(before)
    mover.stop_clean()


@pytest.mark.slow
def test_two_images_share_the_host_fairly(images: Images, start_mover: StartMover) -> None:
    """One has six clients and the other one: when the one is done, it has had half of what was moved."""
    disks = {str(number): images.qemu_nbd(images.pattern(f"disk{number}", number, SIZE)) for number in (1, 2)}
    mover = start_mover(disks, {"qos": {"host_bytes_s": 8 * MIB}}, 2)

    with takes_at_least(2 * SIZE / (8 * MIB)):
        crowded = [Doing(partial(download, mover.tcp, "/images/2", body(2))) for _ in range(6)]
        download(mover.tcp, "/images/1", body(1))
    rows = {row["export"]: row["bytes_read"] for row in mover.workers()}
    (other,) = (count for export, count in rows.items() if "disk2" in export)
    assert 0.5 * SIZE <= other <= 2.0 * SIZE + 6 * 8 * MIB  # what was read ahead is in it
    mover.close()
    for one in crowded:
        with contextlib.suppress(BrokenOff):
            one.result()


def test_limited_clients_that_leave_give_everything_back(vdsm: Vdsm, disk: NbdServer, start_mover: StartMover) -> None:
    """Readers and writers that wait for their turn, and leave: slots, seats, descriptors, and the turn."""
    mover = start_mover({}, settings(vdsm), 1)
    ticket = vdsm.install(nbd_url(disk), SIZE, bytes_per_second=65536)
    other = vdsm.install(nbd_url(disk), SIZE)
    download(mover.tcp, f"/images/{other}", body())
    before = mover.settled_census()
    for _ in range(3):
        with contextlib.ExitStack() as stack:
            for number in range(8):
                sock = stack.enter_context(contextlib.closing(connect(mover.tcp, receive_buffer=65536)))
                if number % 2:
                    sock.sendall(head("PUT", f"/images/{ticket}", Content_Length=SIZE) + body()[:100_000])
                else:
                    sock.sendall(head("GET", f"/images/{ticket}"))
            wait_until("they are there", lambda: vdsm.look(ticket)["requests"] == 8)
            # Others are served meanwhile, as if there were nobody.
            download(mover.tcp, f"/images/{other}", body())
        wait_until("they have gone", lambda: vdsm.look(ticket)["requests"] == 0)
    mover.assert_returns_to(before)
    small = mover.ask("GET", f"/images/{ticket}", Range="bytes=0-4095")
    assert difference(small.body, body()[:4096]) is None
    mover.stop_clean()


def begin(mover: Mover, ticket: str, stack: contextlib.ExitStack) -> None:
    """A client that reads, and stops."""
    sock = stack.enter_context(contextlib.closing(connect(mover.tcp, receive_buffer=65536)))
    sock.sendall(head("GET", f"/images/{ticket}"))
    assert sock.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("mode", ["wait", "reject"])
def test_a_ticket_has_so_many_requests_at_once(mode: str, vdsm: Vdsm, disk: NbdServer, start_mover: StartMover) -> None:
    """One more waits or is rejected, over all front ends; another ticket of the same disk is not concerned."""
    tables = settings(vdsm, ticket_requests=1)
    mover = start_mover({}, {**tables, "limits": {"mode": mode, "wait_s": 0.2}}, 2)
    two, one = vdsm.install(nbd_url(disk), SIZE, requests_most=2), vdsm.install(nbd_url(disk), SIZE)
    free = vdsm.install(nbd_url(disk), SIZE, requests_most=0)
    with contextlib.ExitStack() as stack:
        for ticket, most in ((two, 2), (one, 1)):
            for _ in range(most):
                begin(mover, ticket, stack)
            for _ in range(3):
                answer = mover.ask("GET", f"/images/{ticket}", Range="bytes=0-9")
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert f"{most} of the ticket" in answer.json()["error"]
        for _ in range(5):
            begin(mover, free, stack)
        assert vdsm.ask("PATCH", one, {"requests_most": 2}).status == 200
        assert mover.ask("GET", f"/images/{one}", Range="bytes=0-9").status == 206
    wait_until("the seats are free", lambda: mover.ask("GET", f"/images/{two}", Range="bytes=0-9").status == 206)
    mover.stop_clean()


@pytest.mark.parametrize(
    ("key", "value"),
    [("bytes_per_second", 1000), ("bytes_per_second", -1), ("bytes_per_second", "fast"), ("bytes_per_second", 1.5),
     ("requests_most", -1), ("requests_most", True)],
)  # fmt: skip
def test_a_limit_that_is_none_is_refused(
    key: str, value: object, vdsm: Vdsm, disk: NbdServer, start_mover: StartMover
) -> None:
    """With PUT and with PATCH, and nothing has changed."""
    start_mover({}, settings(vdsm))
    ticket = vdsm.install(nbd_url(disk), SIZE)
    before = {name: value for name, value in vdsm.look(ticket).items() if name not in ("idle_time", "expires")}
    body = {"uuid": ticket, "size": SIZE, "url": nbd_url(disk), "timeout": 100, "ops": ["read"], key: value}
    for answer in (vdsm.ask("PATCH", ticket, {key: value}), vdsm.ask("PUT", ticket, body)):
        assert answer.status == 400
        assert key in answer.body.decode()
    after = {name: value for name, value in vdsm.look(ticket).items() if name not in ("idle_time", "expires")}
    assert after == before

"""Lists of very many extents: memory does not grow with them, and others are served meanwhile."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from mover.bench.asking import BITMAP, RUN_BYTES, make_runs
from tests.harness.fixtures import Images, memory_room
from tests.harness.http import connect, head, read_to_end
from tests.harness.mover import Mover

pytestmark = [pytest.mark.nbd, pytest.mark.slow]

MIB = 1 << 20
RUNS = 262_144
# Of a list of 18 MB.
GROWTH_BYTES = 4 * MIB
LIST = "/images/disk/extents?context=dirty"


@pytest.fixture(scope="module")
def mover() -> Iterator[Mover]:
    """Before an image whose every other run is dirty; it ends clean."""
    with memory_room() as room, contextlib.ExitStack() as stack:
        make_runs(room / "runs.qcow2", RUNS)
        served = Images(room, stack)
        server = served.qemu_nbd(room / "runs.qcow2", image_format="qcow2", read_only=True, bitmap=BITMAP)
        mover = Mover(room, {"disk": f"{server.uri()}&bitmap={BITMAP}"})
        stack.callback(mover.close)
        yield mover.start()
        mover.stop_clean()


def memory(mover: Mover) -> int:
    """What front end and worker have to themselves, in bytes."""
    return sum(child.memory_full_info().uss for child in mover.children())


def peak_while_listing(mover: Mover, accept: str, most: int) -> tuple[int, bytes]:
    """The most memory seen while a list is read in pieces of at most `most` bytes, and its body, still in chunks."""
    body, peak = bytearray(), 0
    with contextlib.closing(connect(mover.tcp, receive_buffer=64 * 1024)) as sock:
        sock.sendall(head("GET", LIST, Accept=accept, Connection="close"))
        while piece := sock.recv(most):
            body += piece
            if len(body) // MIB > (len(body) - len(piece)) // MIB:
                peak = max(peak, memory(mover))
    return peak, bytes(body)


def test_the_memory_for_a_list_does_not_grow_with_it(mover: Mover) -> None:
    """While 262,144 runs are sent, as lines or as an array, no more is held than for the first few."""
    for kind in ("application/x-ndjson", "application/json"):
        few = mover.ask("GET", f"{LIST}&length={1000 * RUN_BYTES}", Accept=kind)
        assert few.body.count(b'"dirty":true') == 500
    mover.settled_census()  # the spare worker counts, too
    before = memory(mover)
    for kind in ("application/x-ndjson", "application/json"):
        peak, body = peak_while_listing(mover, kind, MIB)
        assert body.count(b'"dirty":') == RUNS
        assert 0 < peak < before + GROWTH_BYTES


def test_a_list_that_is_not_read_holds_nobody_up(mover: Mover) -> None:
    """Its client stops in the middle: others read and list the same image, and then it gets all the rest."""
    assert mover.ask("GET", f"{LIST}&length={1000 * RUN_BYTES}").status == 200
    mover.settled_census()  # the spare worker counts, too
    before = memory(mover)
    with contextlib.closing(connect(mover.tcp, receive_buffer=64 * 1024)) as sock:
        sock.sendall(head("GET", LIST, Accept="application/x-ndjson", Connection="close"))
        begun = sock.recv(1000)
        for at in range(0, RUNS * RUN_BYTES, RUNS * RUN_BYTES // 128):
            assert mover.ask("GET", "/images/disk", Range=f"bytes={at}-{at + 4095}").body == bytes(4096)
        others = mover.ask("GET", LIST, Accept="application/x-ndjson").body
        assert memory(mover) - before < GROWTH_BYTES
        chunks = (begun + read_to_end(sock)).partition(b"\r\n\r\n")[2]
    assert unchunked(chunks) == others
    found = [json.loads(line) for line in others.splitlines()]
    assert found == [
        {"start": number * RUN_BYTES, "length": RUN_BYTES, "dirty": number % 2 == 0, "zero": True}
        for number in range(RUNS)
    ]


def unchunked(chunks: bytes) -> bytes:
    """The body of a chunked answer."""
    body, at = bytearray(), 0
    while True:
        size, _, _ = chunks[at : at + 20].partition(b"\r\n")
        count = int(size, 16)
        at += len(size) + 2
        if not count:
            return bytes(body)
        body += chunks[at : at + count]
        at += count + 2

"""Checksums: equal to a blkhash by the book, and refused where their parameters are wrong."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.house import MIB, House, data
from tests.contract.wire import Row, Wire, request
from tests.harness.http import Address
from tests.harness.mover import Mover
from tests.harness.servers import nbdkit
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.nbd


def blkhash(image: bytes, algorithm: str, block_bytes: int) -> str:
    """The outer hash over the digests of the blocks; BLAKE2 with 32 bytes."""

    def new(block: bytes = b"") -> hashlib._Hash:
        if algorithm.startswith("blake2"):
            return getattr(hashlib, algorithm)(block, digest_size=32)  # type: ignore[no-any-return]
        return hashlib.new(algorithm, block)

    outer = new()
    for at in range(0, len(image), block_bytes):
        outer.update(new(image[at : at + block_bytes]).digest())
    return outer.hexdigest()


@pytest.mark.parametrize("algorithm", [None, "blake2b", "blake2s", "sha256", "sha3_512", "md5"])
@pytest.mark.parametrize("block_bytes", [None, MIB, MIB + 4096, 16 * MIB])
def test_checksum(algorithm: str | None, block_bytes: int | None, address: Address) -> None:
    """Each algorithm with each size of blocks, the last of which is short."""
    asked = {"algorithm": algorithm, "block_size": block_bytes}
    query = "&".join(f"{name}={value}" for name, value in asked.items() if value is not None)
    algorithm, block_bytes = algorithm or "blake2b", block_bytes or 4 * MIB
    expected = blkhash(data(), algorithm, block_bytes)
    body = {"algorithm": algorithm, "block_size": block_bytes, "checksum": expected}
    Row("", request("GET", f"/images/data/checksum?{query}"), 200, {"Accept-Ranges": "bytes"}, body).check(address)


def test_checksum_of_an_empty_image(address: Address) -> None:
    """The outer hash of nothing."""
    with Wire(address) as wire:
        answer = wire.ask(request("GET", "/images/empty/checksum?algorithm=sha256"))
    assert answer.json()["checksum"] == hashlib.sha256().hexdigest()


def refused(says: str, query: str, error: str) -> Row:
    """A question that is wrong."""
    return Row(says, request("GET", f"/images/data/checksum?{query}"), 400, error=error)


ROWS = [
    refused("an algorithm that nobody knows", "algorithm=crc", "'crc' is not one of"),
    refused("a digest without a length", "algorithm=shake_128", "'shake_128' is not one of"),
    refused("small blocks", f"block_size={MIB - 4096}", "1048576 to 16777216, a multiple of 4096"),
    refused("large blocks", f"block_size={16 * MIB + 4096}", "1048576 to 16777216, a multiple of 4096"),
    refused("crooked blocks", f"block_size={MIB + 1}", "a multiple of 4096"),
    refused("blocks that are no number", "block_size=4M", "block_size='4M' is not a number"),
    Row("POST", request("POST", "/images/data/checksum"), 405, {"Allow": "GET"}),
    Row("an unknown image", request("GET", "/images/nobody/checksum"), 404, error="unknown image_id"),
    Row("a read-only export", request("GET", "/images/read-only/checksum"), 200),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_checksum_row(row: Row, address: Address) -> None:
    """What cannot be hashed is refused with the value and the limits."""
    row.check(address)


def test_what_is_offered_can_be_had(house: House) -> None:
    """Every algorithm that is offered answers."""
    offered = house.mover.ask("GET", "/images/data/checksum/algorithms").json()
    assert set(offered["algorithms"]) >= {"blake2b", "blake2s", "sha1", "sha256", "sha512"}
    for algorithm in offered["algorithms"]:
        assert house.mover.ask("GET", f"/images/empty/checksum?algorithm={algorithm}").status == 200, algorithm


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Mover]:
    """An image that takes twenty minutes to read."""
    server = nbdkit(
        tmp_path, "slow", "pattern", "size=64G", "rate=400M", filters=["rate", "noextents"], threads=4
    )  # fmt: skip
    mover = Mover(tmp_path, {"slow": server})
    try:
        server.start()
        yield mover.start()
    finally:
        mover.close()
        server.close()


def test_a_client_that_leaves_stops_the_checksum(slow: Mover) -> None:
    """Nothing is read for it any more: the worker has no command in flight, the lane no slot in use."""
    with socket.create_connection(slow.tcp) as sock:
        sock.sendall(request("GET", "/images/slow/checksum"))
        wait_until("the image is read", lambda: slow.workers() and slow.workers()[0]["in_flight"])
    wait_until("nothing is read", lambda: not slow.workers()[0]["in_flight"])
    wait_until("no slot is in use", lambda: all(not lane["slots_used"] for lane in slow.workers()[0]["lanes"]))

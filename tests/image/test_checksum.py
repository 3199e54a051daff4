"""Checksums: blkhash, bit by bit as its definition and imageio have it; holes unread; stopped at once."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from config.export import Export
from mover.bench.servers import find_imageio
from tests.harness.fixtures import Images
from tests.harness.waiting import PATIENCE_S, PROGRAM_S
from tests.image.device import Device, limits_of
from tests.image.process import MIB, Process, working
from workers.image.checksum import checksum, hash_buffer, split
from workers.image.plan import Command, Operation
from workers.lane import checksum_format
from workers.lane.checksum_format import Asked, ChecksumRefused
from workers.lane.protocol import Kind, Status

pytestmark = pytest.mark.usefixtures("loop")

BLOCK_SIZES = (MIB, 4 * MIB, 16 * MIB, MIB + 4096)


def model(data: bytes, asked: Asked) -> str:
    """The definition: the hash over the hashes of the blocks."""

    def one(content: bytes) -> bytes:
        if asked.algorithm.startswith("blake2"):
            return bytes(getattr(hashlib, asked.algorithm)(content, digest_size=32).digest())
        return hashlib.new(asked.algorithm, content).digest()

    block = asked.block_bytes
    return one(b"".join(one(data[at : at + block]) for at in range(0, len(data), block))).hex()


def some_image() -> bytes:
    """Data, zeros across and inside of blocks of every size, and a tail that is no whole block."""
    data = os.urandom(MIB) + bytes(37 * MIB) + os.urandom(4096) + bytes(3 * MIB) + os.urandom(MIB) + bytes(4000)
    return data + os.urandom(100)


@pytest.fixture
def file(room: Path) -> Path:
    path = room / "disk.raw"
    path.write_bytes(some_image())
    os.truncate(path, path.stat().st_size + 5 * MIB)
    return path


def raw(path: Path) -> Export:
    return Export("file", path=str(path))


# -- the number ------------------------------------------------------------------------------------------------


async def test_every_algorithm_and_block_size_has_the_digest_of_the_definition(file: Path) -> None:
    data = file.read_bytes()
    async with working(raw(file)) as process:
        for algorithm in checksum_format.algorithms():
            asked = Asked(algorithm)
            assert await process.checksum(asked) == model(data, asked), algorithm
        for block_bytes in BLOCK_SIZES:
            asked = Asked(block_bytes=block_bytes)
            assert await process.checksum(asked) == model(data, asked), block_bytes


IMAGEIO = """
import json, sys
from ovirt_imageio._internal import blkhash
from ovirt_imageio._internal.handlers.checksum import ALGORITHMS
found = []
for algorithm in sorted(ALGORITHMS):
    for block_size in map(int, sys.argv[2:]):
        size = 32 if algorithm.startswith("blake2") else None
        try:
            checksum = blkhash.checksum(sys.argv[1], block_size, algorithm, size)["checksum"]
        except (AttributeError, TypeError):
            continue  # it offers more than it can do
        found.append([algorithm, block_size, checksum])
print(json.dumps(found))
"""


async def test_it_is_what_imageio_says_for_every_algorithm_and_block_size_that_it_can_do(file: Path) -> None:
    program = find_imageio()
    if program is None:
        pytest.skip("no ovirt-imageio: `make bench` installs it")
    sizes = [str(size) for size in BLOCK_SIZES]
    command = [str(program.parent / "python"), "-c", IMAGEIO, str(file), *sizes]
    table = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=PROGRAM_S).stdout)
    assert len(table) >= 10 * len(sizes)
    async with working(raw(file)) as process:
        for algorithm, block_bytes, expected in table:
            assert await process.checksum(Asked(algorithm, block_bytes)) == expected, (algorithm, block_bytes)


@pytest.mark.parametrize("size", [0, 1, 4096, MIB, MIB + 1])
async def test_small_images_and_empty_ones_have_one_too(room: Path, size: int) -> None:
    data = os.urandom(size)
    (room / "small").write_bytes(data)
    async with working(raw(room / "small")) as process:
        assert await process.checksum(Asked()) == model(data, Asked())


@pytest.mark.nbd
async def test_an_nbd_export_has_the_same_as_its_file(images: Images, file: Path) -> None:
    os.truncate(file, 48 * MIB)  # qemu's images are whole sectors
    server = images.qemu_nbd(file)
    async with working(Export("unix", socket=str(server.socket))) as process:
        assert await process.checksum(Asked()) == model(file.read_bytes(), Asked())


@pytest.mark.parametrize(("block", "has_extents"), [(1, True), (65536, True), (4096, False)])
def test_an_export_of_large_blocks_is_asked_for_whole_ones_only(block: int, has_extents: bool) -> None:
    limits = limits_of(3 * MIB + 65536, block, most=262144, has_extents=has_extents)
    device = Device(limits, os.urandom(MIB) + bytes(MIB) + os.urandom(MIB + 65536))
    slot = memoryview(bytearray(4096))
    asked = Asked(block_bytes=MIB + 4096)
    checksum_format.ask(slot, asked)
    plan = checksum(limits, asked, 2, slot)
    waiting: list[Command] = []
    try:
        while True:
            waiting += next(plan)
            command = waiting.pop()  # the last one first: any order will do
            if command.operation is Operation.HASH:
                hash_buffer(command)
            elif command.operation is Operation.STATUS:
                command.found = {"base:allocation": [(command.length, 0)]}
            else:
                device.execute(command)
            command.answered = True
    except StopIteration as done:
        assert checksum_format.answered(slot, done.value.filled) == model(bytes(device.data), asked)


def test_blocks_are_zeros_only_where_all_their_runs_are() -> None:
    runs = [(3, False), (2, True), (5, True), (2, True), (5, True), (1, True)]
    assert list(split(runs, 100, 5)) == [
        (100, 5, False),
        (105, 5, True),
        (110, 5, True),
        (115, 3, True),
    ]


# -- its cost --------------------------------------------------------------------------------------------------


async def test_a_hole_of_a_tebibyte_is_neither_read_nor_kept_in_memory(room: Path) -> None:
    path = room / "huge"
    with path.open("wb") as made:
        made.truncate(1 << 36)
        os.pwrite(made.fileno(), b"x", 1 << 35)
    zero = hashlib.blake2b(bytes(4 * MIB), digest_size=32).digest()
    data = hashlib.blake2b(b"x" + bytes(4 * MIB - 1), digest_size=32).digest()
    blocks = [zero] * (1 << 14)
    blocks[1 << 13] = data
    async with working(raw(path)) as process:
        assert await process.checksum(Asked()) == hashlib.blake2b(b"".join(blocks), digest_size=32).hexdigest()
        assert process.memory_peak_bytes < 128 * MIB


async def test_two_checksums_run_and_a_third_one_waits_in_little_memory(room: Path) -> None:
    path = room / "data"
    path.write_bytes(os.urandom(64 * MIB))
    async with working(raw(path)) as process:
        running = [await process.ask_checksum(Asked()) for _ in range(3)]
        assert {(await one.done).status for one in running} == {Status.OK}
        assert process.memory_peak_bytes < 192 * MIB


# -- its end ---------------------------------------------------------------------------------------------------


async def cancel(process: Process, number: int) -> None:
    assert (await process.do(Kind.CANCEL, number)).status is Status.OK


@pytest.mark.nbd
async def test_small_reads_go_on_beside_checksums_and_one_that_is_cancelled_ends_at_once(images: Images) -> None:
    """Two run and two wait, each of 4 TiB of data: an hour's work, so what ends here did not wait for it."""
    endless = images.nbdkit("endless", "pattern", "size=4T")
    async with working(Export("unix", socket=str(endless.socket))) as process, asyncio.timeout(PATIENCE_S):
        running = [await process.ask_checksum(Asked()) for _ in range(4)]
        for at in range(0, 20 * 4096, 4096):  # each 8 bytes of it say where they are
            assert await process.read(at, 4096) == b"".join(word.to_bytes(8) for word in range(at, at + 4096, 8))
        assert not any(one.done.done() for one in running)
        for one in running:
            await cancel(process, one.job.number)
            completion = await one.done
            assert (completion.status, completion.value) == (Status.FAILED, errno.ECANCELED)
            process.lane.give_back(one.job.slot)
        await cancel(process, 12345)
        assert await process.read(0, 8) == bytes(8)


async def test_a_checksum_whose_lane_is_closed_ends_with_it(room: Path) -> None:
    """Else the worker would not leave before it is done."""
    path = room / "data"
    path.write_bytes(os.urandom(128 * MIB))
    async with working(raw(path)) as process:
        await process.ask_checksum(Asked())
        await process.read(0, 4096)


async def test_a_checksum_goes_on_with_the_next_worker_when_its_own_is_killed(file: Path) -> None:
    async with working(raw(file)) as process:
        in_flight = await process.ask_checksum(Asked("sha256"))
        process.kill()
        process.start()
        completion = await in_flight.done
        digest = checksum_format.answered(process.lane.views[in_flight.job.slot], completion.value)
        assert digest == model(file.read_bytes(), Asked("sha256"))


async def test_one_that_may_not_read_waits_until_it_may(file: Path) -> None:
    """Block by block, over a worker's death, too; zeros that are told of do not count."""
    async with working(raw(file)) as process:
        slot = await process.lane.take_slot(process.lane.slots.enter())
        view = process.lane.views[slot]
        checksum_format.ask(view, Asked(block_bytes=MIB))
        checksum_format.may_read(view, 0)
        in_flight = process.lane.submit(Kind.CHECKSUM, slot=slot)
        steps = 0
        while not in_flight.done.done():
            wanted = checksum_format.wanted(view)
            if wanted > checksum_format.readable(view):
                checksum_format.may_read(view, wanted)
                steps += 1
                if steps == 3:
                    process.kill()
                    process.start()
                await process.do(Kind.GO_ON, in_flight.job.number)
            else:
                await process.read(0, 4096)
        completion = await in_flight.done
        assert checksum_format.answered(view, completion.value) == model(file.read_bytes(), Asked(block_bytes=MIB))
        assert steps >= 3
        assert checksum_format.readable(view) < file.stat().st_size


async def test_bytes_that_cannot_be_read_fail_it(file: Path) -> None:
    async with working(raw(file)) as process:
        os.truncate(file, 2 * MIB)
        completion = await (await process.ask_checksum(Asked())).done
        assert completion.status in (Status.FAILED, Status.GONE)


@pytest.mark.parametrize(
    "asked",
    [Asked("shake_128"), Asked("md6"), Asked("__class__"), Asked(block_bytes=MIB - 4096), Asked(block_bytes=MIB + 1)],
)
async def test_what_cannot_be_answered_is_refused(file: Path, asked: Asked) -> None:
    with pytest.raises(ChecksumRefused):
        checksum_format.check(asked)
    async with working(raw(file)) as process:
        completion = await (await process.ask_checksum(asked)).done
        assert (completion.status, completion.value) == (Status.REFUSED, errno.EINVAL)


async def test_a_slot_without_a_question_is_refused(file: Path) -> None:
    async with working(raw(file)) as process:
        slot = await process.lane.take_slot(process.lane.slots.enter())
        process.lane.views[slot][:64] = b"\xff" * 64
        completion = await process.lane.run(Kind.CHECKSUM, slot=slot)
        assert (completion.status, completion.value) == (Status.REFUSED, errno.EINVAL)


# -- zeros -----------------------------------------------------------------------------------------------------


async def test_a_long_zero_that_is_cancelled_ends_after_the_step_that_it_is_at(room: Path) -> None:
    path = room / "zeros"
    with path.open("wb") as made:
        made.truncate(1 << 40)
    async with working(raw(path)) as process:
        zero = process.lane.submit(Kind.ZERO, 0, 1 << 40)  # without holes, tmpfs has them written: memory is not enough
        await cancel(process, zero.job.number)
        async with asyncio.timeout(PATIENCE_S):
            completion = await zero.done
        assert (completion.status, completion.value) == (Status.FAILED, errno.ECANCELED)
        assert path.stat().st_blocks * 512 <= 256 * MIB

"""The S3 store's worker against moto, and what its server may do to it. Real servers: test_every_store.py."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.export import Export
from config.store_settings import S3Store
from config.stores import object_of
from tests.harness.fixtures import memory_room
from tests.harness.waiting import PATIENCE_S
from tests.image.process import SETTINGS, Process
from tests.store.s3_servers import BUCKET, KEY, SECRET, Passing, S3Server, Trouble, moto, trouble_before
from tests.store.shop import IMAGE, assert_refused, shop
from workers.lane.lane_states import LaneLost
from workers.lane.protocol import Kind, Status
from workers.lane.store_format import (
    Confirm,
    Done,
    Find,
    Found,
    Publish,
    Published,
    Receive,
    Refused,
    Remove,
    Sweep,
    Swept,
    Why,
)

MIB = 1024 * 1024
BEGIN = Receive(IMAGE, "sha512")


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with memory_room() as room, moto(room) as server:
        yield server


@pytest.fixture
def s3(server: S3Server) -> S3Server:
    """The server, with an empty bucket."""
    server.clear()
    return server


@pytest.fixture
def trouble(s3: S3Server) -> Iterator[Trouble]:
    with trouble_before(s3) as trouble:
        yield trouble


async def whole_object(store: S3Store, answer: Published) -> bytes:
    """An object's bytes as a worker reads them, in slots, several at a time."""
    name = object_of(store, answer.uri)
    assert name is not None
    process = Process(Export("object", name=store.id, path=name), SETTINGS, store)
    process.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await process.lane.opened()
            shown = process.lane.image
            assert shown is not None
            assert shown.read_only
            return await _read(process, shown.size_bytes)
    finally:
        process.close()


async def _read(process: Process, size: int) -> bytes:
    lane = process.lane

    async def one(at: int) -> bytes:
        holder = lane.slots.enter()
        slot = await lane.take_slot(holder)
        lane.slots.leave(holder)
        length = min(MIB, size - at)
        completion = await lane.run(Kind.READ, at, length, slot=slot)
        assert completion.status is Status.OK, completion
        data = bytes(lane.views[slot][:length])
        lane.give_back(slot)
        return data

    return b"".join(await asyncio.gather(*map(one, range(0, size, MIB))))


async def test_what_is_put_is_one_object_with_its_digests_and_is_read_back_in_ranges(s3: S3Server) -> None:
    store = s3.store(prefix="a/b/", part_bytes=5 * MIB)
    for length in (0, 5 * MIB, 23 * MIB + 17):
        data = noise(length, length)
        async with shop(store) as image:
            answer = await image.put(data)
            assert isinstance(answer, Published), answer
            assert (answer.size, answer.md5) == (length, hashlib.md5(data).hexdigest())
            assert answer.hash_value == hashlib.sha512(data).hexdigest()
            assert isinstance(await image.ask(Confirm(IMAGE, answer.uri)), Done)
            name = object_of(store, answer.uri)
            assert s3.names() == [name]
            assert await image.ask(Find(answer.uri)) == Found(length)
        assert await whole_object(store, answer) == data
        async with shop(store, "") as whole:
            assert isinstance(await whole.ask(Remove(answer.uri)), Done)
            assert isinstance(await whole.ask(Remove(answer.uri)), Done)
            assert await whole.ask(Find(answer.uri)) == Found(None)
        assert s3.names() == []


async def test_what_is_refused_or_rolled_back_leaves_neither_object_nor_parts(s3: S3Server) -> None:
    async with shop(s3.store(part_bytes=5 * MIB)) as image:
        data = noise(17 * MIB)
        assert_refused(await image.put(data, md5="0" * 32), Why.WRONG_CHECKSUM)
        assert_refused(await image.put(data, disk_format="qcow2"), Why.WRONG_FORMAT)
        session = await image.receive()
        await image.write(session, data)
        assert s3.unfinished() == 1
        await image.roll_back(session)
    assert s3.names() == []
    assert s3.unfinished() == 0


async def test_a_disk_s_size_is_known_from_its_header(s3: S3Server, tmp_path: Path) -> None:
    for kind in ("qcow2", "vmdk", "vdi", "vpc"):
        file = tmp_path / kind
        assert os.system(f"qemu-img create -q -f {kind} {file} 64M") == 0
        data = file.read_bytes()
        async with shop(s3.store()) as image:
            answer = await image.put(data, disk_format={"vpc": "vhd"}.get(kind, kind))
            assert isinstance(answer, Published), (kind, answer)
            assert answer.virtual_size is not None
            assert 64 * MIB <= answer.virtual_size <= 65 * MIB


async def test_an_upload_whose_worker_was_killed_is_swept_and_one_under_way_is_not(s3: S3Server) -> None:
    store = s3.store(part_bytes=5 * MIB)
    async with shop(store) as living, shop(store, "") as whole:
        session = await living.receive()
        await living.write(session, noise(12 * MIB))
        async with shop(store, IMAGE.replace("6", "7")) as dying:
            await dying.write(await dying.receive(), noise(12 * MIB))
            dying.process.kill()
        assert s3.unfinished() == 2
        assert await whole.ask(Sweep(0)) == Swept(1, [])
        assert s3.unfinished() == 1
        answer = await living.ask(Publish(session))
        assert isinstance(answer, Published)
        swept = await whole.ask(Sweep(0))
        assert isinstance(swept, Swept)
        assert [(one.image, one.uri) for one in swept.unconfirmed] == [(IMAGE, answer.uri)]
        assert await whole.ask(Sweep(0, "of another registry")) == Swept(0, [])


async def test_errors_that_pass_are_tried_again(s3: S3Server, trouble: Trouble) -> None:
    counts: dict[str, int] = {}

    def fault(passing: Passing) -> bool:
        counts[passing.path] = counts.get(passing.path, 0) + 1
        if counts[passing.path] == 1:
            return passing.answer(503, "SlowDown")
        return counts[passing.path] == 2 and passing.answer(500, "InternalError")

    trouble.fault = fault
    store, data = s3.store(endpoint=trouble.endpoint, part_bytes=5 * MIB), noise(7 * MIB)
    async with shop(store) as image:
        answer = await image.put(data)
        assert isinstance(answer, Published), answer
    counts.clear()
    assert await whole_object(store, answer) == data


async def test_bodies_that_are_cut_short_are_noticed_and_asked_for_again(s3: S3Server, trouble: Trouble) -> None:
    async with shop(s3.store()) as image:
        answer = await image.put(data := noise(9 * MIB))
        assert isinstance(answer, Published), answer
    cut: set[str] = set()

    def fault(passing: Passing) -> bool:
        asked = passing.headers.get("Range", "")
        if passing.command == "GET" and asked not in cut:
            cut.add(asked)
            passing.cut_at = 500_000
        return False

    trouble.fault = fault
    assert await whole_object(s3.store(endpoint=trouble.endpoint), answer) == data
    assert cut


async def test_a_server_that_fails_for_good_fails_the_upload_which_leaves_nothing(
    s3: S3Server, trouble: Trouble
) -> None:
    async with shop(s3.store(endpoint=trouble.endpoint, part_bytes=5 * MIB)) as image:
        session = await image.receive()
        await image.write(session, noise(5 * MIB))
        trouble.fault = lambda passing: "partNumber" in passing.path and passing.answer(403, "AccessDenied")
        await image.write(session, noise(20 * MIB), 5 * MIB)
        answer = await image.ask(Publish(session))
        assert isinstance(answer, Refused), answer
    assert s3.names() == []
    assert s3.unfinished() == 0


async def test_credentials_that_are_wrong_are_said_to_be_and_never_shown(s3: S3Server, trouble: Trouble) -> None:
    trouble.fault = lambda passing: passing.answer(403, "SignatureDoesNotMatch")
    async with shop(s3.store(endpoint=trouble.endpoint)) as image:
        refused = assert_refused(await image.ask(BEGIN), Why.DENIED)
        assert "refuses Mover's credentials (SignatureDoesNotMatch)" in refused.message
        assert SECRET not in refused.message
        assert KEY not in refused.message
    process = Process(Export("object", name="s3", path=f"{IMAGE}.0"), SETTINGS, s3.store(endpoint=trouble.endpoint))
    process.start()
    try:
        lost = ""
        try:
            await process.lane.opened()
        except LaneLost as error:
            lost = error.reason  # and not its traceback, which would keep the lane
        assert "refuses Mover's credentials" in lost
    finally:
        process.close()


async def test_a_bucket_or_credentials_that_are_not_there_are_named(s3: S3Server, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("[default]\naws_access_key_id = A\n")
    no_section = tmp_path / "no-section"
    no_section.write_text(f"aws_secret_access_key = {SECRET}\n")
    for file, why in (
        (empty, "has no aws_secret_access_key"),
        (no_section, r"no section [default]"),
        (tmp_path / "none", "no such file"),
    ):
        async with shop(s3.store(credentials_file=str(file))) as image:
            refused = assert_refused(await image.ask(BEGIN), Why.GONE)
            assert why in refused.message
            assert SECRET not in refused.message
    store = S3Store("s3", s3.endpoint, "not-there", credentials_file=str(s3.credentials()))
    async with shop(store) as image:
        assert "no such bucket" in assert_refused(await image.ask(BEGIN), Why.GONE).message


def settings_of(s3: S3Server, **settings: object) -> dict[str, list[Any]]:
    store = {"type": "s3", "id": "s3", "bucket": BUCKET, "endpoint": s3.endpoint}
    return {"store": [store | {"credentials_file": str(s3.credentials()), "part_bytes": 5 * MIB} | settings]}

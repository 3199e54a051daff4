"""Disks into a store of objects and out of it, by jobs, with a server that speaks S3; a store that does not answer."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from tests.harness.fixtures import StartMover
from tests.harness.mover import Mover, Value
from tests.harness.waiting import wait_until
from tests.jobs.jobs import Jobs, tables
from tests.jobs.test_imports import served
from tests.jobs.test_killed import kill_front_ends, kill_workers
from tests.store.s3_servers import S3Server, moto

pytestmark = pytest.mark.nbd

MIB = 1024 * 1024
# Holes, and more data than one part of a multipart upload.
DISK = random.Random(5).randbytes(6 * MIB) + bytes(5 * MIB) + random.Random(6).randbytes(2 * MIB + 512) + bytes(MIB)
# Three for jobs that do not let go, five for workers that do not; without that it was half a minute, and more.
STOP_S = 15.0


class S3Jobs(Jobs):
    """Jobs whose third store is a bucket."""

    s3: S3Server


@pytest.fixture(scope="module")
def jobs(module_room: Path) -> Iterator[S3Jobs]:
    """At a rate that makes each job take some seconds."""
    own = module_room / "mover"
    own.mkdir()
    with ExitStack() as stack:
        s3 = stack.enter_context(moto(module_room))
        settings = tables(module_room, job_tries=8)
        bucket: dict[str, Value] = {
            "type": "s3", "id": "cellar", "endpoint": s3.endpoint, "bucket": "images", "part_bytes": 5 * MIB,
            "credentials_file": str(s3.credentials()),
        }  # fmt: skip
        slow = {"qos": {"image_bytes_s": 4 * MIB}, "front": {"slots": 4, "request_slots": 4, "slot_bytes": 256 * 1024}}
        stores = [*cast(list[dict[str, Value]], settings["store"]), bucket]
        mover = Mover(own, {}, {**settings, **slow, "store": stores}, front_ends=2)
        stack.callback(mover.close)
        found = S3Jobs(mover.start(), module_room)
        found.s3 = s3
        yield found


def test_a_disk_into_a_bucket_and_out_of_it_whoever_is_killed(jobs: S3Jobs, endings: ExitStack) -> None:
    """Workers in the middle of the one, front ends of the other. The digests are the disk's; of what was begun anew
    nothing is left in the bucket.
    """
    source = served(jobs.room, "source", DISK, endings, read_only=True)
    image = jobs.create()["id"]
    job = jobs.begun(image, "disk", source=source.uri(), stores=["cellar"])
    jobs.moved(job)
    kill_workers(jobs.mover)
    wait_until("the service answers", jobs.mover.answers)
    task = jobs.ended(job)
    assert (task["state"], task["bytes_done"]) == ("done", len(DISK)), task
    assert_in_bucket(jobs, image)
    target = served(jobs.room, "target", b"x" * (len(DISK) + MIB), endings)
    out = jobs.export(image, target.uri()).headers["location"].rpartition("/")[2]
    jobs.moved(out)
    kill_front_ends(jobs.mover)
    wait_until("the service answers", jobs.mover.answers)
    assert jobs.ended(out)["state"] == "done"
    assert (jobs.room / "target").read_bytes() == DISK + b"x" * MIB
    assert jobs.ended(jobs.begun(image, "copy-image", stores=["far"]))["state"] == "done"
    assert jobs.file("far", image).read_bytes() == DISK
    assert jobs.ask("DELETE", f"/v2/images/{image}").status == 204
    assert jobs.mover.stop() == 0
    jobs.mover.start()
    assert jobs.listed() == []
    wait_until("nothing is left of it", lambda: not jobs.s3.names() and not jobs.s3.unfinished())


def assert_in_bucket(jobs: S3Jobs, image: str) -> None:
    shown = jobs.show(image)
    assert (shown["status"], shown["stores"], shown["size"]) == ("active", "cellar", len(DISK))
    assert shown["checksum"] == hashlib.md5(DISK).hexdigest()
    assert shown["os_hash_value"] == hashlib.new(shown["os_hash_algo"], DISK).hexdigest()
    assert jobs.ask("GET", f"/v2/images/{image}/file").body == DISK
    # Of a try that was killed a sweep finds the rest by its record.
    assert [name.partition(".")[0] for name in jobs.s3.names() if not name.startswith(".")] == [image]


def test_a_dead_store_does_not_hold_the_end_of_the_service(start_mover: StartMover, room: Path) -> None:
    """Its server takes connections and never answers; a sweep and jobs wait for it when the service ends. The jobs are
    left as they are, and go on with the next service.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=64) as deaf:
        bucket: dict[str, Value] = {
            "type": "s3", "id": "cellar", "endpoint": f"http://127.0.0.1:{deaf.getsockname()[1]}", "bucket": "images",
            "credentials_file": str(S3Server("", room).credentials()),
        }  # fmt: skip
        settings = tables(room)
        stores = [*cast(list[dict[str, Value]], settings["store"]), bucket]
        jobs = Jobs(start_mover({}, {**settings, "store": stores}, front_ends=2), room)
        begun = []
        for _ in range(2):
            image = jobs.active(random.Random(9).randbytes(6 * MIB))["id"]
            begun.append(jobs.begun(image, "copy-image", stores=["cellar"]))
        wait_until("jobs run", lambda: all(jobs.task(job)["state"] == "running" for job in begun))
        wait_until("the store is asked", lambda: bool(select.select([deaf], [], [], 0)[0]))
        began_s = time.monotonic()
        assert jobs.mover.stop() == 0
        assert time.monotonic() - began_s < STOP_S
        jobs.mover.wait_for_end()
        jobs.mover.start()
        assert {jobs.task(job)["state"] for job in begun} <= {"pending", "running"}
        assert [jobs.cancel(job).status for job in begun] == [202, 202]

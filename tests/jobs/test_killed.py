"""Whoever is killed in the middle of jobs of every kind: they go on, and what they make is whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.dying import kill
from tests.harness.fixtures import StartMover
from tests.harness.mover import Mover
from tests.harness.sources import sources
from tests.harness.transfers import Doing
from tests.harness.waiting import wait_until
from tests.jobs.jobs import Jobs, tables
from tests.jobs.test_imports import MIB, assert_whole, served

pytestmark = pytest.mark.nbd

DATA = random.Random(3).randbytes(7 * MIB)
# Each job takes some four seconds, at the rate that is set below.


def kill_workers(mover: Mover) -> None:
    for row in mover.workers():
        kill(row["pid"])


def kill_front_ends(mover: Mover) -> None:
    for pid in mover.front_end_pids():
        kill(pid)


def kill_supervisor(mover: Mover) -> None:
    kill(mover.pid)
    mover.wait_for_end()
    mover.start()


def kill_house(mover: Mover) -> None:
    for process in mover.family():
        kill(process.pid)
    mover.wait_for_end()
    mover.start()


VICTIMS: dict[str, Callable[[Mover], None]] = {
    "workers": kill_workers,
    "front ends": kill_front_ends,
    "supervisor": kill_supervisor,
    "house": kill_house,
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_jobs_of_every_kind_go_on(start_mover: StartMover, room: Path, endings: ExitStack, victim: str) -> None:
    """A disk, staged data, a URL, a copy and an export are under way; all of them end as if nothing had been."""
    web = endings.enter_context(sources())
    settings = tables(room, jobs=5, job_tries=8, url_ports=[web.port], url_allow=["127.0.0.0/8"])
    slow = {"qos": {"image_bytes_s": 2 * MIB}, "front": {"slots": 4, "request_slots": 4, "slot_bytes": 256 * 1024}}
    jobs = Jobs(start_mover({}, {**settings, **slow}, front_ends=2), room)
    source = served(room, "source", DATA, endings, read_only=True)
    target = served(room, "target", bytes(len(DATA)), endings)
    disk, staged, fetched, ready, out = (jobs.create()["id"] for _ in range(5))
    uploads = [Doing(lambda image=image: jobs.upload(image, DATA)) for image in (ready, out)]  # type: ignore[misc]
    assert jobs.stage(staged, DATA).status == 204
    assert [upload.result().status for upload in uploads] == [204, 204]
    begun = [
        jobs.begun(disk, "disk", source=source.uri()),
        jobs.begun(staged, "glance-direct", stores=["near", "far"]),
        jobs.begun(fetched, "web-download", uri=web.put("/image", DATA)),
        jobs.begun(ready, "copy-image", stores=["far"]),
        jobs.export(out, target.uri()).headers["location"].rpartition("/")[2],
    ]
    for job in begun:
        jobs.moved(job)
    VICTIMS[victim](jobs.mover)
    wait_until("the service answers", jobs.mover.answers)
    for job in begun:
        task = jobs.ended(job)
        assert task["state"] == "done", task
    assert_whole(jobs, disk, DATA, "near")
    assert_whole(jobs, staged, DATA, "near", "far")
    assert_whole(jobs, fetched, DATA, "near")
    assert_whole(jobs, ready, DATA, "near", "far")
    assert (room / "target").read_bytes() == DATA

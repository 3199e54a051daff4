"""A store that runs full: an import, a copy, staged data and an upload by ticket say so, and leave no byte in it."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.mover import Mover
from tests.jobs.jobs import Jobs, tables
from tests.jobs.test_imports import MIB, served

pytestmark = pytest.mark.nbd

DATA = random.Random(4).randbytes(6 * MIB)
FULL = "the store is full"


@pytest.fixture
def jobs(room: Path) -> Iterator[Jobs]:
    """The store `far` is a file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("a small file system takes root to be mounted")
    far, own = room / "far", room / "mover"
    far.mkdir()
    own.mkdir()
    with ExitStack() as stack:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", far], check=True)
        stack.callback(lambda: subprocess.run(["umount", far], check=True))
        mover = Mover(own, {}, tables(room))
        stack.callback(mover.close)
        yield Jobs(mover.start(), room)
        mover.stop_clean()


def test_a_store_that_runs_full_says_so_and_is_as_it_was(jobs: Jobs, endings: ExitStack) -> None:
    source = served(jobs.room, "source", DATA, endings, read_only=True)
    brought, staged, sent = (jobs.create()["id"] for _ in range(3))
    copied = jobs.active(DATA)["id"]
    assert jobs.stage(staged, DATA).status == 204
    begun = {
        brought: jobs.begun(brought, "disk", source=source.uri(), stores=["far"]),
        staged: jobs.begun(staged, "glance-direct", stores=["far"]),
        copied: jobs.begun(copied, "copy-image", stores=["far"]),
    }
    for image, job in begun.items():
        task = jobs.ended(job)
        assert (task["state"], FULL in task["message"]) == ("failed", True), task
        assert jobs.show(image)["status"] == ("active" if image == copied else "queued")
        jobs.wait_for_files(image, *([f"near/{image}"] if image == copied else []))
    wanted = {"direction": "upload", "size": len(DATA), "store": "far"}
    transfer = jobs.json("POST", f"/v2/images/{sent}/transfers", wanted).json()
    assert jobs.ask("PUT", f"/images/{transfer['ticket']}", DATA).status == 500
    # A record of the image is written when it is whole, and there is no room for one.
    (jobs.room / "far" / "filling").write_bytes(bytes(os.statvfs(jobs.room / "far").f_bavail * 4096))
    refused = jobs.ask("DELETE", f"/v2/images/{sent}/transfers/{transfer['id']}")
    assert (refused.status, FULL.encode() in refused.body) == (413, True), refused
    assert jobs.show(sent)["status"] == "queued"
    jobs.wait_for_files(sent)

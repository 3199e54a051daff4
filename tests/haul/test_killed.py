"""Whoever is killed in the middle of a haul: the bytes are whole, or nothing is there, and it can be done again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.patterns import assert_same_file, write_pattern
from tests.harness.waiting import wait_until
from tests.haul.conftest import Disks
from tests.haul.hauls import MIB, Hauls, assert_digests

pytestmark = pytest.mark.nbd

SIZE = 48 * MIB
EARLY = 8 * MIB


def kill_worker(hauls: Hauls, export: str) -> None:
    """SIGKILL for the worker whose export begins so."""
    pids = [row["pid"] for row in hauls.mover.workers() if row["export"].startswith(export) and row["pid"] is not None]
    assert len(pids) == 1, hauls.mover.workers()
    os.kill(pids[0], signal.SIGKILL)


@pytest.fixture
def stored(hauls: Hauls) -> Iterator[Path]:
    """An image's file in the store."""
    file = hauls.directory / "stored"
    write_pattern(file, 1, SIZE)
    yield file
    file.unlink()


def test_the_sources_worker(hauls: Hauls, disks: Disks) -> None:
    """Its successor reads what it had not: nobody notices."""
    file = disks.pattern(SIZE)
    source = disks.slow(file)
    number = hauls.begin(source.uri(), image="read-on")
    hauls.wait_for(number, EARLY)
    kill_worker(hauls, source.uri())
    told = hauls.end(number)
    assert told["state"] == "done", told
    assert_digests(told["received"], file.read_bytes())
    assert_same_file(hauls.directory / "read-on", file)


def test_the_stores_worker(hauls: Hauls, disks: Disks) -> None:
    """Nothing is left but what was made durable before; the next try begins anew."""
    file, before = disks.pattern(SIZE), hauls.listing()
    source = disks.slow(file)
    number = hauls.begin(source.uri(), image="again", resumable=True)
    hauls.wait_for(number, EARLY)
    kill_worker(hauls, "store:///file/again")
    told = hauls.end(number)
    assert told["error"] == "StoreGone", told
    assert hauls.kept("again") is None
    number = hauls.begin(source.uri(), image="again")
    assert hauls.end(number)["state"] == "done"
    assert_same_file(hauls.directory / "again", file)
    assert hauls.listing() == sorted([*before, "again"])


def test_the_sources_server(hauls: Hauls, disks: Disks) -> None:
    """When it does not come back, what has come is kept; when it does, the haul goes on by itself."""
    file = disks.pattern(SIZE)
    source = disks.slow(file)
    number = hauls.begin(source.uri(), image="kept", resumable=True)
    hauls.wait_for(number, EARLY)
    source.kill()
    told = hauls.end(number)
    assert told["error"] == "SourceGone", told
    kept = hauls.kept("kept")
    assert kept is not None
    assert kept >= EARLY
    source.start()
    number = hauls.begin(source.uri(), image="kept", resumable=True, offset=kept)
    hauls.wait_for(number, kept + MIB)
    source.kill()
    source.start()
    told = hauls.end(number)
    assert told["state"] == "done", told
    assert_digests(told["received"], file.read_bytes())


def test_the_disks_worker_and_its_server(hauls: Hauls, disks: Disks, stored: Path) -> None:
    """What was written and not flushed is written again; what the disk has in the end is the image."""
    target = disks.pattern(SIZE, 9)
    server = disks.slow(target)
    location = {"store": "file", "uri": f"file://{stored}"}
    number = hauls.begin(server.uri(), location=location, size_bytes=SIZE)
    hauls.wait_for(number, EARLY)
    kill_worker(hauls, server.uri())
    hauls.wait_for(number, 2 * EARLY)
    server.kill()
    server.start()
    told = hauls.end(number)
    assert told["state"] == "done", told
    assert_same_file(target, stored)


def test_the_disks_server_for_good(hauls: Hauls, disks: Disks, stored: Path) -> None:
    server = disks.slow(disks.pattern(SIZE, 9))
    number = hauls.begin(server.uri(), location={"store": "file", "uri": f"file://{stored}"}, size_bytes=SIZE)
    hauls.wait_for(number, EARLY)
    server.kill()
    told = hauls.end(number)
    assert told["error"] == "TargetGone", told


def test_the_front_end(hauls: Hauls, disks: Disks) -> None:
    """Nothing active that is not whole, and nothing left but what may be gone on with."""
    file, before = disks.pattern(SIZE), hauls.listing()
    source = disks.slow(file)
    for image, resumable in (("lost", False), ("goes-on-later", True)):
        number = hauls.begin(source.uri(), image=image, resumable=resumable)
        hauls.wait_for(number, EARLY)
        (front_end,) = [one for one in hauls.mover.children() if "tests.haul.front_end" in one.cmdline()]
        front_end.kill()
        wait_until("another one serves", lambda: _serves(hauls))
        left = [f".{image}.mover-part", f".{image}.mover-record"] if resumable else []
        hauls.wait_for_files(*before, *left)
    kept = hauls.kept("goes-on-later")
    assert kept is not None
    number = hauls.begin(source.uri(), image="goes-on-later", resumable=True, offset=kept)
    assert hauls.end(number)["state"] == "done"
    assert_same_file(hauls.directory / "goes-on-later", file)


def _serves(hauls: Hauls) -> bool:
    try:
        return hauls.mover.ask("GET", "/info").status == 200
    except OSError:
        return False

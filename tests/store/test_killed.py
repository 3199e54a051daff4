"""Whatever is killed while images come and go: none is active with wrong bytes, none lost, nothing is left over.

The moments are random, spread over the upload, its publishing and its delete; the seed is in the test's name.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.dying import kill
from tests.harness.fixtures import StartMover, memory_room
from tests.harness.http import Answer
from tests.harness.mover import Mover
from tests.harness.transfers import Doing, upload
from tests.harness.waiting import wait_until
from tests.store.library import OCTETS, Library

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
SIZE = 6 * MIB
SETTINGS = {"worker": {"idle_s": 1.0}, "supervisor": {"backoff_s": 0.2}}


def noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(SIZE)


def some_worker(mover: Mover) -> int | None:
    pids = [row["pid"] for row in mover.workers() if row["pid"] is not None]
    return pids[-1] if pids else None


VICTIMS: dict[str, Callable[[Mover], None]] = {
    "worker": lambda mover: kill(some_worker(mover)),
    "front end": lambda mover: kill(mover.front_end_pids()[0]),
    "supervisor": lambda mover: kill(mover.pid),
}


def put(
    library: Library, image: str, data: bytes, moments: dict[int, Callable[[], object]] | None = None
) -> Answer | None:
    """The answer, None if there was none."""
    try:
        return upload(
            library.mover.address(), f"/v2/images/{image}/file", memoryview(data), moments, Content_Type=OCTETS
        )
    except (ConnectionError, OSError):
        return None


def revive(library: Library, victim: str) -> None:
    """Wait until the house is whole again."""
    mover = library.mover
    if victim == "supervisor":
        mover.wait_for_end()
        mover.start()
    wait_until("two front ends answer", lambda: len(mover.front_end_pids()) == 2)
    wait_until("the service answers", mover.answers)


def settled(library: Library, image: str) -> str:
    """The image's status when nobody is receiving it any more."""

    def status() -> str | None:
        found: str = library.show(image)["status"]
        return None if found == "saving" else found

    return wait_until("somebody notices that the uploader is dead", status, 40)


@dataclass(frozen=True)
class Struck:
    """A library whose `victim` is killed again and again."""

    library: Library
    victim: str


@pytest.fixture(scope="module", params=VICTIMS)
def struck(request: pytest.FixtureRequest) -> Iterator[Struck]:
    """A service for each victim; a test leaves no image in it."""
    with memory_room() as room, closing(Mover(room, {}, SETTINGS, front_ends=2)) as mover:
        yield Struck(Library(mover.start()), request.param)


def test_an_upload_is_whole_or_may_be_tried_again(struck: Struck) -> None:
    library, victim = struck.library, struck.victim
    dice = random.Random(victim)
    whole = {}
    for round_ in range(2):
        data, image = noise(round_), library.create()
        late = threading.Timer(dice.uniform(0, 0.03), lambda: VICTIMS[victim](library.mover))
        strike = late.start if round_ % 2 else lambda: VICTIMS[victim](library.mover)
        answer = put(library, image, data, {SIZE - 1 if round_ % 2 else dice.randrange(SIZE): strike})
        late.join() if round_ % 2 else None
        revive(library, victim)
        status = settled(library, image)
        assert status in ("queued", "active")
        assert status == "active" or answer is None or answer.status != 204
        if status == "queued":
            again = wait_until("it can be sent again", lambda: put(library, image, data))  # noqa: B023
            assert again.status == 204, again
        library.assert_whole(image, data)
        whole[image] = data
    for image, data in whole.items():
        library.assert_whole(image, data)
    wait_until(
        f"only images are there: {library.listing()}", lambda: set(library.listing()) - extras(library) == set(whole)
    )
    library.mover.stop()
    library.mover.wait_for_end()
    library.mover.start()
    library.mover.ask("GET", "/v2/images")  # the sweep begins with the registry's first use
    library.wait_for_files(*whole)
    for image in whole:
        assert library.delete(image).status == 204


def extras(library: Library) -> set[str]:
    """Records of images that the next sweep confirms."""
    return {name for name in library.listing() if name.endswith(".mover-record")}


def test_a_delete_is_done_or_not_and_leaves_no_bytes_without_an_image(struck: Struck) -> None:
    library, victim = struck.library, struck.victim
    dice = random.Random(victim)
    library.wait_for_files()
    for round_ in range(2):
        data, image = noise(round_), library.create()
        assert put(library, image, data).status == 204  # type: ignore[union-attr]
        deleting = Doing(lambda: _delete(library, image))  # noqa: B023
        threading.Event().wait(dice.uniform(0, 0.02))
        VICTIMS[victim](library.mover)
        deleting.result()
        revive(library, victim)
        answer = library.mover.ask("GET", f"/v2/images/{image}")
        if answer.status == 200:
            assert answer.json()["status"] == "active"
            library.assert_whole(image, data)
            assert library.delete(image).status == 204
        library.wait_for_files()


def _delete(library: Library, image: str) -> int | None:
    try:
        return library.delete(image).status
    except (ConnectionError, OSError):
        return None


def test_an_interrupted_upload_outlives_the_house(start_mover: StartMover, room: Path) -> None:
    """Killed with everything that runs, it goes on from its last record with the next one, byte for byte."""
    library = Library(start_mover({}, SETTINGS, front_ends=2))
    data, image = noise(9), library.create()
    first = put_range(library, image, data, 0, 2 * MIB)
    assert (first.status, library.kept(image)) == (202, 2 * MIB)
    for process in library.mover.family():
        kill(process.pid)
    library.mover.wait_for_end()
    library.mover.start()
    assert library.kept(image) == 2 * MIB
    assert put_range(library, image, data, 2 * MIB, SIZE).status == 204
    library.assert_whole(image, data)


def put_range(library: Library, image: str, data: bytes, start: int, end: int) -> Answer:
    return library.put(image, data[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(data)}")

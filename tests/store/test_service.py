"""Data of library images through the whole house: front end, lane, worker, file store, and back."""

from __future__ import annotations

import http.client
import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness.fixtures import StartMover, memory_room
from tests.harness.http import Client
from tests.harness.mover import Census, Mover
from tests.harness.transfers import Doing
from tests.harness.waiting import wait_until
from tests.store.library import OCTETS, Library, in_chunks

MIB = 1024 * 1024


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.fixture(scope="module")
def service() -> Iterator[Library]:
    """Served with nothing configured but for the time that idle workers stay, by two front ends; it ends clean."""
    with memory_room() as room, closing(Mover(room, {}, {"worker": {"idle_s": 0.5}}, front_ends=2)) as mover:
        yield Library(mover.start())
        mover.stop_clean()


@pytest.fixture
def library(service: Library) -> Iterator[Library]:
    """Without images, and in the end without the test's."""
    yield service
    service.clear()


def test_what_is_put_is_there_whether_its_length_is_told_or_comes_in_chunks(library: Library) -> None:
    for length, chunk in ((0, 1), (1, 1), (3 * MIB + 5, 65536), (9 * MIB, 3 * MIB + 1), (70_000, 999)):
        data = noise(length, length)
        told, chunked = library.create(), library.create()
        assert library.put(told, data, Content_Length=str(length)).status == 204
        assert library.put(chunked, in_chunks(data, chunk)).status == 204
        for image in (told, chunked):
            library.assert_whole(image, data)
            assert library.show(image)["virtual_size"] == length
            assert library.delete(image).status == 204
    assert library.listing() == []


def test_ranges_and_holes_of_an_image_are_read_as_they_are(library: Library) -> None:
    data = noise(MIB) + bytes(20 * MIB) + noise(3 * MIB, 2) + bytes(5)
    image = library.create()
    assert library.put(image, data).status == 204
    library.assert_whole(image, data)
    assert (library.directory / image).stat().st_blocks * 512 <= 1.05 * 4 * MIB
    for first, last in ((0, 0), (MIB - 3, MIB + 70_000), (12 * MIB, 22 * MIB), (len(data) - 1, len(data) - 1)):
        answer = library.get(image, Range=f"bytes={first}-{last}")
        assert (answer.status, answer.body) == (206, data[first : last + 1])


def test_an_upload_goes_on_where_it_was_interrupted_and_head_says_where(library: Library) -> None:
    data, image = noise(12 * MIB), library.create()
    with Client(library.mover.address()) as client:
        client.putrequest("PUT", f"/v2/images/{image}/file")
        for name, value in (("Content-Type", OCTETS), ("Content-Length", str(len(data)))):
            client.putheader(name, value)
        client.putheader("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}")
        client.endheaders(data[: 5 * MIB + 17])
        wait_until("bytes have come", lambda: part_bytes(library, image) >= 5 * MIB)
    library.wait_for("queued", image)
    kept = library.kept(image)
    assert 0 < kept <= 5 * MIB + 17
    wrong = library.put(image, data[:MIB], Content_Range=f"bytes {MIB}-{2 * MIB - 1}/{len(data)}")
    assert wrong.status in (409, 416)
    assert library.kept(image) == kept
    middle = kept + 2 * MIB + 1
    answer = library.put(image, data[kept:middle], Content_Range=f"bytes {kept}-{middle - 1}/{len(data)}")
    assert (answer.status, answer.headers["upload-offset"]) == (202, str(middle))
    assert library.kept(image) == middle
    answer = library.put(image, in_chunks(data[middle:], 70_000), Content_Range=f"bytes {middle}-*/{len(data)}")
    assert answer.status == 204
    library.assert_whole(image, data)
    library.wait_for_files(image)


def part_bytes(library: Library, image: str) -> int:
    try:
        return os.stat(library.directory / f".{image}.mover-part").st_size
    except FileNotFoundError:
        return 0


def test_a_client_that_leaves_leaves_nothing_unless_it_said_that_it_may_come_back(library: Library) -> None:
    image = library.create()
    for chunked in (False, True):
        with Client(library.mover.address()) as client:
            client.putrequest("PUT", f"/v2/images/{image}/file")
            client.putheader("Content-Type", OCTETS)
            if chunked:
                client.putheader("Transfer-Encoding", "chunked")
                client.endheaders(b"%x\r\n" % (8 * MIB) + noise(2 * MIB))
            else:
                client.putheader("Content-Length", str(8 * MIB))
                client.endheaders(noise(2 * MIB))
            wait_until("bytes have come", lambda: part_bytes(library, image) >= MIB)
        library.wait_for("queued", image)
        library.wait_for_files()
    assert library.put(image, b"whole").status == 204
    library.assert_whole(image, b"whole")


def test_what_is_refused_leaves_nothing_and_may_be_tried_again(library: Library) -> None:
    image = library.create(disk_format="qcow2")
    answer = library.put(image, noise(MIB))
    assert answer.status == 415
    assert b"declared as qcow2" in answer.body
    assert library.show(image)["status"] == "queued"
    assert library.listing() == []
    too_long = library.put(image, in_chunks(noise(MIB), 1000), X_Openstack_Image_Size=str(MIB - 1))
    assert too_long.status in (400, 413)
    assert library.listing() == []
    qcow2 = library.directory.parent / "small.qcow2"
    os.system(f"qemu-img create -q -f qcow2 {qcow2} 5G")
    assert library.put(image, qcow2.read_bytes()).status == 204
    library.assert_whole(image, qcow2.read_bytes())
    assert library.show(image)["virtual_size"] == 5 * 1024 * MIB


def test_of_two_uploads_of_one_image_one_wins(library: Library) -> None:
    data = [noise(6 * MIB, seed) for seed in range(4)]
    image = library.create()

    def put(one: bytes) -> int:
        try:
            return library.put(image, one).status
        except ConnectionError:
            return 409  # the answer was lost with a body that nobody reads any more

    racers = [Doing(lambda one=one: put(one)) for one in data]  # type: ignore[misc]
    statuses = [racer.result() for racer in racers]
    assert sorted(statuses) == [204, 409, 409, 409]
    library.assert_whole(image, data[statuses.index(204)])
    library.wait_for_files(image)


def test_an_image_that_is_deleted_while_it_comes_is_gone_with_all_its_bytes(library: Library) -> None:
    image = library.create()
    with Client(library.mover.address()) as client:
        client.putrequest("PUT", f"/v2/images/{image}/file")
        client.putheader("Content-Type", OCTETS)
        client.putheader("Content-Length", str(4 * MIB))
        client.endheaders(noise(3 * MIB))
        wait_until("bytes have come", lambda: part_bytes(library, image) >= MIB)
        assert library.delete(image).status == 204
        client.send(noise(MIB))
        assert client.read_answer(client.getresponse()).status == 410
    library.wait_for_files()


def test_a_wrong_checksum_is_told_and_leaves_nothing(library: Library) -> None:
    headers = {"x-image-meta-name": "x", "x-image-meta-disk_format": "raw", "x-image-meta-container_format": "bare"}
    with Client(library.mover.address()) as client:
        sent = headers | {"x-image-meta-checksum": "0" * 32, "Content-Type": OCTETS}
        answer = client.ask("POST", "/v1/images", noise(2 * MIB), sent)
    assert answer.status == 400
    assert library.listing() == []


def test_data_that_is_gone_from_the_store_is_told_before_any_byte(library: Library) -> None:
    data = noise(3 * MIB)
    image = library.create()
    assert library.put(image, data).status == 204
    file = library.directory / image
    file.rename(file.with_suffix(".away"))
    assert library.get(image).status in (404, 503)
    file.write_bytes(data[:-1])
    assert library.get(image).status in (404, 503)
    file.with_suffix(".away").replace(file)
    wait_until("it is whole again", lambda: library.get(image).body == data)
    away = library.directory.with_name("away")
    library.directory.rename(away)
    assert library.put(library.create(), b"x").status == 503
    away.rename(library.directory)
    library.assert_whole(image, data)


def test_an_image_that_is_deleted_while_it_is_read_is_read_to_its_end(library: Library) -> None:
    data = noise(40 * MIB)
    image = library.create()
    assert library.put(image, data).status == 204
    with Client(library.mover.address()) as client:
        response = client.begin("GET", f"/v2/images/{image}/file")
        first = response.read(MIB)
        assert library.delete(image).status == 204
        assert library.listing() == []
        assert first + response.read() == data


def test_nothing_is_held_after_many_transfers_of_all_ends(library: Library) -> None:
    """Descriptors, slots, processes and files are what they were."""
    mover = library.mover
    seen: list[Census] = []
    for _ in range(2):
        for number in range(3):
            image = library.create(disk_format="qcow2" if number == 2 else "raw")
            status = library.put(image, noise(2 * MIB, number)).status
            assert status == (415 if number == 2 else 204)
            if status == 204:
                assert library.get(image).status == 200
            assert library.delete(image).status == 204
            with Client(mover.address()) as client:
                client.putrequest("PUT", f"/v2/images/{library.create()}/file")
                client.putheader("Content-Type", OCTETS)
                client.putheader("Content-Length", str(4 * MIB))
                client.endheaders(noise(MIB))
        library.wait_for_files()
        wait_until("all workers have left", lambda: not [row for row in mover.workers() if row["pid"]], 40)
        seen.append(mover.settled_census())
    # A lane that was closed meanwhile has its arena for a moment longer.
    mover.assert_returns_to(min(seen, key=lambda one: one.descriptors.total()))


def test_a_full_disk_is_a_413_that_leaves_nothing(start_mover: StartMover, room: Path) -> None:
    """Of a size that is told before any byte is asked for, of one that is not when the disk is full."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    small = room / "small"
    small.mkdir()
    assert os.system(f"mount -t tmpfs -o size=8m mover-test {small}") == 0
    try:
        store = {"type": "file", "id": "small", "directories": [str(small)]}
        library = Library(start_mover({}, {"store": [store]}), small)
        image, data = library.create(), noise(9 * MIB)
        assert library.put(image, data).status == 413
        with Client(library.mover.address()) as client:
            try:
                client.request("PUT", f"/v2/images/{image}/file", in_chunks(data, MIB), {"Content-Type": OCTETS})
            except (BrokenPipeError, ConnectionResetError):
                pass  # the server stopped listening, and says why
            assert client.getresponse().status == 413
        assert library.listing() == []
        library.wait_for("queued", image)
        assert library.put(image, in_chunks(data[: 7 * MIB], MIB)).status == 204
        library.assert_whole(image, data[: 7 * MIB])
        library.mover.stop_clean()
    finally:
        assert os.system(f"umount -l {small}") == 0


def test_a_store_that_takes_no_images_is_still_read(start_mover: StartMover, room: Path) -> None:
    one, other = room / "one", room / "other"
    stores = [
        {"type": "file", "id": "new", "directories": [str(one)]},
        {"type": "file", "id": "old", "directories": [str(other)], "read_only": True},
    ]
    library = Library(start_mover({}, {"store": stores}), one)
    assert library.put(library.create(), b"x", X_Image_Meta_Store="old").status in (403, 410)
    assert library.put(library.create(), b"x", X_Image_Meta_Store="none").status == 400
    image = library.create()
    assert library.put(image, b"x", X_Image_Meta_Store="new").status == 204
    library.assert_whole(image, b"x")
    assert not any(other.iterdir())


def test_a_lost_answer_is_no_second_upload(library: Library) -> None:
    """Who sends again what is active already is told so, and the image stays what it is."""
    image = library.create()
    assert library.put(image, b"first").status == 204
    with pytest.raises((ConnectionError, http.client.HTTPException, AssertionError)):
        assert library.put(image, noise(20 * MIB)).status != 409
    library.assert_whole(image, b"first")

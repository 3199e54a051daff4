"""`mover backup`: what it prints, its JSON, and the statuses that scripts trust."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mover.backup.repository import Repository
from tests.backup.conftest import Chain
from tests.backup.served import Served, backup, said
from tests.backup.test_damage import flip
from tests.harness.changing import KIB, MIB, ChangingDisk
from tests.harness.fixtures import memory_room
from tests.harness.servers import qemu_nbd

NAME = "vm1/vda"
NOBODY = "http://127.0.0.1:1/images/nobody"


@pytest.fixture
def repo(five: Chain) -> Path:
    """A repository with five points of vm/vda."""
    return five.disk.directory.parents[1]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Served, ChangingDisk]]:
    """A disk of 4 MiB with a bitmap, served with it and without."""
    with memory_room() as room, closing(Served(room, [None, "b0"])) as served:
        disk = ChangingDisk(served.disk, 4 * MIB)
        disk.write(MIB, MIB, 7)
        disk.begin_bitmap("b0")
        served.mover.start()
        yield served, disk


def test_a_list_is_a_table_for_people(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each point, in full where it is no terminal that cuts it."""
    assert backup("list", "--repo", repo) == 0
    header, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header == ["disk", "point", "kind", "time", "size", "data", "parent", "checkpoint"]
    assert [row[:3] for row in rows] == [
        ["vm/vda", "1", "full"], *(["vm/vda", str(point), "incremental"] for point in (2, 3, 4, 5)),
    ]  # fmt: skip


def test_a_list_is_an_object_a_line_for_machines(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the manifests say, but the extents."""
    assert backup("list", "--repo", repo, "--name", "vm/vda", "--json") == 0
    points = said(capsys)
    assert [(each["disk"], each["point"], each["parent"]) for each in points] == [
        ("vm/vda", 1, None), ("vm/vda", 2, 1), ("vm/vda", 3, 2), ("vm/vda", 4, 3), ("vm/vda", 5, 4),
    ]  # fmt: skip
    assert set(points[0]) == {
        "disk", "point", "kind", "time", "tool", "image", "size_bytes", "parent", "bitmap", "checkpoint", "file",
        "file_bytes", "digests", "blkhash", "data_blkhash", "data_bytes", "zero_bytes",
    }  # fmt: skip


def test_a_list_with_damage_lists_the_rest_and_ends_with_4(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody takes a shorter list for a whole one."""
    flip(repo / "vm/vda/000005.json", 30)
    assert backup("list", "--repo", repo, "--json") == 4
    out, err = capsys.readouterr()
    *points, error = (json.loads(line) for line in out.splitlines())
    assert [each["point"] for each in points] == [1, 2, 3, 4]
    assert (error["event"], error["error"], error["status_code"]) == ("error", "DamagedError", 4)
    assert err.startswith("mover: backup list: repository ")
    assert "000005.json" in err


def test_verify_names_file_and_range_and_ends_with_4(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people and for machines; and with 0 when all is well."""
    assert backup("verify", "--repo", repo) == 0
    file = repo / "vm/vda/000001.qcow2"
    flip(file, file.stat().st_size - 64 * KIB)
    capsys.readouterr()
    assert backup("verify", "--repo", repo) == 4
    out, err = capsys.readouterr()
    place = file.stat().st_size - 64 * KIB
    assert f"vm/vda: damaged: 000001.qcow2 bytes {place} to " in out
    assert err.startswith("mover: backup verify: vm/vda: damaged: 000001.qcow2")
    assert len(err.splitlines()) == 1
    assert backup("verify", "--repo", repo, "--name", "vm/vda", "--json") == 4
    damage, done = (each for each in said(capsys) if each["event"] != "progress")
    assert (damage["file"], damage["offset"], damage["event"]) == ("000001.qcow2", place, "damage")
    assert (done["event"], done["damages"]) == ("done", 1)


def test_prune_says_what_has_gone(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And that there was nothing to do."""
    assert backup("prune", "--repo", repo, "--keep", 2) == 0
    assert capsys.readouterr().out == "vm/vda: removed: 1, 2, 3; point 4 is a full one now\n"
    assert backup("prune", "--repo", repo, "--older-than", "1d", "--json") == 0
    [done] = [each for each in said(capsys) if each["event"] == "done"]
    assert (done["disk"], done["gone"], done["merged"]) == ("vm/vda", [], None)


def test_restore_goes_by_the_name_unless_it_is_told(five: Chain, repo: Path, room: Path) -> None:
    """raw, or qcow2 where the name or --format says so."""
    common = ["--repo", repo, "--name", "vm/vda", "--point", 3]
    assert backup("restore", *common, room / "a.img") == 0
    assert (room / "a.img").read_bytes() == five.held[3]
    for path, more in ((room / "b.qcow2", []), (room / "c", ["--format", "qcow2"])):
        assert backup("restore", *common, *more, path) == 0
        assert path.read_bytes()[:4] == b"QFI\xfb"


def test_restore_replaces_nothing(repo: Path, room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is there may be the disk that is in use."""
    (room / "disk.raw").write_bytes(b"precious")
    assert backup("restore", "--repo", repo, "--name", "vm/vda", room / "disk.raw") == 1
    assert "it is there already" in capsys.readouterr().err
    assert (room / "disk.raw").read_bytes() == b"precious"


def test_verify_of_nothing_says_so(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Silence would be taken for soundness."""
    (room / "repository.json").write_text('{"format":1}')
    assert backup("verify", "--repo", room) == 0
    assert capsys.readouterr().err == f"mover: backup verify: there is no disk in {room}: check --repo\n"


def test_a_device_is_not_to_be_removed(
    repo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who names one gets another advice than who names a file that is there."""
    monkeypatch.setattr(Path, "is_block_device", lambda path: True)
    assert backup("restore", "--repo", repo, "--name", "vm/vda", repo / "sdx") == 1
    assert "it is a device: serve it (`mover serve --image`), and restore to its URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        (2, ["full", NOBODY, "--repo", "{repo}", "--name", "../etc"]),
        (2, ["full", "ftp://host/image", "--repo", "{repo}", "--name", "a/b"]),
        (2, ["full", NOBODY, "--repo", "{repo}"]),
        (2, ["list"]),
        (2, ["prune", "--repo", "{repo}"]),
        (2, ["prune", "--repo", "{repo}", "--keep", "0"]),
        (2, ["prune", "--repo", "{repo}", "--keep", "1", "--older-than", "1d"]),
        (2, ["prune", "--repo", "{repo}", "--older-than", "1y"]),
        (2, ["verify", "--repo", "{repo}", "--point", "1"]),
        (2, ["restore", "--repo", "{repo}", "--name", "vm/vda", "--format", "raw", NOBODY]),
        (1, ["list", "--repo", "{repo}/vm"]),
        (1, ["restore", "--repo", "{repo}", "--name", "vm/vdb", "{repo}/x"]),
        (1, ["restore", "--repo", "{repo}", "--name", "vm/vda", "--point", "9", "{repo}/x"]),
        (1, ["restore", "--repo", "{repo}", "--name", "vm/vda", "{repo}/no/such/directory"]),
        (3, ["full", NOBODY, "--repo", "{repo}", "--name", "vm/vda", "--retry-for", "0"]),
        (3, ["restore", "--repo", "{repo}", "--name", "vm/vda", NOBODY, "--retry-for", "0"]),
    ],
)
def test_what_cannot_be_done_is_one_line_and_its_status(
    repo: Path, capsys: pytest.CaptureFixture[str], status: int, arguments: list[str]
) -> None:
    """Wrong usage is 2, what is not there 1, a server that cannot be reached 3; the repository is as it was."""
    before = {path: path.stat().st_size for path in repo.rglob("0*")}
    assert backup(*(each.replace("{repo}", str(repo)) for each in arguments)) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mover: ")
    assert len(err.splitlines()) == 1
    assert {path: path.stat().st_size for path in repo.rglob("0*")} == before


def test_a_server_that_is_not_there_makes_no_repository(room: Path) -> None:
    """Whoever mistypes a URL has nothing to clean up."""
    assert backup("full", NOBODY, "--repo", room / "new", "--name", NAME, "--retry-for", "0") == 3
    assert not (room / "new").exists()


def test_failures_are_events_too(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json a machine reads why."""
    assert backup("restore", "--repo", repo, "--name", "vm/vda", "--point", 9, repo / "x", "--json") == 1
    [event] = said(capsys)
    assert (event["event"], event["error"], event["status_code"]) == ("error", "NoSuchPoint", 1)
    assert "point 9 of vm/vda" in event["what"]


@pytest.mark.nbd
def test_a_point_goes_back_up_to_a_server(
    served: tuple[Served, ChangingDisk], room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the URL of an image: a disk is backed up from one, and restored into another."""
    house, disk = served
    target = room / "target.raw"
    target.write_bytes(os.urandom(4 * MIB + 512))
    export = qemu_nbd(house.room, "b0", target)
    with house.serving() as url:
        assert backup("full", url, "--repo", room / "repo", "--name", NAME, "--bitmap", "b0", "--json") == 0
        export.start()
        try:
            assert backup("restore", "--repo", room / "repo", "--name", NAME, house.url("b0")) == 0
        finally:
            export.close()
    assert target.read_bytes() == bytes(disk.model) + bytes(512)
    done = json.loads(capsys.readouterr().out.splitlines()[-2])
    assert (done["event"], done["job"], done["checkpoint"]) == ("done", "backup full", "b0")


@pytest.mark.nbd
def test_verify_compares_a_new_point_with_the_image(
    served: tuple[Served, ChangingDisk], room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a bitmap did not record is found by the server's checksum: status 4, and the point is none."""
    house, _ = served
    common = ["--repo", room / "repo", "--name", NAME, "--verify"]
    with house.serving() as url:
        assert backup("full", url, *common) == 0
    with house.serving("b0") as url:
        assert backup("incremental", url, *common) == 0
    # Another image than the point before was made of: nothing of the difference is in the bitmap.
    manifest = Repository(room / "repo").disk(NAME).points()[0]
    assert manifest.data_bytes == MIB
    other = ChangingDisk(house.room / "other.qcow2", 4 * MIB)
    other.write(3 * MIB, 64 * KIB, 9)
    other.begin_bitmap("b0")
    export = qemu_nbd(house.room, "b0", other.path, image_format="qcow2", bitmap="b0", read_only=True)
    export.start()
    try:
        capsys.readouterr()
        assert backup("incremental", house.url("b0"), *common) == 4
    finally:
        export.close()
    assert "point 3 of vm1/vda: its checksum is" in capsys.readouterr().err
    assert [each.point for each in Repository(room / "repo").disk(NAME).points()] == [1, 2]

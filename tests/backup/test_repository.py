"""A repository's directory: who may work on it, what is durable before what, what is swept, what is no repository."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mover.backup import locks
from mover.backup.errors import BackupError, BusyError, DamagedError, NoSuchPoint, RepositoryError
from mover.backup.manifest import FormatError, decode, encode
from mover.backup.pruning import Keep, prune
from mover.backup.repository import Repository
from mover.backup.restoring import restore_to_file
from mover.backup.taking import Wish, back_up
from mover.backup.verifying import verify
from mover.cli.main import main
from tests.backup.conftest import Chain
from tests.harness.mover import ROOT
from tests.harness.waiting import PATIENCE_S

HOLDER = """\
import sys
from pathlib import Path
from mover.backup.repository import Repository
disk = Repository(Path(sys.argv[1])).disk("vm/vda")
with disk.reading() if sys.argv[2] == "reading" else getattr(disk, sys.argv[2])(sys.argv[3]):
    print("holds", flush=True)
    sys.stdin.read()
"""


class Holder:
    """Another process that holds a lock of the disk."""

    def __init__(self, repository: Path, lock: str, work: str = "") -> None:
        command = [sys.executable, "-c", HOLDER, str(repository), lock, work]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"holds\n"

    def __enter__(self) -> int:
        return self.process.pid

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=PATIENCE_S)


def full(chain: Chain) -> None:
    back_up(chain.disk, chain.image.as_client(), Wish(incremental=False))


def newest(chain: Chain) -> None:
    target = chain.disk.directory.parents[1] / "target.raw"
    restore_to_file(chain.disk, None, target, "raw")
    target.unlink()


def one(chain: Chain) -> None:
    prune(chain.disk, Keep(1), 0.0)


@pytest.mark.parametrize(
    ("lock", "work", "other"),
    [
        ("writing", "incremental", full),
        ("writing", "full", one),
        ("alone", "prune", full),
        ("alone", "prune", newest),
        ("alone", "prune", one),
        ("reading", "restore or verify", one),
    ],
)
def test_runs_that_exclude_each_other_name_the_process_and_its_work(
    five: Chain, lock: str, work: str, other: Callable[[Chain], None]
) -> None:
    """The second one fails at once, and does when the first has gone."""
    with Holder(five.disk.directory.parents[1], lock, work) as pid:
        with pytest.raises(BusyError, match=rf"process {pid} is at work on it \({work}\)") as caught:
            other(five)
        assert caught.value.pid == pid
    other(five)


@pytest.mark.parametrize(("lock", "other"), [("reading", full), ("reading", newest), ("writing", newest)])
def test_backups_and_restores_go_side_by_side(five: Chain, lock: str, other: Callable[[Chain], None]) -> None:
    """Whoever must restore need not wait until a backup has ended."""
    with Holder(five.disk.directory.parents[1], lock, "full"):
        other(five)


def test_disks_do_not_exclude_each_other(five: Chain) -> None:
    """A repository has many disks, and they are backed up at once."""
    repository = five.disk.directory.parents[1]
    with Holder(repository, "alone", "prune"):
        second = Repository(repository).make_disk("vm/vdb")
        back_up(second, five.image.as_client(), Wish(incremental=False))
    assert Repository(repository).names() == ["vm/vda", "vm/vdb"]


def test_what_is_named_is_durable(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is synced after it was written last and before it is renamed; every rename, by its directory, before
    the manifest that needs it, and every removal of a manifest before the files it named go."""
    events: list[tuple[str, str]] = []
    watch(monkeypatch, events)
    chain.take(incremental=False)
    chain.image.write(0, b"changed")
    chain.take()
    prune(chain.disk, Keep(1), 0.0)
    dirty: set[str] = set()
    unsynced_names: set[str] = set()
    for event, name in events:
        if event in ("pwrite", "ftruncate"):
            dirty.add(name)
        elif event == "fsync":
            dirty.discard(name)
            if name == chain.disk.directory.name:
                unsynced_names.clear()
        elif event == "rename":
            assert name not in dirty, events
            if name.endswith(".json.new"):
                assert not unsynced_names, events
            unsynced_names.add(name)
        elif event == "unlink" and not name.startswith(".") and not name.endswith(".json"):
            assert not unsynced_names, events
        elif event == "unlink" and name.endswith(".json"):
            unsynced_names.add(name)
    assert [name for event, name in events if event == "rename" and name.endswith(".json.new")] == [
        ".000001.json.new", ".000002.json.new", ".000002.json.new",
    ]  # fmt: skip


def watch(monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, str]]) -> None:
    """Note what changes files, with the names of the files."""

    def name_of(target: Any) -> str:
        return Path(os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target).name

    def noting(call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(target: Any, *rest: Any, **named: Any) -> Any:
            events.append((call, name_of(target)))
            return real(target, *rest, **named)

        return noted

    for call in ("pwrite", "ftruncate", "fsync", "rename", "unlink"):
        monkeypatch.setattr(os, call, noting(call, getattr(os, call)))


def test_what_is_left_of_a_crash_goes_and_nothing_else(five: Chain) -> None:
    """Files of points that are not listed are the repository's; others are not touched."""
    for name in (
        "000009.qcow2",
        "000009.digests",
        ".000009.json.new",
        ".000010.merged.qcow2.new",
        "notes.txt",
        "9.qcow2",
    ):
        five.disk.file(name).write_text("left")
    five.take()
    there = {path.name for path in five.disk.directory.iterdir()}
    assert {"notes.txt", "9.qcow2"} < there
    assert not {"000009.qcow2", "000009.digests", ".000009.json.new", ".000010.merged.qcow2.new"} & there


def test_nothing_is_removed_while_a_manifest_cannot_be_read(five: Chain) -> None:
    """The files it names may be all that is left of a point: a full backup goes on, and leaves them alone."""
    manifest = five.disk.file("000002.json")
    manifest.write_bytes(manifest.read_bytes().replace(b'"point":2', b'"point":3'))
    for attempt in (lambda: five.take(), lambda: one(five)):
        with pytest.raises(DamagedError, match=r"000002\.json: its seal does not fit"):
            attempt()
    assert five.take(incremental=False) == 6
    assert five.disk.file("000002.qcow2").exists()
    assert [each.point for each in five.disk.survey().points] == [1, 3, 4, 5, 6]


def test_a_manifest_that_is_missing_is_named(five: Chain) -> None:
    """No crash leaves that: somebody has removed it, and its files stay until it is known why."""
    five.disk.file("000003.json").unlink()
    five.take(incremental=False)
    assert five.disk.file("000003.qcow2").exists()
    with pytest.raises(DamagedError, match=r"000003\.json: it is missing, and point 4 needs it"):
        five.take()


def test_a_point_before_the_damage_still_restores(five: Chain, room: Path) -> None:
    """What is lost is what hangs on it, and no more."""
    five.disk.file("000003.json").unlink()
    five.assert_point_restores(2, room)
    with pytest.raises(DamagedError):
        five.assert_point_restores(3, room)
    with pytest.raises(DamagedError):
        five.assert_point_restores(4, room)


@pytest.mark.parametrize(
    "name", ["vda", "a/b/c", "../x", "a/..", "/a/b", "a/", "a/.b", "-a/b", "a b/c", "a/b\n", "ä/b", "a/" + 101 * "b"]
)
def test_a_name_that_would_leave_the_repository_is_refused(room: Path, name: str) -> None:
    """Exactly VM/DISK, of harmless characters."""
    with pytest.raises(ValueError, match="is not VM/DISK"):
        Repository(room / "repo").make_disk(name)
    assert not (room / "repo").exists()


def test_a_directory_with_other_things_becomes_no_repository(room: Path) -> None:
    """A mistyped --repo fills nobody's home directory."""
    (room / "other").touch()
    with pytest.raises(RepositoryError, match="it is none, and holds 'other'"):
        Repository(room).make_disk("vm/vda")
    assert [path.name for path in room.iterdir()] == ["other"]


def test_a_fresh_file_system_becomes_a_repository(room: Path) -> None:
    """It has a lost+found and is empty otherwise."""
    (room / "lost+found").mkdir()
    Repository(room).make_disk("vm/vda")
    assert Repository(room).names() == ["vm/vda"]


def test_a_later_format_is_left_alone(five: Chain) -> None:
    """Of the repository, and of a manifest."""
    repository = five.disk.directory.parents[1]
    manifest = json.loads(five.disk.file("000005.json").read_text())
    five.disk.file("000005.json").write_text(json.dumps(manifest | {"format": 2, "new": "field"}))
    with pytest.raises(RepositoryError, match="its format is 2, and this version knows 1: use a later version"):
        five.take(incremental=False)
    (repository / "repository.json").write_text('{"format": 2}')
    with pytest.raises(RepositoryError, match="its format is 2"):
        Repository(repository).disk("vm/vda")


def test_a_disk_that_is_not_there_is_named_with_those_that_are(five: Chain) -> None:
    """Restoring makes no directories."""
    with pytest.raises(NoSuchPoint, match=r"disk vm/vdx in .*the disks there are: vm/vda"):
        Repository(five.disk.directory.parents[1]).disk("vm/vdx")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"file": "../../../etc/shadow"}, "its files are not called"),
        ({"digests": "000002.digests"}, "its files are not called"),
        ({"data": [(0, 65536), (65535, 65536)]}, "an extent of 65536 bytes at 65535"),
        ({"data": [(0, 65536)], "zero": [(0, 65536)]}, "an extent of 65536 bytes at 0"),
        ({"data": [(1 << 40, 65536)]}, "after the disk"),
        ({"data": [(0, -65536)]}, "an extent of -65536 bytes"),
        ({"parent": 1}, "it is full, and its parent 1"),
        ({"kind": "incremental"}, "it is incremental, and its parent None"),
    ],
)
def test_a_manifest_that_leads_elsewhere_is_none(chain: Chain, change: dict[str, Any], why: str) -> None:
    """Also one whose seal fits: whoever wrote it, no file outside is read or removed because of it."""
    chain.take(incremental=False)
    [manifest] = chain.disk.points()
    with pytest.raises(FormatError, match=why):
        decode(encode(msgspec.structs.replace(manifest, **change)))


def test_two_restores_to_one_file_do_not_mix(five: Chain, room: Path) -> None:
    """The second one fails, and leaves the first one's file alone."""
    target = room / "target.raw"
    with (room / ".target.raw.restoring").open("w") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        part.write("the first one's")
        part.flush()
        with pytest.raises(BackupError, match="another run is writing it"):
            restore_to_file(five.disk, None, target, "raw")
        assert (room / ".target.raw.restoring").read_text() == "the first one's"
    restore_to_file(five.disk, None, target, "raw")
    assert target.read_bytes() == five.held[5]


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"format":1}', b"\xff\xfe", b'{"format":"1"}'])
def test_junk_is_no_manifest(junk: bytes) -> None:
    """And says so, whatever it is."""
    with pytest.raises(FormatError) as caught:
        decode(junk)
    assert caught.value.damaged


def test_what_a_killed_run_has_left_is_named_and_removed(five: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    """By `list`, unless a run is at work, whose files they may be; and by `prune`, which also says so to machines."""
    repo = str(five.disk.directory.parents[1])
    for name in (".000006.qcow2.new", "000006.digests"):
        five.disk.file(name).write_text("left")
    with five.disk.reading():
        assert five.disk.left() == [".000006.qcow2.new", "000006.digests"]
    with locks.writing(five.disk.directory, five.disk.name, "full"):
        assert five.disk.left() == []
    assert main(["backup", "list", "--repo", repo]) == 0
    assert re.search(r"mover: vm/vda: 2 files \(.*B\) are left of a run that was killed: ", capsys.readouterr().err)
    assert main(["backup", "prune", "--repo", repo, "--keep", "9"]) == 0
    assert capsys.readouterr().out == "vm/vda: removed: 2 files that a killed run had left\n"
    assert main(["backup", "prune", "--repo", repo, "--keep", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["swept"] == []
    assert five.disk.left() == []
    assert main(["backup", "list", "--repo", repo]) == 0
    assert capsys.readouterr().err == ""


def test_a_copy_without_the_locks_is_still_all_of_it(
    five: Chain, room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tool that leaves *.lock out must not make a disk that `list` does not know, and `verify` calls sound."""
    repo = str(five.disk.directory.parents[1])
    for name in ("reading.lock", "writing.lock"):
        five.disk.file(name).unlink()
    five.disk.file("000005.digests").write_bytes(b"")
    assert main(["backup", "verify", "--repo", repo]) == 4
    assert "vm/vda: damaged: 000005.digests: it has 0 bytes" in capsys.readouterr().out
    five.assert_point_restores(4, room)


@pytest.mark.parametrize("name", ["000003.json", "000003.qcow2", "000003.digests"])
def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(name: str, five: Chain, room: Path) -> None:
    """Nobody would ever write into it: it is told as what it is, and the points before it restore."""
    five.disk.file(name).unlink()
    os.mkfifo(five.disk.file(name))
    with pytest.raises(BackupError, match=f"{name}.*: it is no file"):
        five.assert_point_restores(3, room)
    if not name.endswith(".json"):
        assert [damage.file for damage in verify(five.disk, 3)] == [name]
        five.assert_point_restores(2, room)

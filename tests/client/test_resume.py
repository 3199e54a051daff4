"""Jobs that are killed go on from their journal; with another image they do not."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from mover.client import ChangedError, download, upload
from mover.client.journal import Journal
from tests.client.conftest import (
    DISK_BYTES,
    Served,
    assert_nothing_beside,
    assert_same_disk,
    client,
    make_disk,
    qemu_img,
    url,
)
from tests.client.program import Program, events, run
from tests.harness.fixtures import Images, StartMover
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, pattern

pytestmark = pytest.mark.nbd

# A tenth of a job's 18 MiB of data every tenth of a second or so.
SLOWLY = ("--bandwidth=6MiB", "--buffer-size=64KiB")


def journal_of(target: Path) -> Path:
    """Beside a download's target."""
    return target.with_name(f".{target.name}.mover-journal")


def upload_journal_of(source: Path) -> Path:
    """Beside an upload's source."""
    return source.with_name(f".{source.name}.mover-upload-journal")


@pytest.mark.slow
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_a_download_killed_again_and_again_completes(image_format: str, served: Served, room: Path) -> None:
    """With -9 at random points: what the journal says is done is not moved again, and every byte is right."""
    luck = random.Random(image_format)
    target = room / f"copy.{image_format}"
    arguments = ("download", url(served.mover), target, "--resume", "--json")
    for share in sorted(luck.uniform(0.05, 0.7) for _ in range(3)):
        program = Program(*arguments, *SLOWLY)
        program.kill_when(journal_of(target), int(share * 18 * MIB))
        assert program.end()[0] == -signal.SIGKILL
        assert not target.exists()
    status, output, errors = run(*arguments, "--verify")
    assert (status, errors) == (0, "")
    assert events(output)[-1]["resumed"] >= int(share * 18 * MIB)
    assert_same_disk(target, served.source, image_format)
    assert_nothing_beside(target)


@pytest.mark.slow
def test_an_upload_killed_again_and_again_completes(images: Images, start_mover: StartMover, room: Path) -> None:
    """The same; what was flushed is not sent again."""
    source = make_disk(room / "source")
    target = images.pattern("target", 9, DISK_BYTES)
    mover = start_mover({"disk": images.qemu_nbd(target)})
    arguments = ("upload", source, url(mover), "--resume", "--json")
    for share in (0.1, 0.5):
        # Half of the image is zeroed, and what is zeroed is in the journal, too.
        program = Program(*arguments, *SLOWLY)
        program.kill_when(upload_journal_of(source), int(share * 18 * MIB))
        assert program.end()[0] == -signal.SIGKILL
    status, output, errors = run(*arguments, "--verify")
    assert (status, errors) == (0, "")
    assert events(output)[-1]["resumed"] > 0
    assert_same_disk(target, source)
    assert_nothing_beside(source)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_can_be_resumed(number: signal.Signals, served: Served, room: Path) -> None:
    """Status 130, one line that says how to go on, and all that was done is in the journal."""
    target = room / "copy.qcow2"
    program = Program("download", url(served.mover), target, *SLOWLY)
    program.kill_when(journal_of(target), 2 * MIB, number)
    status, output, errors = program.end()
    assert (status, output) == (130, "")
    assert errors == "mover: download: interrupted: the same command with --resume goes on from here\n"
    with client(served.mover) as disk:
        report = download(disk, target, image_format="qcow2", resume=True)
    assert report.resumed >= 2 * MIB
    assert_same_disk(target, served.source, "qcow2")


def interrupted_download(mover: Mover, target: Path) -> None:
    """A download that was killed in the middle."""
    program = Program("download", url(mover), target, *SLOWLY)
    program.kill_when(journal_of(target), 4 * MIB)
    program.end()


@pytest.mark.parametrize("change", ["bytes", "extents", "size"])
def test_another_image_is_not_mixed_in(change: str, images: Images, start_mover: StartMover, room: Path) -> None:
    """Status 1, the reason, and a way out; the part stays as it was."""
    source = make_disk(room / "source")
    server = images.qemu_nbd(source, read_only=True)
    mover = start_mover({"disk": server})
    target = room / "copy"
    interrupted_download(mover, target)
    server.kill()
    if change == "bytes":
        make_disk(source, stamp=1)  # where data is stays the same
        with source.open("r+b") as file:
            for at in range(0, DISK_BYTES, 4096):
                file.seek(at)
                if any(file.read(8)):
                    file.seek(at)
                    file.write(b"changed!")
    else:
        make_disk(source, DISK_BYTES + (MIB if change == "size" else 0), stamp=2)
    server.start()
    before = (room / ".copy.mover-part").read_bytes()
    status, _, errors = run("download", url(mover), target, "--resume")
    assert status == 1
    assert "start anew without --resume" in errors
    assert (room / ".copy.mover-part").read_bytes() == before
    with client(mover) as disk:
        download(disk, target)
    assert_same_disk(target, source)


def test_resuming_what_was_not_begun_begins(served: Served, room: Path) -> None:
    """`--resume` can always be given."""
    with client(served.mover) as disk:
        report = download(disk, room / "copy", resume=True)
    assert report.resumed == 0
    assert_same_disk(room / "copy", served.source)


def test_not_resuming_begins_anew(served: Served, room: Path) -> None:
    """What an earlier job left is overwritten."""
    interrupted_download(served.mover, room / "copy")
    with client(served.mover) as disk:
        report = download(disk, room / "copy")
    assert report.resumed == 0
    assert_same_disk(room / "copy", served.source)
    assert_nothing_beside(room / "copy")


@pytest.mark.parametrize("what", [b"", b"{", b'{"job": "download"}', b'{"version": 99}'])
def test_a_journal_that_cannot_be_read_is_told(what: bytes, served: Served, room: Path) -> None:
    """It is not taken for an empty one."""
    interrupted_download(served.mover, room / "copy")
    journal_of(room / "copy").write_bytes(what)
    with client(served.mover) as disk, pytest.raises(ChangedError, match="start anew"):
        download(disk, room / "copy", resume=True)


def test_a_part_that_rotted_fails_the_verification(served: Served, room: Path) -> None:
    """What an earlier run moved is hashed from the file, so what is wrong there is found."""
    target = room / "copy"
    interrupted_download(served.mover, target)
    begun = Journal(journal_of(target)).load()
    assert begun is not None
    offset, length = max(begun.done, key=lambda one: one[1])
    with (room / ".copy.mover-part").open("r+b") as file:
        file.seek(offset + length - 70_000)  # where no sample is taken
        file.write(b"rotten")
    status, _, errors = run("download", url(served.mover), target, "--resume", "--verify")
    assert status in (1, 4)  # 1 if it met a sample after all
    assert not target.exists()
    assert "kept in" in errors or "start anew" in errors


@pytest.mark.parametrize("change", ["image", "source"])
def test_an_upload_goes_on_only_with_what_it_began(
    change: str, images: Images, start_mover: StartMover, room: Path
) -> None:
    """An image that was made anew meanwhile does not have what was sent; a source that was touched may be another."""
    source = make_disk(room / "source")
    target = images.hole("target", DISK_BYTES)
    server = images.qemu_nbd(target)
    mover = start_mover({"disk": server})
    program = Program("upload", source, url(mover), *SLOWLY)
    program.kill_when(upload_journal_of(source), 4 * MIB)
    program.end()
    if change == "image":
        server.kill()
        target.write_bytes(pattern(8, 0, DISK_BYTES))
        server.start()
    else:
        with source.open("r+b") as file:
            file.write(b"changed!")
    with client(mover) as disk, pytest.raises(ChangedError):
        upload(disk, source, resume=True)
    with client(mover) as disk:
        upload(disk, source)
    assert_same_disk(target, source)


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_a_full_disk_is_told_and_can_be_resumed(image_format: str, served: Served, room: Path) -> None:
    """The error names the file and the reason; with more room the job goes on."""
    target = room / f"copy.{image_format}"
    # A limit on the size of files stands for the end of the disk: both are errors of write. qemu-nbd inherits it.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, resource.RLIM_INFINITY))"
    if image_format == "raw":
        # The file's own size is set first.
        limit = f"import os; os.ftruncate = lambda *_: None; {limit}"
    status, _, errors = run("download", url(served.mover), target, "--buffer-size=64KiB", more=limit)
    assert status == 1, errors
    assert "copy" in errors
    assert "File too large" in errors or "writing" in errors
    *progress, told = errors.splitlines()  # on a busy host it takes long enough to show progress
    assert told.endswith("free what it needs, or use another place"), errors
    assert [line for line in progress if not line.startswith("mover: download: ")] == [], errors
    assert not target.exists()
    with client(served.mover) as disk:
        download(disk, target, image_format=image_format, resume=True)
    assert_same_disk(target, served.source, image_format)
    qemu_img("info", "-f", image_format, target)

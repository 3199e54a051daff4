"""A raw file as a worker's connection: against a model of its bytes, and what file systems do to files."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.export import Export
from tests.harness.waiting import PATIENCE_S
from tests.image.process import ANYWHERE
from workers.image.connection import Connection, State
from workers.image.file_export import LOOK_S, MOST_RUNS, FileExport
from workers.image.loop import Loop
from workers.image.plan import Command, Limits, Operation
from workers.lane.extents_format import HOLE, ZERO

SIZE = 64 * 1024
KIB = 1024


class Owner:
    """A worker that writes down what it is told, and the loop that carries it."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.limits: list[Limits] = []
        self.answers: dict[Command, int] = {}
        self.ends: list[tuple[str, list[Command], bool]] = []

    def connected(self, connection: Connection, limits: Limits) -> None:
        self.limits.append(limits)

    def ended(self, command: Command, error: int) -> None:
        self.answers[command] = error

    def disconnected(self, connection: Connection, why: str, commands: list[Command], fenced: bool) -> None:
        self.ends.append((why, commands, fenced))

    def introduce(self, connection: Connection, fd: int) -> None:
        raise AssertionError("a file has no socket")

    def until(self, condition: Callable[[], object]) -> None:
        late: list[bool] = []
        timer = self.loop.later(PATIENCE_S, lambda: late.append(True))
        while not condition():
            assert not late, self.ends
            self.loop.run_once()
        timer.cancel()

    def open(self, path: Path) -> FileExport:
        export = FileExport(1, Export("file", path=str(path)), ANYWHERE, self.loop, self)
        export.open()
        return export

    def do(self, export: FileExport, *commands: Command) -> list[int]:
        """Send them all at once; their errnos when all have ended."""
        for command in commands:
            export.send(command)
        self.until(lambda: all(command in self.answers for command in commands))
        return [self.answers[command] for command in commands]

    def close(self, export: FileExport) -> None:
        export.leave()
        self.until(lambda: export.state is State.CLOSED)
        self.loop._epoll.close()


@pytest.fixture(params=["memory", "disk"])
def place(request: pytest.FixtureRequest, room: Path, tmp_path: Path) -> Path:
    """tmpfs knows neither reads without waiting nor ZERO_RANGE, a disk's file system both."""
    return room if request.param == "memory" else tmp_path


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def file(place: Path) -> Path:
    path = place / "disk.raw"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def export(owner: Owner, file: Path) -> Iterator[FileExport]:
    made = owner.open(file)
    assert made.state is State.READY, owner.ends
    yield made
    owner.close(made)


def read(offset: int, length: int) -> Command:
    return Command(Operation.READ, offset, length, memoryview(bytearray(length)))


def write(offset: int, data: bytes) -> Command:
    return Command(Operation.WRITE, offset, len(data), memoryview(bytearray(data)))


def zero(offset: int, length: int, may_hole: bool = True) -> Command:
    return Command(Operation.ZERO, offset, length, may_hole=may_hole)


def status(offset: int, length: int) -> Command:
    return Command(Operation.STATUS, offset, length)


def flush() -> Command:
    return Command(Operation.FLUSH)


# -- bytes -----------------------------------------------------------------------------------------------------


SPANS = st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)).map(
    lambda span: (span[0], min(span[1], SIZE - span[0]))
)
STEPS = st.tuples(st.sampled_from(["read", "write", "punch", "zero"]), SPANS, st.integers(1, 255))


@pytest.mark.parametrize("directory", ["/dev/shm", None])
@settings(max_examples=40)
@given(steps=st.lists(STEPS, max_size=30))
def test_the_file_has_the_bytes_of_a_model_and_so_has_every_answer(
    directory: str | None, steps: list[tuple[str, tuple[int, int], int]]
) -> None:
    owner, model = Owner(), bytearray(SIZE)
    with tempfile.NamedTemporaryFile(dir=directory) as made:
        os.truncate(made.name, SIZE)
        export = owner.open(Path(made.name))
        for what, (offset, length), value in steps:
            if what == "read":
                command = read(offset, length)
                assert owner.do(export, command) == [0]
                assert bytes(command.buffer or b"") == model[offset : offset + length]
            elif what == "write":
                model[offset : offset + length] = bytes([value]) * length
                assert owner.do(export, write(offset, bytes([value]) * length)) == [0]
            else:
                model[offset : offset + length] = bytes(length)
                assert owner.do(export, zero(offset, length, what == "punch")) == [0]
        _expect_extents(owner, export, model)
        assert owner.do(export, flush()) == [0]
        assert Path(made.name).read_bytes() == model
        owner.close(export)


def _expect_extents(owner: Owner, export: FileExport, model: bytearray) -> None:
    command = status(0, SIZE)
    assert owner.do(export, command) == [0]
    runs, at = command.found["base:allocation"], 0
    for length, flags in runs:
        assert flags in (0, HOLE | ZERO)
        assert not flags or not any(model[at : at + length]), "zeros where there are none"
        at += length
    assert at == SIZE


def test_many_commands_in_flight_at_once_all_end_with_their_own_bytes(
    owner: Owner, export: FileExport, file: Path
) -> None:
    content = file.read_bytes()
    commands = [read(offset, 1000) for offset in range(0, SIZE - 1000, 500)]
    assert set(owner.do(export, *commands)) == {0}
    assert all(bytes(command.buffer or b"") == content[command.offset :][:1000] for command in commands)
    assert export.in_flight == 0


def test_what_the_worker_hears_of_a_file(owner: Owner, export: FileExport, file: Path) -> None:
    facts = owner.limits[0].facts
    assert (facts.size_bytes, facts.block_bytes, facts.bitmaps) == (SIZE, 1, [])
    assert (facts.read_only, facts.can_flush, facts.can_zero, facts.has_extents) == (False, True, True, True)
    found = file.stat()
    assert export.server == (found.st_dev, found.st_ino)


def test_holes_are_extents_that_read_as_zeros_and_an_answer_may_begin_inside_one(
    owner: Owner, export: FileExport
) -> None:
    assert owner.do(export, zero(16 * KIB, 32 * KIB)) == [0]
    whole, inside = status(0, SIZE), status(20 * KIB, 40 * KIB)
    assert owner.do(export, whole, inside) == [0, 0]
    assert whole.found["base:allocation"] == [(16 * KIB, 0), (32 * KIB, HOLE | ZERO), (16 * KIB, 0)]
    assert inside.found["base:allocation"] == [(28 * KIB, HOLE | ZERO), (12 * KIB, 0)]


def test_zeroing_without_holes_keeps_the_file_allocated(owner: Owner, export: FileExport, file: Path) -> None:
    before = file.stat().st_blocks
    assert owner.do(export, zero(0, SIZE, may_hole=False)) == [0]
    assert file.read_bytes() == bytes(SIZE)
    assert file.stat().st_blocks >= before
    assert owner.do(export, zero(0, SIZE)) == [0]
    assert file.stat().st_blocks < before


def test_an_answer_about_very_many_fragments_ends_early_with_what_it_has(owner: Owner, room: Path) -> None:
    path = room / "comb"
    with path.open("wb") as made:
        for at in range(MOST_RUNS):
            os.pwrite(made.fileno(), b"x", at * 8192)
        made.truncate(MOST_RUNS * 8192)
    export = owner.open(path)
    command = status(0, MOST_RUNS * 8192)
    assert owner.do(export, command) == [0]
    runs = command.found["base:allocation"]
    assert MOST_RUNS <= len(runs) <= MOST_RUNS + 1
    assert 0 < sum(length for length, _ in runs) < MOST_RUNS * 8192
    owner.close(export)


# -- what is no file, or not ours ------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["missing", "directory", "fifo", "device"])
def test_what_is_no_file_is_not_opened_and_nothing_hangs(owner: Owner, room: Path, what: str) -> None:
    path = room / what
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        path = Path("/dev/full")
    export = owner.open(path)
    assert export.state is State.CLOSED
    ((why, commands, fenced),) = owner.ends
    assert why.startswith("cannot open the file: ")
    assert (commands, fenced, owner.limits) == ([], True, [])
    owner.loop._epoll.close()


def test_a_file_that_may_not_be_written_is_read_only(owner: Owner, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everything: the kernel's refusal is played."""
    really = os.open

    def refuse_writing(path: str, flags: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "read-only")
        return really(path, flags)

    monkeypatch.setattr("workers.image.file_export.os.open", refuse_writing)
    export = owner.open(file)
    assert owner.limits[0].facts.read_only
    assert owner.do(export, read(0, 4096), write(0, b"x")) == [0, errno.EBADF]
    owner.close(export)


# -- what happens to files meanwhile ---------------------------------------------------------------------------


def test_a_write_that_finds_no_room_fails_with_enospc_and_others_go_on(owner: Owner, export: FileExport) -> None:
    """The limit of a file's size, which the kernel treats like a full disk but for the errno."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, hard))
    try:
        answers = owner.do(export, write(0, b"x" * 512), write(SIZE - 512, b"x" * 512), read(SIZE - 512, 512))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answers == [0, errno.EFBIG, 0]


def test_reading_where_the_file_was_cut_is_an_error_not_zeros(owner: Owner, export: FileExport, file: Path) -> None:
    os.truncate(file, SIZE // 2)
    assert owner.do(export, read(SIZE // 2 - 512, 1024), read(0, 512)) == [errno.EIO, 0]
    assert owner.do(export, status(0, SIZE)) == [errno.EIO]


def test_a_file_of_another_size_is_opened_anew(owner: Owner, export: FileExport, file: Path) -> None:
    os.truncate(file, SIZE * 2)
    owner.until(lambda: owner.ends)
    assert owner.ends == [(f"the file has {SIZE * 2} bytes now, not {SIZE}", [], True)]
    assert LOOK_S <= 1


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_gone_fails_its_flush_and_is_let_go(
    owner: Owner, export: FileExport, file: Path, replaced: bool
) -> None:
    """What was written to it is lost, however durable."""
    assert owner.do(export, write(0, b"lost")) == [0]
    file.unlink()
    if replaced:
        file.write_bytes(bytes(SIZE))
    assert owner.do(export, flush()) == [errno.ESTALE if replaced else errno.ENOENT]
    owner.until(lambda: owner.ends)
    assert owner.ends[0][0].startswith("the file is gone")


def test_breaking_off_waits_for_what_is_in_flight(owner: Owner, export: FileExport, file: Path) -> None:
    commands = [write(at * 1024, bytes([at]) * 1024) for at in range(64)]
    for command in commands:
        export.send(command)
    export.break_off("enough")
    owner.until(lambda: owner.ends)
    assert owner.ends == [("enough", [], True)]
    assert [owner.answers[command] for command in commands] == [0] * 64
    assert file.read_bytes() == b"".join(bytes([at]) * 1024 for at in range(64))

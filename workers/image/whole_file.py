"""A whole file, read as it is and replaced as a whole, in sessions. Each belongs to one lane.

    OPEN ──► READ ... ──► ROLLBACK                  the file that was there at OPEN, to the end, whatever replaces it
    BEGIN ──► WRITE ... ──► COMMIT                  a temporary file beside it, which then takes its place
                  └───────► ROLLBACK, lane closed   ... or goes; so does what a killed worker left, with its successor

Two that write do not see each other: the last one that commits has its way. What a session does in the file system is a
thread's work; the sessions themselves are the loop's alone. A block device cannot be replaced: it is written in place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator

from config.export import Export
from workers.image.connection import Owner
from workers.image.file_export import MOST_BYTES, read_all, write_all
from workers.image.local_export import LocalExport
from workers.image.loop import Loop
from workers.image.plan import Command, Limits, Operation, SessionCommand
from workers.image.threads import Call
from workers.lane.protocol import ImageFacts
from workers.nbd_handle import is_zero

# Each is a descriptor; a front end has far fewer requests under way on one image.
SESSIONS_MOST = 512
# A new file's mode, before the process's umask.
NEW_MODE = 0o666
# What a file system without extended attributes says, or one that keeps those of the system for itself.
NOT_COPIED = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EACCES})


class Session:
    """One open file. `temporary` is its path until it is committed, None if there is nothing to replace."""

    def __init__(self, lane: object, fd: int, size: int, target: str = "", temporary: str | None = None) -> None:
        self.lane = lane
        self.fd = fd
        self.size = size
        self.target = target
        self.temporary = temporary
        self.writing = False
        self.confirmed = 0  # bytes written
        self.busy = 0  # commands that threads have
        self.over = False  # ends when no thread has any

    def end(self) -> None:
        """Close it; what was not committed goes."""
        if self.temporary is not None:
            try:
                os.unlink(self.temporary)
            except FileNotFoundError:
                pass  # somebody cleared up
            self.temporary = None
        os.close(self.fd)


class WholeFile(LocalExport):
    """The file at `export.path`, if there is one; `numbers` are for sessions: no worker before has given any."""

    def __init__(self, number: int, export: Export, loop: Loop, owner: Owner, numbers: Iterator[int]) -> None:
        super().__init__(number, export, loop, owner)
        self._numbers = numbers
        self._sessions: dict[int, Session] = {}
        self._opened: dict[Command, Session] = {}
        self._ending: set[Command] = set()

    def _open(self) -> Limits:
        target = os.path.realpath(self._path)
        sweep(target)
        size = 0
        try:
            found = os.stat(target)
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
                raise OSError(errno.EINVAL, "neither a regular file nor a block device")
            size = found.st_size
        except FileNotFoundError:
            os.stat(os.path.dirname(target))  # a file may be missing, its directory may not
        # The same for every file, for nothing here is ever confirmed before it is durable.
        self.server = (1, 1)
        return Limits(self._facts(size, os.access(os.path.dirname(target), os.W_OK | os.X_OK)), MOST_BYTES)

    def _facts(self, size: int, writable: bool) -> ImageFacts:
        return ImageFacts(
            size_bytes=size,
            read_only=not writable,
            can_flush=True,
            can_zero=False,
            has_extents=False,
            multi_conn=False,
            block_bytes=1,
            bitmaps=[],
            whole_file=True,
        )

    def _close(self) -> None:
        for session in self._sessions.values():
            session.end()
        self._sessions.clear()

    # -- commands --------------------------------------------------------------------------------------------

    def send(self, command: Command) -> None:
        """Have a thread carry it out, if its session knows it."""
        if not isinstance(command, SessionCommand) or command.operation in (Operation.OPEN, Operation.BEGIN):
            super().send(command)
            return
        session = self._sessions.get(command.session)
        error = _fault(command, session)
        if error or session is None:
            self._owner.ended(command, error or errno.ESTALE)
        else:
            session.busy += 1
            self._submit(command, lambda _: _CALLS[command.operation](session, command))

    def _call(self, command: Command) -> Call:
        match command.operation:
            case Operation.OPEN:
                return self._open_session
            case Operation.BEGIN:
                return self._begin_session
            case _:
                return self._flush

    def _open_session(self, command: Command) -> None:
        assert isinstance(command, SessionCommand)
        session = self._opened[command] = open_to_read(command.lane, self._path)
        command.covered = session.size

    def _begin_session(self, command: Command) -> None:
        assert isinstance(command, SessionCommand)
        self._opened[command] = begin(command.lane, os.path.realpath(self._path), command.length)

    def _flush(self, command: Command) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # -- sessions --------------------------------------------------------------------------------------------

    def _finished(self, command: Command, error: int) -> None:
        if command in self._ending:
            self._ending.remove(command)
            return
        if isinstance(command, SessionCommand):
            if command in self._opened:
                error = self._enter(command, self._opened.pop(command))
            elif command.session:
                self._leave(command, self._sessions[command.session], error)
        super()._finished(command, error)

    def _enter(self, command: SessionCommand, session: Session) -> int:
        """The session is open: it gets its number, unless there is no lane any more, or no room."""
        if command.lane is None or len(self._sessions) >= SESSIONS_MOST:
            self._end(session)
            return errno.EMFILE
        command.value = next(self._numbers)
        self._sessions[command.value] = session
        return 0

    def _leave(self, command: SessionCommand, session: Session, error: int) -> None:
        session.busy -= 1
        if command.operation is Operation.WRITE and not error:
            session.confirmed += command.length
        elif command.operation in (Operation.COMMIT, Operation.ROLLBACK):
            session.over = True
        self._end_if_over(command.session, session)

    def _end_if_over(self, number: int, session: Session) -> None:
        if session.over and not session.busy:
            del self._sessions[number]
            self._end(session)

    def _end(self, session: Session) -> None:
        """In a thread: a file of a terabyte takes its time to go."""
        command = Command(Operation.ROLLBACK)
        self._ending.add(command)
        self._submit(command, lambda _: session.end())

    def left_by(self, lane: object) -> None:
        """The lane is closed: its sessions end as soon as no thread uses them."""
        for command in self._in_flight:
            if isinstance(command, SessionCommand) and command.lane is lane:
                command.lane = None
        for number, session in list(self._sessions.items()):
            if session.lane is lane:
                session.over = True
                self._end_if_over(number, session)


def _fault(command: SessionCommand, session: Session | None) -> int:
    """The errno for a command that its session cannot have; 0 for one that it can."""
    if session is None or session.over or session.lane is not command.lane:
        return errno.ESTALE
    beyond = command.offset + command.length > session.size
    writes = command.operation in (Operation.WRITE, Operation.COMMIT)
    if (command.operation in (Operation.READ, Operation.WRITE) and beyond) or (writes and not session.writing):
        return errno.EINVAL
    if command.operation is Operation.COMMIT and (session.busy or session.confirmed != session.size):
        return errno.EBUSY
    return 0


# -- in the file system, in threads --------------------------------------------------------------------------


def open_to_read(lane: object, path: str) -> Session:
    """A session that reads what is at `path` now. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        os.close(fd)
        raise
    return Session(lane, fd, size)


def begin(lane: object, target: str, length: int) -> Session:
    """A session that writes `length` bytes for `target`, which may not exist yet. Raises OSError; nothing is left."""
    try:
        old = os.stat(target)
    except FileNotFoundError:
        old = None
    if old is not None and stat.S_ISBLK(old.st_mode):
        session = _begin_in_place(lane, target, length)
    else:
        session = _begin_beside(lane, target, old, length)
    session.writing = True
    return session


def _begin_in_place(lane: object, target: str, length: int) -> Session:
    fd = os.open(target, os.O_RDWR | os.O_CLOEXEC)
    if length > os.lseek(fd, 0, os.SEEK_END):
        os.close(fd)
        raise OSError(errno.ENOSPC, "the device is shorter")
    return Session(lane, fd, length)


def _begin_beside(lane: object, target: str, old: os.stat_result | None, length: int) -> Session:
    temporary = _temporary(target)
    mode = NEW_MODE if old is None else 0o600
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    session = Session(lane, fd, length, target, temporary)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # so that nobody sweeps it away
        if old is not None:
            _look_like(fd, target, old)
        os.ftruncate(fd, length)
    except OSError:
        session.end()
        raise
    return session


def _look_like(fd: int, target: str, old: os.stat_result) -> None:
    """Owner, mode and what else the old file says of who may use it; a new file may not be anybody else's."""
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EINVAL, "neither a regular file nor a block device")
    new = os.fstat(fd)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))
    try:
        for name in os.listxattr(target):
            os.setxattr(fd, name, os.getxattr(target, name))
    except OSError as error:
        if error.errno not in NOT_COPIED:
            raise


def _temporary(target: str) -> str:
    directory, name = os.path.split(target)
    return os.path.join(directory, f"{_prefix(name)}{os.urandom(8).hex()}")


def _prefix(name: str) -> str:
    """Of the temporary files of `name`. The name is cut, so that one of 255 bytes has room for ours."""
    return os.fsdecode(b"." + os.fsencode(name)[:200] + b".mover-")


def sweep(target: str) -> None:
    """Remove what killed workers left beside `target`: temporary files that nobody has locked."""
    directory, name = os.path.split(target)
    prefix = _prefix(name)
    try:
        leftovers = [entry for entry in os.listdir(directory) if entry.startswith(prefix)]
    except OSError:
        return  # opening it says what is wrong with the directory
    for leftover in leftovers:
        _remove_if_left(os.path.join(directory, leftover))


def _remove_if_left(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # gone, or not ours to touch
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        pass  # locked: somebody still writes it
    finally:
        os.close(fd)


def _read(session: Session, command: SessionCommand) -> None:
    assert command.buffer is not None
    read_all(session.fd, command.buffer, command.offset)


def _write(session: Session, command: SessionCommand) -> None:
    """What is zero is a hole already, but for a device."""
    assert command.buffer is not None
    if session.temporary is None or not is_zero(command.buffer):
        write_all(session.fd, command.buffer, command.offset)


def _commit(session: Session, command: SessionCommand) -> None:
    """Durable first, then in its place, then the place durable: after a crash it is the old file or the new one."""
    os.fsync(session.fd)
    if session.temporary is None:
        return
    os.rename(session.temporary, session.target)
    session.temporary = None
    directory = os.open(os.path.dirname(session.target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _roll_back(session: Session, command: SessionCommand) -> None:
    """The loop ends the session when no thread uses it."""


_CALLS = {
    Operation.READ: _read,
    Operation.WRITE: _write,
    Operation.COMMIT: _commit,
    Operation.ROLLBACK: _roll_back,
}

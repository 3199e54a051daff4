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
from config.roots import Roots
from workers.image.connection import Owner
from workers.image.file_export import MOST_BYTES, read_all, write_all
from workers.image.local_export import LocalExport
from workers.image.loop import Loop
from workers.image.opening import Spot
from workers.image.plan import Command, Limits, Operation, SessionCommand
from workers.image.threads import Call
from workers.lane.protocol import ImageFacts
from workers.nbd_handle import is_zero

# Without O_NONBLOCK somebody's FIFO would hold a thread for ever. Links were followed before.
READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
# Each is a descriptor; a front end has far fewer requests under way on one image.
SESSIONS_MOST = 512
# A new file's mode, before the process's umask.
NEW_MODE = 0o666
# What a file system without extended attributes says, or one that keeps those of the system for itself.
NOT_COPIED = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EACCES})


class Session:
    """One open file. `temporary` is its path, beside `spot`, until it is committed; None if nothing is replaced.

    The session closes both.
    """

    def __init__(
        self, lane: object, fd: int, size: int, spot: Spot | None = None, temporary: str | None = None
    ) -> None:
        self.lane = lane
        self.fd = fd
        self.size = size
        self.spot = spot
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
        if self.spot is not None:
            self.spot.close()
        os.close(self.fd)


class WholeFile(LocalExport):
    """The file at `export.path`, if there is one; `numbers` are for sessions: no worker before has given any."""

    def __init__(
        self,
        number: int,
        export: Export,
        roots: Roots | None,
        loop: Loop,
        owner: Owner,
        numbers: Iterator[int],
    ) -> None:
        super().__init__(number, export, roots, loop, owner)
        self._numbers = numbers
        self._sessions: dict[int, Session] = {}
        self._opened: dict[Command, Session] = {}
        self._ending: set[Command] = set()

    def _open(self) -> Limits:
        size = 0
        with self._spot() as spot:  # a file may be missing, its directory may not
            sweep(spot)
            try:
                found = os.lstat(spot.path)
                if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
                    raise OSError(errno.EINVAL, "neither a regular file nor a block device")
                size = found.st_size
            except FileNotFoundError:
                pass
            writable = os.access(spot.directory, os.W_OK | os.X_OK)
        # The same for every file, for nothing here is ever confirmed before it is durable.
        self.server = (1, 1)
        return Limits(self._facts(size, writable), MOST_BYTES)

    def _spot(self) -> Spot:
        """Where the file is to be now. Raises OSError."""
        return Spot(self._path, self._roots)

    def _facts(self, size: int, writable: bool) -> ImageFacts:
        return ImageFacts(
            size_bytes=size,
            read_only=not writable,
            can_flush=True,
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
        with self._spot() as spot:
            session = self._opened[command] = open_to_read(command.lane, spot)
        command.covered = session.size

    def _begin_session(self, command: Command) -> None:
        assert isinstance(command, SessionCommand)
        spot = self._spot()
        try:
            self._opened[command] = begin(command.lane, spot, command.length)
        except OSError:
            spot.close()
            raise

    def _flush(self, command: Command) -> None:
        with self._spot() as spot:
            fd = os.open(spot.path, READING)
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


def open_to_read(lane: object, spot: Spot) -> Session:
    """A session that reads what is there now. Raises OSError."""
    fd = os.open(spot.path, READING)
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        os.close(fd)
        raise
    return Session(lane, fd, size)


def begin(lane: object, spot: Spot, length: int) -> Session:
    """A session that writes `length` bytes for a file that may not exist yet. Raises OSError; nothing is left."""
    try:
        old = os.lstat(spot.path)
    except FileNotFoundError:
        old = None
    if old is not None and stat.S_ISBLK(old.st_mode):
        session = _begin_in_place(lane, spot, length)
    else:
        session = _begin_beside(lane, spot, old, length)
    session.writing = True
    return session


def _begin_in_place(lane: object, spot: Spot, length: int) -> Session:
    fd = os.open(spot.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    if length > os.lseek(fd, 0, os.SEEK_END):
        os.close(fd)
        raise OSError(errno.ENOSPC, "the device is shorter")
    return Session(lane, fd, length, spot)


def _begin_beside(lane: object, spot: Spot, old: os.stat_result | None, length: int) -> Session:
    temporary = f"{spot.directory}/{_prefix(spot.name)}{os.urandom(8).hex()}"
    mode = NEW_MODE if old is None else 0o600
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    session = Session(lane, fd, length, spot, temporary)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # so that nobody sweeps it away
        if old is not None:
            _look_like(fd, spot.path, old)
        os.ftruncate(fd, length)
    except OSError:
        session.end()
        raise
    return session


def _look_like(fd: int, path: str, old: os.stat_result) -> None:
    """Owner, mode and what else the old file says of who may use it; a new file may not be anybody else's."""
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EINVAL, "neither a regular file nor a block device")
    new = os.fstat(fd)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))
    try:
        for name in os.listxattr(path, follow_symlinks=False):
            os.setxattr(fd, name, os.getxattr(path, name, follow_symlinks=False))
    except OSError as error:
        if error.errno not in NOT_COPIED:
            raise


def _prefix(name: str) -> str:
    """Of the temporary files of `name`. The name is cut, so that one of 255 bytes has room for ours."""
    return os.fsdecode(b"." + os.fsencode(name)[:200] + b".mover-")


def sweep(spot: Spot) -> None:
    """Remove what killed workers left beside the file: temporary files that nobody has locked."""
    prefix = _prefix(spot.name)
    try:
        leftovers = [entry for entry in os.listdir(spot.directory) if entry.startswith(prefix)]
    except OSError:
        return  # opening it says what is wrong with the directory
    for leftover in leftovers:
        _remove_if_left(f"{spot.directory}/{leftover}")


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
    if session.temporary is None or session.spot is None:
        return
    os.rename(session.temporary, session.spot.path)
    session.temporary = None
    directory = os.open(session.spot.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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

"""One NBD connection's life (its states are in workers/image/connection.py), driven by the worker's loop.

FENCING half-closes the old socket and reads it to its end: then the server has nothing of ours left to apply.
Commands that were in flight are given back only after that.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Generator

from config.export import Export
from config.roots import Roots
from config.settings import WorkerSettings
from workers import server_process
from workers.image.connection import STATES, Event, Owner, State
from workers.image.loop import READ, WRITE, Loop, Timer
from workers.image.opening import Pinned, allowed
from workers.image.plan import WRITING, ZEROS, Command, Limits, Operation
from workers.lane.protocol import ImageFacts
from workers.nbd_handle import READS, WRITES, NbdError, NbdHandle

SEND_BUFFER_BYTES = 2 * 1024 * 1024
GONE_TRIES = 12
GONE_STEP_S = 0.02

HUNG_UP = "the server closed the connection"


class NbdConnection:
    """A connection to `export`; `number` is unique in this worker.

    `roots` say where the paths of its socket and TLS credentials may lead, None if the settings named them.
    """

    def __init__(
        self,
        number: int,
        export: Export,
        roots: Roots | None,
        settings: WorkerSettings,
        loop: Loop,
        owner: Owner,
        connect_s: float,
    ) -> None:
        self.number = number
        self.state = State.CLOSED
        self.server = server_process.UNKNOWN
        self.was_ready = False
        self._export = export
        self._roots = roots
        self._settings = settings
        self._loop = loop
        self._owner = owner
        self._connect_s = connect_s
        self._handle: NbdHandle | None = None
        self._socket: socket.socket | None = None
        self._steps: Generator[None, None, Limits] | None = None
        self._deadline: Timer | None = None
        self._why = ""
        self._armed = 0
        self._fd = -1
        # Commands in flight, by identity, with the time they were sent; the oldest comes first.
        self._in_flight: dict[Command, float] = {}

    @property
    def in_flight(self) -> int:
        """Commands that the server has not answered."""
        return len(self._in_flight)

    @property
    def waited_s(self) -> float:
        """How long the oldest command in flight has waited."""
        now = time.monotonic()
        return now - next(iter(self._in_flight.values()), now)

    def _move(self, event: Event) -> None:
        self.state = STATES[self.state, event]

    # -- connecting ------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to connect; `connected` or `disconnected` of the owner follows."""
        self._move(Event.OPEN)
        self._deadline = self._loop.later(self._connect_s, lambda: self.break_off("no answer in time"))
        self._socket = socket.socket(_family(self._export), socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            error = self._connect(self._socket)
        except OSError as failed:  # a name that does not resolve, a path too long or outside of what is allowed
            self.break_off(f"cannot connect: {failed.strerror or failed}")
            return
        if error in (errno.EINPROGRESS, errno.EAGAIN):
            self._loop.watch(self._socket.fileno(), WRITE, self._on_connect)
        else:
            self._connected(error)

    def _connect(self, sock: socket.socket) -> int:
        """The errno of connecting. Raises OSError."""
        export = self._export
        if export.transport == "tcp":
            return sock.connect_ex((export.host, export.port))
        if self._roots is None:
            return sock.connect_ex(export.socket)
        with Pinned(allowed(self._roots.socket, export.socket)) as pinned:
            return sock.connect_ex(pinned)

    def _on_connect(self, events: int) -> None:
        assert self._socket is not None
        self._loop.unwatch(self._socket.fileno())
        self._connected(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _connected(self, error: int) -> None:
        assert self._socket is not None
        if error:
            self.break_off(f"cannot connect: {os.strerror(error)}")
            return
        self._move(Event.CONNECTED)
        if self._export.transport == "tcp":
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            # The kernel cuts it to net.core.wmem_max and doubles that: half the wake-ups of a PUT, an eighth of its
            # time. TCP sizes its buffers by itself.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.server = server_process.of_peer(self._socket)
        try:
            self._begin_handshake()
        except NbdError as failed:
            self.break_off(failed.what)
        except OSError as failed:
            self.break_off(f"TLS: {failed.strerror}")

    def _begin_handshake(self) -> None:
        assert self._socket is not None
        self._handle = handle = NbdHandle(self._export.name)
        if self._export.tls:
            certificates, psk_file = map(self._credentials, (self._export.tls_certificates, self._export.tls_psk_file))
            handle.use_tls(certificates, psk_file, self._export.tls_username)
        # libnbd owns its duplicate; ours stays for the fence. CloudStack's server closes one socket twice.
        handle.connect(os.dup(self._socket.fileno()))
        # Both are one socket, but libnbd closes its descriptor when the server goes, before we can unwatch it.
        self._fd = self._socket.fileno()
        self._steps = self._handshake(handle)
        self._go_on()

    def _credentials(self, path: str | None) -> str | None:
        """Where a path of TLS credentials leads. Raises OSError where it may not lead."""
        return path if path is None or self._roots is None else allowed(self._roots.credentials, path)

    def _handshake(self, handle: NbdHandle) -> Generator[None, None, Limits]:
        while not handle.negotiating():
            yield
        handle.list_bitmaps()
        while not handle.listed():
            yield
        handle.go()
        while not handle.went():
            yield
        facts = ImageFacts(
            size_bytes=handle.size_bytes(),
            read_only=handle.read_only(),
            can_flush=handle.can_flush(),
            can_zero=handle.can_zero(),
            has_extents=handle.has_extents(),
            multi_conn=handle.multi_conn(),
            block_bytes=handle.block_bytes(),
            bitmaps=handle.bitmaps(),
        )
        if facts.block_bytes > len(ZEROS):
            raise NbdError(f"blocks of {facts.block_bytes} bytes, at most {len(ZEROS)} are supported", errno.EINVAL)
        return Limits(facts, handle.most_bytes())

    def _go_on(self) -> None:
        """Take the handshake as far as it goes without waiting."""
        assert self._steps is not None and self._handle is not None
        try:
            if self._handle.dead():
                raise NbdError(HUNG_UP, errno.ENOTCONN)
            next(self._steps)
        except StopIteration as done:
            self._steps = None
            self._owner.introduce(self, self._socket_fd())
            self._move(Event.AGREED)
            self.was_ready = True
            if self._deadline is not None:
                self._deadline.cancel()
            self._arm(self._handle)
            self._owner.connected(self, done.value)
        except NbdError as failed:
            # What cannot be sent has ended at once, as if the server had refused it.
            self.break_off(HUNG_UP if self._handle.dead() else failed.what)
        else:
            self._arm(self._handle)

    # -- commands --------------------------------------------------------------------------------------------

    def send(self, command: Command) -> None:
        """Send one command; its buffer is libnbd's until it has ended."""
        assert self._handle is not None
        self._in_flight[command] = time.monotonic()
        try:
            self._issue(self._handle, command)
        except NbdError as failed:
            if self._handle.dead():
                self.break_off(failed.what)
            else:
                del self._in_flight[command]
                self._owner.ended(command, failed.errno or errno.EIO)

    def _issue(self, handle: NbdHandle, command: Command) -> None:
        operation, buffer = command.operation, command.buffer
        if operation is Operation.READ:
            assert buffer is not None
            handle.pread(buffer, command.offset, command)
        elif operation is Operation.WRITE:
            assert buffer is not None
            handle.pwrite(buffer, command.offset, command)
        elif operation is Operation.ZERO:
            handle.zero(command.length, command.offset, command.may_hole, command)
        elif operation is Operation.FLUSH:
            handle.flush(command)
        else:
            handle.block_status(command.length, command.offset, command)

    def settle(self) -> None:
        """After commands were sent or answered: collect what has ended, and watch for what libnbd waits for."""
        if self._handle is not None and self.state is State.READY:
            if self._handle.ended:
                self._collect(self._handle)
            self._arm(self._handle)

    def _collect(self, handle: NbdHandle) -> None:
        ended = handle.ended
        while ended:
            command, error, found = ended.popleft()
            if error and handle.dead():
                continue  # no answer: the command stays in flight and is given back after the fence
            if found is not None:
                command.found = found
            if self._in_flight.pop(command, None) is not None:
                self._owner.ended(command, error)

    def _arm(self, handle: NbdHandle) -> None:
        wanted = handle.direction()
        if wanted == self._armed:
            return
        if not wanted and handle.dead():
            self.break_off(HUNG_UP)
            return
        self._armed = wanted
        events = (READ if wanted & READS else 0) | (WRITE if wanted & WRITES else 0)
        self._loop.watch(self._fd, events, self._on_ready)

    def _on_ready(self, events: int) -> None:
        handle = self._handle
        assert handle is not None
        try:
            if self._armed & READS and events & ~WRITE:
                handle.notify_read()
            else:
                handle.notify_write()
        except NbdError as failed:
            self._why = failed.what
        if self._steps is not None:
            self._go_on()
        else:
            self.settle()

    # -- the end ---------------------------------------------------------------------------------------------

    def break_off(self, why: str) -> None:
        """End the connection now and fence it."""
        if self.state in (State.CLOSED, State.FENCING):
            return
        if self.state is State.READY:
            self._drop_handle(collect=True)
        self._move(Event.BROKEN)
        self._why = self._why or why
        self._drop_handle(collect=False)
        if self._deadline is not None:
            self._deadline.cancel()
        self._fence()

    def _drop_handle(self, collect: bool) -> None:
        if self._handle is None:
            return
        if collect:
            # A last look: answers that arrived whole before the break are answers.
            ended, self._handle.ended = self._handle.ended, type(self._handle.ended)()
            for command, error, found in ended:
                if not error and self._in_flight.pop(command, None) is not None:
                    if found is not None:
                        command.found = found
                    self._owner.ended(command, 0)
            return
        if self._armed:
            self._loop.unwatch(self._fd)
        self._armed, self._fd = 0, -1
        self._steps = None
        self._handle = None

    def _socket_fd(self) -> int:
        assert self._socket is not None
        return self._socket.fileno()

    def _fence(self) -> None:
        assert self._socket is not None
        self._loop.unwatch(self._socket.fileno())
        if not self.was_ready:
            self._fenced(True)  # no command was ever sent on it
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._fenced(self._nothing_lands())  # it was not connected, or is not any more
            return
        self._deadline = self._loop.later(self._settings.fence_s, lambda: self._fenced(False))
        self._loop.watch(self._socket.fileno(), READ, self._on_fence)
        self._on_fence(READ)

    def _on_fence(self, events: int) -> None:
        assert self._socket is not None
        try:
            while self._socket.recv(1 << 20):
                pass
        except BlockingIOError:
            return
        except OSError:
            pass  # reset: the server takes no more from us
        self._loop.unwatch(self._socket.fileno())
        self._await_gone(GONE_TRIES)

    def _await_gone(self, tries: int) -> None:
        """A server that dies closes its sockets some milliseconds before its process is gone."""
        if self.state is not State.FENCING:
            return
        if self._nothing_lands() or not tries:
            self._fenced(self._nothing_lands())
        else:
            self._loop.later(GONE_STEP_S, lambda: self._await_gone(tries - 1))

    def _nothing_lands(self) -> bool:
        """Whether no write of ours can land any more. qemu-nbd hangs up and goes on writing (mover/serve/fence.py)."""
        writes = any(command.operation in WRITING for command in self._in_flight)
        return not writes or server_process.is_gone(self.server)

    def _fenced(self, fenced: bool) -> None:
        assert self._socket is not None
        if self._deadline is not None:
            self._deadline.cancel()
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self._move(Event.ENDED)
        commands, self._in_flight = list(self._in_flight), {}
        why, self._why = self._why, ""
        self._owner.disconnected(self, why, commands, fenced)

    def leave(self) -> None:
        """Say goodbye; nothing may be in flight (nbdkit 1.32 dies of a client that leaves commands behind)."""
        if self._handle is None or self.state is not State.READY:
            return
        try:
            self._handle.disconnect()
        except NbdError:
            pass  # it is gone already
        self.break_off("leaving")

    def left_by(self, lane: object) -> None:
        """An NBD connection keeps nothing for a lane."""


def _family(export: Export) -> socket.AddressFamily:
    if export.transport == "unix":
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in export.host else socket.AF_INET

"""The listening sockets: bound once by the supervisor, inherited by every front end it ever starts."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from types import TracebackType
from typing import Literal

from config.settings import ServeSettings
from mover.serve.activation import Passed
from mover.serve.errors import CannotStart
from mover.serve.privileges import Identity

# Connections that wait while front ends are busy or being replaced; the kernel cuts it to net.core.somaxconn.
BACKLOG = 1024
UNIX_SOCKET_MODE = 0o660


class Listeners:
    """The bound sockets; as a context manager they are closed, and the Unix sockets' files removed, at the end.

    Front ends serve `tcp` and `unix`, the supervisor itself `control` and `tickets`.
    """

    def __init__(self, settings: ServeSettings, tls: bool = False, passed: Passed | None = None) -> None:
        """Bind and listen, but for what is `passed`; `tls` says what the TCP listener speaks. Raises CannotStart."""
        self._scheme = "https" if tls else "http"
        self._passed = dict(passed or {})
        self.tcp = self._passed.get("http") or bind_tcp(settings.listen, settings.port)
        self.unix: socket.socket | None = None
        self.unix_path = settings.unix_socket or None
        self.control: socket.socket | None = None
        self.tickets: socket.socket | None = None
        self._control_paths = {settings.control_socket, settings.ticket_socket}
        self._files: dict[str, os.stat_result] = {}
        try:
            if self.unix_path is not None:
                self.unix = self._bind_unix("unix", self.unix_path, "--unix-socket")
            if settings.control_socket:
                self.control = self._bind_unix("control", settings.control_socket, "--control-socket")
            if settings.ticket_socket:
                self.tickets = self._bind_unix("ticket", settings.ticket_socket, "--ticket-socket")
        except CannotStart:
            self._remove()
            raise

    def _bind_unix(self, role: str, path: str, flag: str) -> socket.socket:
        if role in self._passed:
            return self._passed[role]  # its file belongs to whoever bound it
        sock = bind_unix(path, flag)
        self._files[path] = os.lstat(path)
        return sock

    def __enter__(self) -> Listeners:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def fds(self) -> list[int]:
        """The descriptors as Begin passes them: TCP first, then Unix."""
        return [sock.fileno() for sock in (self.tcp, self.unix) if sock is not None]

    @property
    def addresses(self) -> str:
        """Where clients find the service, as the ready line says it."""
        host, port = self.tcp.getsockname()[:2]
        shown = f"[{host}]" if self.tcp.family == socket.AF_INET6 else host
        return f"{self._scheme}://{shown}:{port}" + (f" and unix:{self.unix_path}" if self.unix_path else "")

    def give_to(self, group: int) -> None:
        """The Unix sockets' files belong to this group from now on: its members may connect."""
        for path in self._files:
            os.chown(path, -1, group)

    def give_control_to(self, group: int) -> None:
        """The control sockets' files belong to this group from now on. Raises CannotStart."""
        for path in self._control_paths & self._files.keys():
            try:
                os.chown(path, -1, group)
            except OSError as error:
                advice = "run as root, or as a member of that group (control.groups)"
                raise CannotStart(f"give {path} to group {group}", _why(error), advice) from error

    def shows_metrics(self, setting: Literal["loopback", "always", "never"]) -> bool:
        """Whether `/metrics` is served over TCP, too."""
        address = ipaddress.ip_address(self.tcp.getsockname()[0].partition("%")[0])
        return setting == "always" or (setting == "loopback" and address.is_loopback)

    def close(self) -> None:
        """Close our copies: when the last front end has closed its own, clients are refused."""
        for sock in (self.tcp, self.unix, self.control, self.tickets):
            if sock is not None:
                sock.close()

    def _remove(self) -> None:
        """Close the sockets, and remove their files unless others have taken their place."""
        self.close()
        for path, file in self._files.items():
            try:
                now = os.lstat(path)
                if (now.st_dev, now.st_ino) == (file.st_dev, file.st_ino):
                    os.unlink(path)
            except (FileNotFoundError, PermissionError):
                pass  # somebody removed it for us; or root made it, and a start as root replaces it


def bind_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises CannotStart."""
    what = f"listen on {host} port {port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise CannotStart(what, _why(error), "give an address of this host with --listen") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        advice = "give another address with --listen or another port with --port, or stop whoever has it"
        raise CannotStart(what, _why(error), advice) from error
    return sock


def bind_unix(path: str, flag: str) -> socket.socket:
    """A listening Unix socket, its file's mode 0660, in place of a stale one; `flag` gave it. Raises CannotStart.

    Its directory is made where there is none: CloudStack's is in /run, which is empty after a boot.
    """
    what = f"listen on {path}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _remove_stale(path, what, flag)
        # bind() makes the file: the umask leaves no moment at which others may connect.
        old_umask = os.umask(0o777 & ~UNIX_SOCKET_MODE)
        try:
            sock.bind(path)
        finally:
            os.umask(old_umask)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise CannotStart(what, _why(error), f"give another path with {flag}") from error
    except CannotStart:
        sock.close()
        raise
    return sock


def _remove_stale(path: str, what: str, flag: str) -> None:
    """Remove a socket's file that nobody listens on. Raises CannotStart for anything else that is there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise CannotStart(what, "a file that is no socket is there", f"remove it or give another path with {flag}")
    if not _refuses(path):
        raise CannotStart(what, "another process serves there", f"stop it or give another path with {flag}")
    os.unlink(path)


def _refuses(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:
            return False  # its queue is full: somebody listens, and is busy
        return False


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def make_state_dir(path: str, owner: Identity | None = None) -> None:
    """Make the state directory, mode 0700, unless it is there, for `owner` to own. Raises CannotStart."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            return
        if owner is not None:
            os.chown(path, owner.uid, owner.gid)
    except OSError as error:
        advice = "give another one with --state-dir or mend its permissions"
        raise CannotStart(f"use the state directory {path}", _why(error), advice) from error


def check_state_dir(path: str) -> None:
    """It must be a directory, and writable for whom we are. Raises CannotStart."""
    what = f"use the state directory {path}"
    advice = "give another one with --state-dir or mend its permissions"
    if not os.path.isdir(path):
        raise CannotStart(what, "it is no directory", advice)
    if not os.access(path, os.W_OK | os.X_OK):
        raise CannotStart(what, "it is not writable", advice)

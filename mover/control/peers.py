"""Who is at the other end of a control socket, and who may be."""

from __future__ import annotations

import asyncio
import errno
import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from config.settings import ControlSettings
from mover.serve.errors import CannotStart

CREDENTIALS = struct.Struct("=iII")
# Linux's number, which Python's socket module does not have: the groups of a peer beside its first one.
SO_PEERGROUPS = 59
# Python asks for no longer answers. Of a peer with more groups only the first one counts.
GROUPS_BYTES = 1024


@dataclass(frozen=True)
class Peer:
    """The process that connected, as the kernel names it: what it was when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]

    @staticmethod
    def of(writer: asyncio.StreamWriter) -> Peer:
        """The other end of this connection."""
        sock: socket.socket = writer.get_extra_info("socket")
        pid, uid, gid = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        return Peer(pid, uid, frozenset((gid, *_more_groups(sock))))

    @property
    def program(self) -> str:
        """The name of its program now, for people; a number may be another process's by then."""
        try:
            with open(f"/proc/{self.pid}/comm", errors="replace") as comm:
                return comm.read().strip()
        except OSError:
            return "gone"


def _more_groups(sock: socket.socket) -> tuple[int, ...]:
    try:
        groups = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        return ()
    return struct.unpack(f"={len(groups) // 4}I", groups)


class Peers:
    """Who may use control sockets: whoever the mode of the file lets in, and is on the settings' lists if there are."""

    def __init__(self, settings: ControlSettings) -> None:
        """Raises CannotStart for a name that nobody has."""
        self._restricted = bool(settings.users or settings.groups)
        self._users = {0, os.geteuid(), *_numbers("users", settings.users, lambda name: pwd.getpwnam(name).pw_uid)}
        self._groups = frozenset(group_numbers(settings))

    def allows(self, peer: Peer) -> bool:
        """Whether this one may."""
        return not self._restricted or peer.uid in self._users or not self._groups.isdisjoint(peer.groups)


def group_numbers(settings: ControlSettings) -> list[int]:
    """The numbers of the groups that may use control sockets, in the settings' order. Raises CannotStart."""
    return _numbers("groups", settings.groups, lambda name: grp.getgrnam(name).gr_gid)


def _numbers(key: str, names: Iterable[str], number: Callable[[str], int]) -> list[int]:
    found = []
    for name in names:
        try:
            found.append(int(name) if name.isdecimal() else number(name))
        except KeyError:
            advice = "make it, or mend the settings"
            raise CannotStart("use control sockets", f"control.{key}: there is no {name!r} here", advice) from None
    return found

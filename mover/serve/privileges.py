"""Giving up root: who the processes are once everything that only root may open is open."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass

from config.settings import ServeSettings
from mover.serve.errors import CannotStart

# linux/prctl.h
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


@dataclass(frozen=True)
class Identity:
    """A user, its group, and the other groups whose files it may use."""

    uid: int
    gid: int
    groups: Sequence[int]


def wanted_identity(settings: ServeSettings) -> Identity | None:
    """Who to become; None if nobody else. Raises CannotStart."""
    if not settings.user:
        return None
    what = f"serve as user {settings.user}"
    try:
        user = pwd.getpwnam(settings.user)
        gid = grp.getgrnam(settings.group).gr_gid if settings.group else user.pw_gid
        groups = [grp.getgrnam(name).gr_gid for name in settings.groups]
    except KeyError as error:
        why = str(error.args[0]).strip("'\"")
        raise CannotStart(what, why, "make it, or name another one in serve.user, serve.group, serve.groups") from error
    if user.pw_uid == 0:
        raise CannotStart(what, "that is root", "leave serve.user empty to serve as root")
    if os.geteuid() not in (0, user.pw_uid):
        raise CannotStart(what, f"only root may become another user, not {os.geteuid()}", "start it as root")
    return Identity(user.pw_uid, gid, groups)


def become(identity: Identity) -> None:
    """Be that user from now on, with no capability and no way to get one; so are all processes that are started."""
    if os.geteuid() == 0:
        _drop_bounding_set()
        os.setgroups(sorted({identity.gid, *identity.groups}))
        os.setresgid(identity.gid, identity.gid, identity.gid)
        # The kernel takes all capabilities with the last id that is root's.
        os.setresuid(identity.uid, identity.uid, identity.uid)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _drop_bounding_set() -> None:
    """No program that is run later can have a capability."""
    number = 0
    while _prctl(_PR_CAPBSET_READ, number) >= 0:
        _prctl(_PR_CAPBSET_DROP, number)
        number += 1


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> int:
    result: int = _libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    if result < 0 and option == _PR_SET_NO_NEW_PRIVS:
        raise OSError(ctypes.get_errno(), "prctl")
    return result

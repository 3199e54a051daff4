"""The file of VISOR's users: their access keys and secrets, as an administrator has written them.

Secrets stand in it as they are, since a signature is made with them: so it must be nobody else's to read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mover.library.watched import Watched

_OTHERS = stat.S_IROTH | stat.S_IWOTH

Word = Annotated[str, Meta(min_length=1, max_length=255)]


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One user. `tenant` owns what they make, if it is not their access key."""

    access_key: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[!-9;-~]+\Z")]
    secret_key: Word
    email: str = ""
    tenant: Word | None = None
    roles: tuple[str, ...] = ()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    users: list[User]


class UsersFileError(Exception):
    """The file is there and cannot be used: nobody is let in until it can."""


def read(path: Path) -> list[User] | None:
    """The users; None if there is no file. Raises UsersFileError."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise UsersFileError(f"{path}: others may read or write it: chmod 0600")
            users = msgspec.json.decode(file.read(), type=_File).users
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsersFileError(f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsersFileError(f"{path}: {error}") from error
    keys = [user.access_key for user in users]
    if len(set(keys)) != len(keys):
        raise UsersFileError(f"{path}: an access key stands there twice")
    return users


class Users:
    """The file as a front end uses it."""

    def __init__(self, path: Path) -> None:
        self._file = Watched(path, lambda: read(path), lambda users: {one.access_key: one for one in users})

    def by_key(self) -> dict[str, User] | None:
        """Users by their access key; None if there is no file. Raises UsersFileError."""
        return self._file.value()

"""The table of tokens: a file that `mover token` writes and front ends read again when it has changed.

Tokens are 32 random bytes, so one round of SHA-256 hides them: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mover.library.watched import Watched

MODE = 0o600
# Enough of a token's hash to name it by.
ID_DIGITS = 12


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token: whom it stands for. The token itself is nowhere."""

    sha256: str
    user: str
    tenant: str
    roles: tuple[str, ...]
    created_at_s: int

    @property
    def id(self) -> str:
        """What `mover token` calls it."""
        return self.sha256[:ID_DIGITS]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tokens: list[Entry]


class TokenFileError(Exception):
    """The file is there and cannot be used: nobody is let in until it can."""


def digest(token: str) -> str:
    """What of a token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def read(path: Path) -> list[Entry] | None:
    """The tokens; None if there is no table. Raises TokenFileError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File).tokens
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TokenFileError(f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TokenFileError(f"{path}: {error}") from error


def write(path: Path, entries: Sequence[Entry]) -> None:
    """Replace the table, readable by its owner alone: whom root writes it for is whose it was, or its directory is.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = os.stat(path if path.exists() else path.parent)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            if os.geteuid() == 0:
                os.fchown(fd, owner.st_uid, owner.st_gid)
            file.write(msgspec.json.format(msgspec.json.encode(_File(list(entries))), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def new(user: str, tenant: str, roles: Sequence[str]) -> tuple[str, Entry]:
    """A new token, and its entry."""
    token = secrets.token_urlsafe(32)
    return token, Entry(digest(token), user, tenant, tuple(roles), int(time.time()))


class Table:
    """The table as a front end uses it."""

    def __init__(self, path: Path) -> None:
        self._file = Watched(path, lambda: read(path), lambda entries: {one.sha256: one for one in entries})

    def entries(self) -> dict[str, Entry] | None:
        """Entries by their hash; None if there is no table. Raises TokenFileError."""
        return self._file.value()

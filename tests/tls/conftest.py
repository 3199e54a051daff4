"""An authority, and a Mover that speaks TLS with a certificate of it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.harness.certificates import Authority, Pair, tables
from tests.harness.fixtures import Images, StartMover
from tests.harness.http import Secure
from tests.harness.mover import Mover
from tests.harness.servers import NbdServer
from tests.harness.waiting import PROGRAM_S


class SecureMover:
    """A running Mover, who signed its certificate, and where that is."""

    def __init__(self, mover: Mover, authority: Authority, own: Pair) -> None:
        self.mover = mover
        self.authority = authority
        self.own = own

    @property
    def address(self) -> Secure:
        """Its address for clients that trust the authority."""
        return self.client()

    def client(self, own: Pair | None = None) -> Secure:
        """Its address for clients that have this certificate."""
        return self.mover.secure(self.authority.client_context(own))

    @property
    def url(self) -> str:
        """Where its images are."""
        return f"https://127.0.0.1:{self.mover.tcp[1]}/images"

    def curl(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run curl, which trusts the authority, to its end."""
        command = ["curl", "-q", "--noproxy", "*", "-sS", "--cacert", str(self.authority.certificate)]
        return subprocess.run([*command, *map(str, arguments)], check=check, capture_output=True, timeout=PROGRAM_S)


StartSecure = Callable[..., SecureMover]


@pytest.fixture
def authority(images: Images) -> Authority:
    """An authority of the test's own."""
    return Authority(images.room)


@pytest.fixture
def start_secure(authority: Authority, start_mover: StartMover) -> StartSecure:
    """Starts `mover serve` with TLS for `{id: server or URI}`; `tls` and `settings` are tables on top."""

    def start(
        images: Mapping[str, NbdServer | str],
        settings: Mapping[str, Mapping[str, bool | int | float | str]] | None = None,
        front_ends: int = 1,
        **tls: str | float,
    ) -> SecureMover:
        own = authority.issue("server")
        mover = start_mover(images, {**(settings or {}), "tls": tables(own, **tls)}, front_ends)
        return SecureMover(mover, authority, own)

    return start


@contextlib.contextmanager
def leaving_nothing(mover: Mover) -> Iterator[None]:
    """What happens in the block leaves no slot, descriptor or process behind."""
    before = mover.settled_census()
    yield
    mover.assert_returns_to(before)


def run(*command: object) -> str:
    """Run a program to its end, which must be a good one; what it printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=PROGRAM_S)
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout

"""A host's lease in the registry, and the end of what hosts without one were doing.

One front end of each host leads: it renews the lease, and looks at the others'. A host that has not been seen for
`library.host_dead_s` by the database's clock is dead, or cut off: what its front ends were receiving is QUEUED again.
That is safe whatever becomes of it, since an upload makes an image ACTIVE by the token that it loses here.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import random
import time
from pathlib import Path

from config.log import facts
from mover.library.library import Library
from mover.library.registry import schema
from mover.library.registry.errors import RegistryError
from mover.library.seam import CarrierError

log = logging.getLogger(__name__)

# A lease is renewed so often before it would run out: a few renewals may be late, or lost.
RENEWALS = 6
# Of many hosts so many do in each round what any of them could do.
ENOUGH_HOSTS = 10


class Judge:
    """Whether this host may say of others that they are dead. Rules, no I/O.

    After the database was away, all leases are old, those of living hosts too: who judges must have renewed its own
    for as long as the others have to.

        renewed ── renewed ── renewed ─ ─ ─ ─(away)─ ─ ─ ─ renewed ── renewed ── renewed
                                                           │◄──── dead_s ────►│ may judge
    """

    def __init__(self, dead_s: float) -> None:
        self._dead_s = dead_s
        self._since: float | None = None
        self._last = 0.0

    def renewed(self, now: float) -> bool:
        """The own lease was renewed at `now`; whether others may be judged."""
        if self._since is None or now - self._last > self._dead_s / 2:
            self._since = now
        self._last = now
        return now - self._since >= self._dead_s


class Leading:
    """Whether this front end is the one of its host that leads: who has the lock, which ends with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def leads(self) -> bool:
        """It does, from now on, unless another one does."""
        if self._fd >= 0:
            return True
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def close(self) -> None:
        """Let another one lead."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Leases:
    """The lease of this host, and a look at those of the others."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._dead_s = library.settings.host_dead_s
        self._judge = Judge(self._dead_s)
        self._leading = Leading(library.state_dir / "library-leader")
        self._hosts = 1

    def leads(self) -> bool:
        """Whether this front end does what one of the host's has to do."""
        return self._leading.leads()

    def takes_turn(self) -> bool:
        """Whether to do now what any host could do: among many, some do at a time."""
        return random.random() < ENOUGH_HOSTS / max(ENOUGH_HOSTS, self._hosts)

    async def run(self) -> None:
        """Renew the lease in time, and look at the others', until cancelled. A file of SQLite has one host."""
        while not schema.is_sqlite(self._library.settings.database):
            try:
                if self.leads():
                    await self._round()
            except RegistryError as error:
                log.warning("the host's lease cannot be renewed", extra=facts(reason=str(error)))
            except Exception:
                log.exception("the host's lease cannot be renewed")  # it is tried again, whatever it was
            await asyncio.sleep(self._dead_s / RENEWALS)

    def close(self) -> None:
        """Let another front end lead."""
        self._leading.close()

    async def _round(self) -> None:
        library = self._library
        self._hosts = await library.renew()
        if self._judge.renewed(time.monotonic()) and await library.release_dead_hosts():
            # What they have sent of their uploads lies in stores that all reach.
            try:
                await library.sweep()
            except CarrierError as error:
                log.warning("a store cannot be swept", extra=facts(reason=error.message))

"""The checksums of an upload, each by a thread of its own, over the bytes in their order.

    fed    |  slot  |  slot  |  slot  |            as they come: the slot is given back when it is written and hashed
           | zeros, of any length     |            none of them is anywhere
           |   range of the part   |               what was there before, or came faster than it could be hashed: read

hashlib lets others run while it hashes, so two take as long as the slower one; a range is read by each by itself, from
the page cache as a rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from workers.image.loop import Loop
from workers.image.plan import Command, Operation
from workers.image.threads import Threads
from workers.store.backing import Part

READ_BYTES = 1024 * 1024


class HashPart(Command):
    """Bytes for one digest: `buffer`, again and again up to `length`; or without one [offset, offset + length) of the
    part. `whose` waits for it.
    """

    __slots__ = ("digest", "whose")

    def __init__(self, digest: Digest, offset: int, length: int, buffer: memoryview | None, whose: object) -> None:
        super().__init__(Operation.HASH, offset, length, buffer)
        self.digest = digest
        self.whose = whose


class Digest:
    """One checksum: `done` bytes are in it."""

    def __init__(self, loop: Loop, algorithm: str, part: Part, on_done: Callable[[Command, int], None]) -> None:
        self.done = 0
        self._hash: Any = hashlib.new(algorithm, usedforsecurity=False)
        self._part = part
        self._stopped = False
        self._threads = Threads(loop, algorithm, 1, on_done)

    def feed(self, offset: int, length: int, buffer: memoryview | None, whose: object) -> None:
        """Take in the next bytes; `on_done` hears of it."""
        self._threads.submit(HashPart(self, offset, length, buffer, whose), self._take_in)

    def _take_in(self, command: Command) -> None:
        if command.buffer is not None:
            self._take_in_buffer(command.buffer, command.length)
            return
        read = memoryview(bytearray(min(READ_BYTES, command.length)))
        at, end = command.offset, command.offset + command.length
        while at < end and not self._stopped:
            piece = read[: end - at]
            self._part.read(piece, at)
            self._hash.update(piece)
            at += len(piece)

    def _take_in_buffer(self, buffer: memoryview, length: int) -> None:
        for at in range(0, length, len(buffer)):
            if self._stopped:
                return
            self._hash.update(buffer[: length - at])

    def hexdigest(self) -> str:
        """The checksum of all that was fed; nothing may be under way."""
        return str(self._hash.hexdigest())

    def stop(self) -> None:
        """What is under way may end at once: nobody wants to know any more."""
        self._stopped = True

    def close(self) -> None:
        """End the thread; nothing may be under way."""
        self._threads.close()


class Digests:
    """MD5 and a second one, or none. `fed` bytes were given to both; `busy` pieces are under way."""

    def __init__(
        self, loop: Loop, algorithms: Sequence[str], part: Part, on_done: Callable[[HashPart, int], None]
    ) -> None:
        self.fed = 0
        self.busy = 0
        self._on_done = on_done
        self._digests = [Digest(loop, algorithm, part, self._ended) for algorithm in algorithms]

    @property
    def behind(self) -> int:
        """Bytes that were fed and are not hashed."""
        return self.fed - min((digest.done for digest in self._digests), default=self.fed)

    def feed(self, length: int, buffer: memoryview | None, whose: object) -> int:
        """Give the next bytes to each, or `buffer` so often that they are `length`; how many pieces that makes."""
        for digest in self._digests:
            digest.feed(self.fed, length, buffer, whose)
        self.fed += length
        self.busy += len(self._digests)
        return len(self._digests)

    def _ended(self, command: Command, error: int) -> None:
        assert isinstance(command, HashPart)
        self.busy -= 1
        command.digest.done += command.length
        self._on_done(command, error)

    def hexdigests(self) -> list[str]:
        """The checksums, in the order of the algorithms."""
        return [digest.hexdigest() for digest in self._digests]

    def stop(self) -> None:
        """Nobody wants to know any more."""
        for digest in self._digests:
            digest.stop()

    def close(self) -> None:
        """End the threads; nothing may be under way."""
        for digest in self._digests:
            digest.close()

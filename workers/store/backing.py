"""The seam behind which a worker keeps library images: what an upload, and all else, asks of a store.

All of it blocks, and runs in threads. A store raises Refusal for what a client is to be told in its own words, and
OSError for what the system says.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import msgspec

from workers.lane.store_format import Found, Swept, Why


class Refusal(Exception):
    """The store does not do it; `message` is one sentence for the client."""

    def __init__(self, why: Why, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.why = why
        self.message = message
        self.offset = offset


class Location(msgspec.Struct, frozen=True):
    """Where an image was published."""

    uri: str
    metadata: dict[str, Any]
    volume: str = ""


class Part(Protocol):
    """An image on its way in, which nobody sees. One thread uses it at a time, but for `write` and `read`.

    Zeros are put where nothing was put before.

    `rereads`: `read` has all that was written; else only the image's beginning and end, for who looks at its headers.
    """

    rereads: bool

    def write(self, buffer: memoryview, offset: int) -> None:
        """Put bytes in their place; `buffer` is free again when this returns."""

    def zero(self, offset: int, length: int) -> None:
        """Put so many zeros in their place."""

    def read(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with bytes that were written before."""

    def keep(self, offset: int, size: int | None) -> None:
        """Make the first `offset` bytes durable, and remember that they are; `size` is the whole image's, if known."""

    def fileno(self) -> int | None:
        """A descriptor of the bytes, the part's own, for who cannot do with `read`; None if it has none."""

    def publish(self, size: int) -> Location:
        """Make all of it durable, and let everybody see it; never in the place of another. The part is over then."""

    def close(self) -> None:
        """Let go of it; what was kept stays."""

    def drop(self) -> None:
        """Let go of it, with all that it has left."""


@runtime_checkable
class Cloning(Part, Protocol):
    """A part that the kernel can fill from another file."""

    def clone(self, path: str, offset: int, size: int, most: int) -> int:
        """Bring bytes of the file at `path`, which has `size` of them, from `offset` on; where that ended.

        `most` of them where they have to be copied; zeros do not count.
        """


class Backing(Protocol):
    """A store, as a worker knows it."""

    def begin(self, image: str, size: int | None, catalogue: str, upload: str = "") -> Part:
        """A new part; what an earlier upload of the image has left goes. `size` is None if nobody knows it yet,
        `upload` the token by which the registry knows it.
        """

    def resume(self, image: str, offset: int, size: int | None) -> Part:
        """The part that was kept with exactly `offset` bytes."""

    def kept(self, image: str) -> int | None:
        """How many bytes of an interrupted upload are there."""

    def forget(self, image: str) -> None:
        """Drop what an interrupted upload has left."""

    def remove(self, uri: str) -> None:
        """Remove an image; it is no error if it is not there."""

    def abandon(self, uri: str) -> None:
        """Remove what an upload that never comes to its end has left at `uri`, seen or not."""

    def size(self, uri: str) -> int | None:
        """How many bytes an image has; None if it is not there."""

    def confirm(self, image: str, uri: str) -> None:
        """The image is registered at `uri`: forget that it was ever an upload."""

    def sweep(self, keep_s: float, catalogue: str) -> Swept:
        """Remove what no upload can go on with any more."""


@runtime_checkable
class Scattering(Backing, Protocol):
    """A store whose images can be written at random, by an export of their own."""

    def prepare(self, image: str, size: int, catalogue: str) -> str:
        """Room for such an image: a file of `size` bytes, its path. It stays until it is taken, or forgotten."""

    def take(self, image: str, catalogue: str) -> Part | Location:
        """The part that was prepared, which nobody writes any more; its location, if it was published before."""


@runtime_checkable
class Looking(Backing, Protocol):
    """A store whose images others may change: it tells more of them than their size."""

    def find(self, uri: str) -> Found:
        """What is there now."""

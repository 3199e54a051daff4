"""The seam between the library's views and the bytes: what a view asks of a Carrier, and what can go wrong.

The views decide who may do what and keep the registry; a Carrier moves bytes between the client of a request and
the stores, and knows nothing of tenants and states. The order of an upload, which a crash may cut at any point:

  registry: QUEUED -> SAVING, with a token     (of two racing uploads one wins)
  carrier:  receive(): temporary name, hashes, inspection, fsync, published without overwriting
  registry: SAVING -> ACTIVE with the location, if the token is still the image's; else the view calls remove()

and of a delete:

  registry: -> DELETED, and its locations PENDING_DELETE, in one transaction
  carrier:  remove()
  registry: the location's row goes
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
from sanic import Request

from config.export import Export
from mover.front.sanic_seam import Headers, Sent
from mover.library.records import Host, ImageRecord, Location
from mover.serve.messages import Grant, Granted


class Incoming(msgspec.Struct, frozen=True):
    """What a view knows of a body before it is received.

    `offset`: where in the image the body begins; at 0 an upload begins anew, anywhere else an interrupted one goes
    on, and there must be as much of it as `Carrier.kept` says. `length`: bytes of the body, None if it comes in chunks.
    `size_bytes`: the whole image, None if nobody has said; then the body's end is the image's. When `resumable`, what
    has come is kept when the client leaves, and a body that ends before `size_bytes` is no error. `md5` is what the
    whole must have.
    """

    image: ImageRecord
    offset: int = 0
    length: int | None = None
    size_bytes: int | None = None
    md5: str | None = None
    store: str | None = None
    resumable: bool = False


class Received(msgspec.Struct, frozen=True):
    """The bytes are whole, checked, durable and published at `location`; digests that nobody wanted are None."""

    location: Location
    size_bytes: int
    md5: str | None
    hash_algo: str
    hash_value: str | None
    virtual_size_bytes: int | None = None


class Kept(msgspec.Struct, frozen=True):
    """The body is in, the image is not whole: the next one begins at `offset`."""

    offset: int


class Referred(NamedTuple):
    """What a URL names: where, with what will tell another source from it, and how many bytes it has."""

    location: Location
    size_bytes: int


class Span(NamedTuple):
    """Bytes of an image, half-open."""

    offset: int
    length: int


class Store(msgspec.Struct, frozen=True):
    """A store that new images can go to.

    `type` as in the configuration, `schemes` by which a client may name the first of its type instead of its id;
    `capabilities` are words of CAPABILITIES; `properties` are where it is, for admins, and never who may use it.
    """

    id: str
    description: str = ""
    default: bool = False
    read_only: bool = False
    type: str = "file"
    schemes: Sequence[str] = ()
    capabilities: Sequence[str] = ()
    properties: Mapping[str, str | int | bool] = {}


def named(stores: Sequence[Store], name: str) -> Store | None:
    """The store of this id, or else the first one that the name is a scheme of."""
    kinds = (store for store in stores if name in store.schemes)
    return next((store for store in stores if store.id == name), None) or next(kinds, None)


Wanted = Callable[[str, Location, str], Awaitable[bool]]
"""Asks the registry, of an image's id and a location, whether the bytes there are the image's, or may become so: by the
upload with this token, or by any if it is empty."""

WhoHas = Callable[[str], Awaitable[Sequence[Host]]]
"""Asks the registry which hosts have a volume, who was seen last first."""


class TicketDesk(Protocol):
    """Who puts tickets for library images in force, on this host. All raise LaneLost when nobody answers."""

    async def grant(self, ticket: Grant) -> Granted:
        """Put one in force."""

    async def revoke(self, ticket_id: str) -> Granted:
        """Take one out of force, and wait until nothing of it is under way."""

    async def inquire(self, ticket_ids: list[str] | None) -> Granted:
        """How these are used, or all that there are."""


class Ticketed(msgspec.Struct, frozen=True):
    """The disk that a ticket of this host leads to, as far as the ticket goes."""

    ticket: str


Disk = Export | Ticketed

Progress = Callable[[int, int | None], None]
"""Hears how many bytes are done, and how many there are in all, if that is known."""


class Carrier(Protocol):
    """Who moves the bytes of library images."""

    async def receive(self, request: Request, incoming: Incoming) -> Received | Kept:
        """Take the request's body (asking for it, if the client waits to be asked). Raises CarrierError or ClientGone.

        Whatever is raised, nothing stays behind but what `resumable` keeps.
        """

    async def bring(self, source: Disk, incoming: Incoming, progress: Progress, digests: bool = True) -> Received:
        """Take the bytes of a disk, or of an object, worker to worker; holes stay holes. Raises CarrierError.

        It goes on at `incoming.offset`. When it is cancelled or the source is lost, what has come is kept if
        `resumable`; otherwise nothing stays behind. Without `digests` nothing is hashed, unless an `md5` is to be
        compared.
        """

    async def copy(self, location: Location, incoming: Incoming, progress: Progress) -> Received:
        """Take the bytes of an image of `incoming.size_bytes` into another store. Raises CarrierError.

        Between file stores the kernel does it, reflinked where that can be, and `md5` is taken over as it is; else all
        that `bring` says holds, and `md5` is compared.
        """

    async def deliver(
        self,
        location: Location,
        size_bytes: int,
        target: Disk,
        progress: Progress,
        disk_format: str | None = None,
    ) -> None:
        """Write an image onto a disk of at least its size, zeros as zeros, and flush it. Raises CarrierError.

        Of an image whose `disk_format` has a disk inside (qcow2 and others), that disk is written.

        What the disk has beyond the image's size stays as it is. When this is cancelled, no byte is written any more.
        """

    async def stage(self, request: Request, incoming: Incoming) -> int:
        """Take the request's body to where it waits to be published; how many bytes. Raises CarrierError, ClientGone.

        Whatever is raised, nothing stays behind.
        """

    async def publish_staged(self, incoming: Incoming) -> Received:
        """Make an image of what was staged, in the store where it lies. Raises CarrierError, NotThere if nothing was.

        What cannot be published is gone; what could not be yet, since the store is away, stays.
        """

    def source(self, location: Location) -> Export:
        """The bytes at a location, for `bring`. Raises UnknownStore, NotThere."""

    async def send(
        self,
        request: Request,
        location: Location,
        size_bytes: int,
        span: Span,
        status: int,
        headers: Headers,
    ) -> Sent:
        """Answer with `status`, `headers` (Content-Length is among them) and the bytes of `span`.

        Raises CarrierError while nothing was sent, BodyBroken after that.
        """

    async def refer(self, url: str, store: str | None = None) -> Referred:
        """Look at what a URL names, which stays there; `store` is the id of a store of such images, if not the first.

        Raises NotAllowed, NotThere, Unreachable, and CarrierError like the others.
        """

    async def registered(self, image_id: str, location: Location) -> None:
        """The registry knows the location: nothing has to remember that it might not. Raises CarrierError."""

    async def remove(self, location: Location) -> None:
        """Remove the bytes; it is no error if there are none. Raises CarrierError, Elsewhere among them."""

    async def kept(self, image_id: str) -> int | None:
        """How many bytes of an interrupted upload are there; None if there is none."""

    async def forget(self, image_id: str) -> None:
        """Drop what an interrupted upload has left; it is no error if there is nothing."""

    async def readable(self, location: Location, disk_format: str | None) -> Export:
        """What a ticket names to read the image as it is, or, with a disk format, the disk in it.

        Raises CarrierError where the store cannot show it so.
        """

    async def prepare(self, image: ImageRecord, size_bytes: int, store: str | None) -> tuple[str, Export]:
        """Room for an image that is written at random: its store's id, and what a ticket names. Raises CarrierError."""

    async def finish(self, image: ImageRecord, size_bytes: int, store: str) -> Received:
        """What was prepared is whole: digests, inspection, published. Raises CarrierError, and nothing is left then.

        It may be asked again after somebody died who had asked it, and answers the same.
        """

    async def stores(self) -> Sequence[Store]:
        """The stores, the default one first."""

    async def volumes(self) -> frozenset[str]:
        """The directories of file stores that this host reaches, by the names that they bear."""

    async def sweep(self, wanted: Wanted, shared: bool = True) -> int:
        """Remove what crashes have left, and uploads that nobody went on with; how many files. Raises CarrierError.

        Without `shared` only in stores that are directories: the others are every host's.
        """


class CarrierError(Exception):
    """The bytes could not be moved. `message` is for the client, in one sentence."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StorageFull(CarrierError):
    """No store has room."""


class TooLarge(CarrierError):
    """The body is larger than images may be."""


class StorageWriteDenied(CarrierError):
    """The store cannot be written."""


class StoreAddDisabled(CarrierError):
    """The store takes no new images."""


class StoreGone(CarrierError):
    """The store cannot be reached just now; `retry_after_s` says when to try again."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Elsewhere(CarrierError):
    """The bytes are in a directory that this host does not reach; `hosts` do, who was seen last first."""

    def __init__(self, message: str, hosts: Sequence[Host] = ()) -> None:
        super().__init__(message)
        self.hosts = tuple(hosts)


class NotPossible(CarrierError):
    """The store cannot do that, whoever asks."""


class UnknownStore(CarrierError):
    """There is no store of this id."""


class NotThere(CarrierError):
    """The location has no bytes."""


class NotAllowed(CarrierError):
    """A URL that is not read, or cannot be read as an image."""


class Unreachable(CarrierError):
    """A URL whose server does not answer, or not as it should."""


class Changed(CarrierError):
    """What is at an image's URL is not what it was when the image was made."""


class NoRanges(CarrierError):
    """The server that has the image sends all of it or nothing, and not all of it was asked for from its beginning."""


class SourceGone(StoreGone):
    """What the bytes come from cannot be read just now."""


class TargetGone(StoreGone):
    """The disk that the bytes go to cannot be written just now."""


class DiskRefused(CarrierError):
    """The disk that was named cannot be the source or the target."""


class InUse(CarrierError):
    """The bytes are in use, and cannot be removed."""


class Duplicate(CarrierError):
    """There are bytes at this image's place already."""


class WrongFormat(CarrierError):
    """The bytes are not of the format that was declared, or of one that is refused."""


class WrongOffset(CarrierError):
    """The body does not begin where the interrupted upload ended, which is `offset`."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class WrongSize(CarrierError):
    """The body had more or fewer bytes than were announced."""


class WrongChecksum(CarrierError):
    """The bytes do not have the checksum that was announced."""

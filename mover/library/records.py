"""What the registry knows of a library image, as plain data. Names are the registry's; each view has its own words."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from mover.library.states import State


class Visibility(enum.StrEnum):
    """Who sees an image beside its owner and the admins."""

    PUBLIC = "public"
    COMMUNITY = "community"  # everybody by its id, nobody in a list who does not ask for it
    SHARED = "shared"  # its members
    PRIVATE = "private"


class MemberStatus(enum.StrEnum):
    """What a member has said to being one; only `accepted` images stand in its lists."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class LocationStatus(enum.StrEnum):
    """Whether the bytes at a location are an image's, or wait to be removed."""

    ACTIVE = "active"
    PENDING_DELETE = "pending_delete"


class Location(msgspec.Struct, frozen=True):
    """Where bytes of an image rest. `number` is the registry's own, 0 before it has one.

    `volume` is the directory of a file store, by the name that it bears itself (config/volumes.py): only who has
    it has the bytes. Empty where it bears none, or every host reaches the bytes.
    """

    store: str
    uri: str
    metadata: Mapping[str, Any] = {}
    status: LocationStatus = LocationStatus.ACTIVE
    number: int = 0
    volume: str = ""


class Host(msgspec.Struct, frozen=True):
    """A host that shares the registry: its own id, its name for people, the volumes that it reaches."""

    id: str
    name: str
    volumes: tuple[str, ...] = ()


class Member(msgspec.Struct, frozen=True):
    """A tenant that an image is shared with. Times are microseconds since 1970, UTC."""

    image_id: str
    member: str
    can_share: bool
    status: MemberStatus
    created_at_us: int
    updated_at_us: int


class ImageRecord(msgspec.Struct, frozen=True):
    """One library image. Times are microseconds since 1970, UTC.

    `revision` grows with each change; `upload` is the token of the upload or job that holds it while its data come,
    `holder` the front end that receives an upload, and `location` the first location that is active.
    """

    id: str
    state: State
    visibility: Visibility
    created_at_us: int
    updated_at_us: int
    revision: int
    name: str | None = None
    owner: str | None = None
    size_bytes: int | None = None
    virtual_size_bytes: int | None = None
    disk_format: str | None = None
    container_format: str | None = None
    md5: str | None = None
    hash_algo: str | None = None
    hash_value: str | None = None
    min_disk_gb: int = 0
    min_ram_mb: int = 0
    protected: bool = False
    hidden: bool = False
    deleted_at_us: int | None = None
    upload: str | None = None
    holder: str | None = None
    properties: Mapping[str, str | None] = {}
    tags: tuple[str, ...] = ()
    locations: tuple[Location, ...] = ()

    @property
    def location(self) -> Location | None:
        """Where to read it first."""
        return next(iter(self.copies), None)

    @property
    def copies(self) -> tuple[Location, ...]:
        """Everywhere to read it."""
        return tuple(one for one in self.locations if one.status is LocationStatus.ACTIVE)


class TransferState(enum.StrEnum):
    """Where a transfer is: OPENING ──► OPEN ──► CLOSING, and then it is no more.

    A process that has died in OPENING has left nothing worth keeping; one that has in CLOSING is followed by another.
    """

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"


class Transfer(msgspec.Struct, frozen=True):
    """A ticket for an image that a client of the library has; `worker` is the process that opens or closes it."""

    id: str
    image_id: str
    ticket: str
    host: str
    state: TransferState
    direction: str
    format: str
    size_bytes: int
    timeout_s: int
    worker: str | None = None
    store: str | None = None
    upload: str | None = None
    tenant: str | None = None
    created_at_us: int = 0

    @property
    def is_upload(self) -> bool:
        """It brings an image's data."""
        return self.direction == "upload"


class NewImage(msgspec.Struct, frozen=True, kw_only=True):
    """What a view says of an image that is to be made."""

    id: str
    visibility: Visibility
    facts: dict[str, Any] = {}
    properties: dict[str, str | None] = {}
    tags: tuple[str, ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to change of an image: columns, and all properties and tags where they are not None."""

    facts: dict[str, Any] = {}
    properties: dict[str, str | None] | None = None
    tags: tuple[str, ...] | None = None

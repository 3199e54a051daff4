"""What the registry knows of a job, as plain data."""

from __future__ import annotations

import enum

import msgspec

from mover.library.jobs.states import LIVE, JobState
from mover.library.records import Location
from mover.library.states import State


class JobKind(enum.StrEnum):
    """What a job does; the imports have the names of their methods."""

    GLANCE_DIRECT = "glance-direct"  # staged data become the image
    WEB_DOWNLOAD = "web-download"  # what a URL has becomes the image
    COPY_IMAGE = "copy-image"  # the image gets copies in other stores
    DISK = "disk"  # an NBD export, or what a ticket leads to, becomes the image
    EXPORT = "export"  # the image goes onto an NBD export


# How clients import images, in the order in which v2 names them.
IMPORTS = (JobKind.GLANCE_DIRECT, JobKind.WEB_DOWNLOAD, JobKind.COPY_IMAGE, JobKind.DISK)
# These make an image of what was none; the others leave an image as it is that is one.
MAKING = frozenset({JobKind.GLANCE_DIRECT, JobKind.WEB_DOWNLOAD, JobKind.DISK})


class JobInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was asked. `place` is the URL or ticket of a source or target; what of it may be told, Job.shown_place says.

    `must_all` gives everything back when one of `stores` fails. `resume` goes on with what an earlier job of the same
    kind and place has left. `kills` is v1's failure: the image is killed, not queued. `request_id` is the name of the
    request that began it.
    """

    place: str = ""
    stores: tuple[str, ...] = ()
    must_all: bool = True
    digests: bool = True
    resume: bool = False
    kills: bool = False
    size_bytes: int | None = None
    md5: str | None = None
    request_id: str | None = None

    @property
    def shown_stores(self) -> tuple[str, ...]:
        """What v2 shows of an import under way; v1 knows no stores."""
        return () if self.kills else self.stores


class Copy(msgspec.Struct, frozen=True):
    """One copy that has been made, and is no location of the image yet."""

    location: Location
    size_bytes: int
    md5: str | None
    hash_algo: str | None
    hash_value: str | None
    virtual_size_bytes: int | None = None


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a job is: what a successor need not do again. `failed` are stores, each with the reason."""

    copies: tuple[Copy, ...] = ()
    failed: dict[str, str] = {}


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to be begun. `host` alone may run it, since its source, or its target, is there; None: any host.

    A job `holds` its image if no other one may be made for it meanwhile.
    """

    id: str
    image_id: str
    kind: JobKind
    input: JobInput
    owner: str | None
    user: str | None
    host: str | None
    holds: bool = True


class Job(msgspec.Struct, frozen=True):
    """One job. Times are microseconds since 1970, UTC; `tries` counts how often it was begun since bytes moved last."""

    id: str
    image_id: str
    kind: JobKind
    state: JobState
    input: JobInput
    outcome: Outcome
    message: str
    owner: str | None
    user: str | None
    host: str | None
    holder: str | None
    cancel: bool
    done_bytes: int
    size_bytes: int | None
    tries: int
    created_at_us: int
    updated_at_us: int
    due_at_us: int
    ended_at_us: int | None = None

    @property
    def token(self) -> str:
        """What holds the image in its state while this job makes it."""
        return self.id.replace("-", "")

    @property
    def shown_place(self) -> str:
        """Its source or target without what may be a secret: a URL's user and query, most of a ticket."""
        place = self.input.place
        if self.kind is JobKind.WEB_DOWNLOAD:
            return place.partition("?")[0]
        if is_url(place) or place.endswith("…"):
            return place
        return place[:4] + "…" if place else ""

    @property
    def is_live(self) -> bool:
        """It has not ended."""
        return self.state in LIVE


def is_url(place: str) -> bool:
    """Whether a source or target is named by its URL, not by a ticket."""
    return "://" in place or place.startswith("nbd:")


# The state that an image is in while a job makes it.
IMPORTING = frozenset({State.IMPORTING, State.SAVING})

"""What a store of library images is asked and answers, in the slot of a STORE job.

    0                                            ANSWER_AT
    ├ u32 length │ msgpack of a question ──┤      ├ u32 length │ msgpack of its answer ──┤

The answer does not overwrite the question: a worker that dies between the two leaves it for its successor.
An upload is a session of its lane: Receive gives it a number, WRITE jobs name it, Publish or Keep ends it, or ROLLBACK.
"""

from __future__ import annotations

import enum
import struct
from typing import Any

import msgspec

LENGTH = struct.Struct("<I")
# Slots have 64 KiB at least.
ANSWER_AT = 16 * 1024
ANSWER_BYTES = 48 * 1024 - LENGTH.size


class Why(enum.StrEnum):
    """Why a store does not do what it is asked."""

    FULL = "full"
    DENIED = "denied"
    ADD_DISABLED = "add-disabled"
    DUPLICATE = "duplicate"
    BUSY = "busy"
    NOT_THERE = "not-there"
    IN_USE = "in-use"
    GONE = "gone"
    WRONG_OFFSET = "wrong-offset"
    WRONG_SIZE = "wrong-size"
    WRONG_CHECKSUM = "wrong-checksum"
    WRONG_FORMAT = "wrong-format"
    NOT_ALLOWED = "not-allowed"
    UNREACHABLE = "unreachable"


class Receive(msgspec.Struct, tag=True, frozen=True):
    """Begin to take an image in, or go on at `offset` with one whose upload was interrupted.

    `size` is the whole image's, None if nobody has said. When `keep`, what has come stays when the session ends
    without having been rolled back. `catalogue` is the registry that will know it: several may share a directory.
    Without `digests` nothing is hashed. `upload` is the token by which the registry knows the upload.
    """

    image: str
    hash_algo: str
    catalogue: str = ""
    offset: int = 0
    size: int | None = None
    keep: bool = False
    digests: bool = True
    upload: str = ""


class Receiving(msgspec.Struct, tag=True, frozen=True):
    """The answer: the session."""

    session: int


class Publish(msgspec.Struct, tag=True, frozen=True):
    """All bytes have come: check them against what was announced, make them durable, and let everybody see them.

    Whatever the answer, the session is over, and unless it is Published nothing is left of it.
    """

    session: int
    size: int | None = None
    md5: str | None = None
    disk_format: str | None = None
    container_format: str | None = None
    backing_files: bool = False


class Published(msgspec.Struct, tag=True, frozen=True):
    """The answer; digests are in hexadecimal, None if there are none, sizes in bytes."""

    uri: str
    metadata: dict[str, Any]
    size: int
    md5: str | None
    hash_value: str | None
    virtual_size: int | None
    volume: str = ""


class Keep(msgspec.Struct, tag=True, frozen=True):
    """The image goes on with another body: end the session, and keep what has come. The answer is Kept."""

    session: int


class Clone(msgspec.Struct, tag=True, frozen=True):
    """Take the image's next bytes, `most` of data, from another file of this host, as the kernel knows how: it is at
    `uri` in any file store, and has `size` bytes. Of a session without digests. The answer is Cloned.
    """

    session: int
    uri: str
    size: int
    most: int


class Cloned(msgspec.Struct, tag=True, frozen=True):
    """So many bytes of the image are there now: some of what was asked at least."""

    offset: int


class Look(msgspec.Struct, tag=True, frozen=True):
    """How much of an interrupted upload is there? The answer is Kept."""

    image: str


class Kept(msgspec.Struct, tag=True, frozen=True):
    """So many bytes, durably; None if there is no such upload."""

    offset: int | None


class Forget(msgspec.Struct, tag=True, frozen=True):
    """Drop what an interrupted upload has left. The answer is Done."""

    image: str


class Prepare(msgspec.Struct, tag=True, frozen=True):
    """Make room for an image of `size` bytes that is written at random, by an export of its own.

    The answer is Prepared. It stays until Finish, or Forget.
    """

    image: str
    size: int
    catalogue: str = ""


class Prepared(msgspec.Struct, tag=True, frozen=True):
    """The answer: the file that is to be written."""

    path: str


class Finish(msgspec.Struct, tag=True, frozen=True):
    """What was prepared is whole, and nobody writes any more: read it for its digests, and go on as Publish does.

    The answer is Published, also when it is asked again after that; unless it is, nothing is left.
    """

    image: str
    hash_algo: str
    size: int
    catalogue: str = ""
    disk_format: str | None = None
    container_format: str | None = None
    backing_files: bool = False


class Remove(msgspec.Struct, tag=True, frozen=True):
    """Remove the bytes at a location; it is no error if there are none. The answer is Done."""

    uri: str


class Abandon(msgspec.Struct, tag=True, frozen=True):
    """Remove what an upload that never comes to its end has left at a location. The answer is Done."""

    uri: str


class Find(msgspec.Struct, tag=True, frozen=True):
    """Is there anything at a location? The answer is Found; of a URL, what its server says of it just now."""

    uri: str


class Found(msgspec.Struct, tag=True, frozen=True):
    """So many bytes; None if there is nothing. `version` and `unsized` of a source at a URL: see ImageFacts."""

    size: int | None
    version: str = ""
    unsized: bool = False


class Done(msgspec.Struct, tag=True, frozen=True):
    """It is done."""


class Sweep(msgspec.Struct, tag=True, frozen=True):
    """Remove what no upload can go on with any more: older than `keep_s`, or left by a crash. The answer is Swept.

    Only what was published for this `catalogue` is told.
    """

    keep_s: float
    catalogue: str = ""


class Unconfirmed(msgspec.Struct, frozen=True):
    """An image that was published, or begun if it is not `whole`, so long ago; whether it was registered, or still may
    be by the upload with the token `upload`, only the registry knows.

    Or, with `scattered`, one that is written at random, if it is still wanted: then `uri` is of the part.
    """

    image: str
    uri: str
    age_s: float
    volume: str = ""
    upload: str = ""
    whole: bool = True
    scattered: bool = False


class Swept(msgspec.Struct, tag=True, frozen=True):
    """How many files went, and what the registry is to be asked about: Confirm, Abandon or Forget follows for each."""

    removed: int
    unconfirmed: list[Unconfirmed]


class Confirm(msgspec.Struct, tag=True, frozen=True):
    """The image is registered: nothing is to be remembered of its upload any more. The answer is Done."""

    image: str
    uri: str


class Refused(msgspec.Struct, tag=True, frozen=True):
    """The answer when it cannot be; `message` is one sentence for the client. `offset` with WRONG_OFFSET."""

    why: Why
    message: str
    offset: int = 0


Question = (
    Receive | Publish | Clone | Keep | Look | Forget | Prepare | Finish | Remove | Abandon | Find | Sweep | Confirm
)
Answer = Receiving | Published | Cloned | Kept | Prepared | Found | Done | Swept | Refused


class NoQuestion(Exception):
    """What stands in the slot is no question."""


def ask(view: memoryview, question: Question) -> None:
    """Write the question into a slot."""
    _put(view, 0, ANSWER_AT - LENGTH.size, question)


def asked_in(view: memoryview) -> Question:
    """The question in a slot. Raises NoQuestion."""
    try:
        question: Question = msgspec.msgpack.decode(_taken(view, 0, ANSWER_AT - LENGTH.size), type=Question)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NoQuestion(str(error)) from error
    return question


def answer(view: memoryview, given: Answer) -> None:
    """Write the answer into the slot."""
    _put(view, ANSWER_AT, ANSWER_BYTES, given)


def answer_in(view: memoryview) -> Answer:
    """The answer in the slot of a job that has ended well. Raises msgspec.MsgspecError where there is none."""
    given: Answer = msgspec.msgpack.decode(_taken(view, ANSWER_AT, ANSWER_BYTES), type=Answer)
    return given


def _put(view: memoryview, at: int, most: int, message: msgspec.Struct) -> None:
    data = msgspec.msgpack.encode(message)
    if len(data) > most:
        raise ValueError(f"a {type(message).__name__} of {len(data)} bytes, {most} have room")
    LENGTH.pack_into(view, at, len(data))
    view[at + LENGTH.size : at + LENGTH.size + len(data)] = data


def _taken(view: memoryview, at: int, most: int) -> bytes:
    length = min(LENGTH.unpack_from(view, at)[0], most)
    return bytes(view[at + LENGTH.size : at + LENGTH.size + length])

"""Library images as objects of a store: how they come, how they go, and what is removed after a crash.

PREFIX.mover/IMAGE.TOKEN      the record of an upload: who writes it, and for which registry; there before any byte is,
        │                     and until the image is registered
        ▼
PREFIXIMAGE.TOKEN             the image, seen as a whole

Each upload has a name of its own: two hosts that upload one image do not meet, and the registry says who has won.
"""

from __future__ import annotations

import errno
import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from config.store_settings import ObjectStore
from config.stores import IMAGE_NAME, object_of, uri_of_object
from workers.image.plan import ZEROS
from workers.lane.store_format import Swept, Unconfirmed, Why
from workers.store.backing import Location, Part, Refusal
from workers.store.objects.kinds import open_objects
from workers.store.objects.objects import Objects, Writer
from workers.store.objects.processes import is_dead, writer

T = TypeVar("T")

RECORDS = ".mover/"
MIB = 1024 * 1024
# What is kept of an image for who looks at its headers: a VMDK's descriptor has 1 MiB at most, and all else is nearer.
HEAD_BYTES, TAIL_BYTES = 2 * MIB, 64 * 1024
# As many names as an answer has room for; the next sweep finds the others.
UNCONFIRMED_MOST = 64


class Record(msgspec.Struct, frozen=True):
    """`writer` is the process that sends the bytes, `catalogue` the registry that is to know the image, and `upload`
    the token by which it knows the upload: whoever has lost that can make nothing of the bytes any more.
    """

    writer: str
    catalogue: str = ""
    upload: str = ""


class ObjectPart:
    """An object that nobody knows yet. Its bytes are sent in their order; `write` waits for its turn."""

    rereads = False

    def __init__(self, objects: Objects, name: str, upload: Upload, size: int | None) -> None:
        self._objects = objects
        self._name = name
        self._upload = upload
        self._size = size
        self._writer: Writer | None = None
        self._turn = threading.Condition()
        self._at = 0
        self._error: OSError | None = None
        self._head, self._tail = bytearray(), b""
        self._published = False

    def write(self, buffer: memoryview, offset: int) -> None:
        """Send the next bytes. Raises OSError, and for all that come after them, too."""
        with self._turn:
            self._turn.wait_for(lambda: self._error is not None or self._at == offset)
            try:
                if self._error is not None:
                    raise OSError(self._error.errno, self._error.strerror)
                self._send(bytes(buffer))
            except OSError as error:
                self._error = error
                raise
            finally:
                self._turn.notify_all()

    def zero(self, offset: int, length: int) -> None:
        """An object has no holes. Raises OSError as `write` does."""
        for at in range(0, length, len(ZEROS)):
            self.write(ZEROS[: length - at], offset + at)

    def _send(self, data: bytes) -> None:
        if self._writer is None:
            self._writer = self._objects.begin(self._name, self._size)
        self._writer.write(data)
        self._at += len(data)
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        self._tail = (self._tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]

    def read(self, buffer: memoryview, offset: int) -> None:
        """Bytes of the image's beginning or end. Raises Refusal for others."""
        end, tail_at = offset + len(buffer), self._at - len(self._tail)
        if end <= len(self._head):
            buffer[:] = self._head[offset:end]
        elif offset >= tail_at:
            buffer[:] = self._tail[offset - tail_at : end - tail_at]
        else:
            raise Refusal(
                Why.WRONG_FORMAT, f"the image is refused: its header goes beyond the first {HEAD_BYTES} bytes"
            )

    def fileno(self) -> None:
        """There is no file."""

    def keep(self, offset: int, size: int | None) -> None:
        """Raises OSError: nobody can begin again in the middle of an object."""
        raise OSError(errno.EOPNOTSUPP, "an upload to this store cannot be kept")

    def publish(self, size: int) -> Location:
        """End the upload, and see that all of it is there."""
        objects = self._objects
        try:
            if self._writer is None:
                objects.write(self._name, b"")
            else:
                self._writer.close()
            self._published = True
            found = objects.size(self._name)
        except OSError as error:
            raise objects.refusal(error) from error
        if found != size:
            raise Refusal(Why.GONE, f"store {objects.store.id} has {found} bytes of the image's {size}: send it again")
        return Location(uri_of_object(objects.store, self._name), {})

    def close(self) -> None:
        """What is not published nobody can go on with."""
        if not self._published:
            self.drop()

    def drop(self) -> None:
        """Remove the parts, or the object; the record goes last. Raises OSError; a sweep does it then."""
        if self._writer is not None:
            self._writer.stop()
        self._objects.end(self._name)
        self._objects.delete(self._upload.path)


class Upload(msgspec.Struct, frozen=True):
    """An upload's record, and where it lies."""

    path: str
    record: Record

    def begun(self, objects: Objects) -> None:
        """Remember it."""
        objects.write(self.path, msgspec.json.encode(self.record))


class ObjectBacking:
    """One bucket, container or directory, or what has a prefix in it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._known: Objects | None = None

    def _ask(self, question: Callable[[Objects], T]) -> T:
        """What the store answers. Raises Refusal. Credentials are read again after they were refused."""
        objects = self._known = self._known or open_objects(self._store)
        try:
            return question(objects)
        except OSError as error:
            self._known = None
            raise objects.refusal(error) from error

    # -- uploads ---------------------------------------------------------------------------------------------

    def begin(self, image: str, size: int | None, catalogue: str, upload: str = "") -> Part:
        """A new object's upload. The record is the first thing that needs the credentials."""
        if self._store.read_only:
            raise Refusal(Why.ADD_DISABLED, f"store {self._store.id} takes no new images")
        if not IMAGE_NAME.fullmatch(image) or len(image) > 100:
            raise Refusal(Why.NOT_THERE, f"{image[:80]!r} can be no image's id")
        name = f"{image}.{secrets.token_hex(8)}"
        path = f"{self._store.prefix}{RECORDS}{name}"
        begun = Upload(path, Record(writer(os.getpid()), catalogue, upload=upload))

        def start(objects: Objects) -> Part:
            begun.begun(objects)
            return ObjectPart(objects, self._store.prefix + name, begun, size)

        return self._ask(start)

    def resume(self, image: str, offset: int, size: int | None) -> Part:
        """Raises Refusal."""
        raise Refusal(Why.WRONG_OFFSET, f"store {self._store.id} keeps no parts of images: begin at 0", 0)

    def kept(self, image: str) -> int | None:
        """Nothing ever is."""
        return None

    def forget(self, image: str) -> None:
        """There is nothing to forget."""

    # -- images ----------------------------------------------------------------------------------------------

    def remove(self, uri: str) -> None:
        """Remove the object, and what was remembered of it."""
        name = object_of(self._store, uri)
        if name is None:
            raise Refusal(Why.NOT_THERE, f"{uri} is no location of store {self._store.id}")
        if self._store.read_only:
            raise Refusal(Why.DENIED, f"store {self._store.id} removes no images")

        def remove(objects: Objects) -> None:
            objects.remove(name)
            objects.delete(self._record_of(name))

        self._ask(remove)

    def abandon(self, uri: str) -> None:
        """End the upload of the object at `uri`, and remove the object if there is one."""
        name = object_of(self._store, uri)
        if name is None or self._store.read_only:
            return

        def end(objects: Objects) -> None:
            objects.end(name)
            objects.delete(self._record_of(name))

        self._ask(end)

    def size(self, uri: str) -> int | None:
        """The object's size."""
        name = object_of(self._store, uri)
        return None if name is None else self._ask(lambda objects: objects.size(name))

    def confirm(self, image: str, uri: str) -> None:
        """Remove the record of what is registered at `uri`."""
        name = object_of(self._store, uri)
        if name is not None:
            self._ask(lambda objects: objects.delete(self._record_of(name)))

    def _record_of(self, name: str) -> str:
        prefix = self._store.prefix
        return f"{prefix}{RECORDS}{name.removeprefix(prefix)}"

    # -- after crashes ---------------------------------------------------------------------------------------

    def sweep(self, keep_s: float, catalogue: str) -> Swept:
        """Look at each record: there is one for each upload under way, and for each that a crash has left."""
        return self._ask(lambda objects: self._sweep(objects, keep_s, catalogue))

    def _sweep(self, objects: Objects, keep_s: float, catalogue: str) -> Swept:
        removed, unconfirmed = 0, list[Unconfirmed]()
        prefix = f"{self._store.prefix}{RECORDS}"
        # In any order: of more than an answer has room for, each has its turn sooner or later.
        paths = list(objects.names(prefix))
        random.shuffle(paths)
        for path in paths:
            name = self._store.prefix + path.removeprefix(prefix)
            record, age_s = _record(objects, path)
            if record is None or record.catalogue != catalogue:
                continue
            whole = objects.size(name) is not None
            if not whole and (is_dead(record.writer) or age_s > max(keep_s, LONGEST_UPLOAD_S)):
                objects.end(name)
                objects.delete(path)
                removed += 1
            elif (whole or record.upload) and len(unconfirmed) < UNCONFIRMED_MOST:
                image, uri = path.removeprefix(prefix).rpartition(".")[0], uri_of_object(self._store, name)
                unconfirmed.append(Unconfirmed(image, uri, age_s, upload=record.upload, whole=whole))
        return Swept(removed, unconfirmed)


# Of an upload that its registry does not know by a token only its age is known.
LONGEST_UPLOAD_S = 7 * 86400.0


def _record(objects: Objects, path: str) -> tuple[Record | None, float]:
    """A record and its age; None if it has gone meanwhile, or is none."""
    try:
        changed = objects.attempt(lambda: objects.operator.stat(path)).last_modified
        record = msgspec.json.decode(objects.read(path), type=Record)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None, 0.0
    return record, max(0.0, time.time() - changed.timestamp()) if changed is not None else 0.0

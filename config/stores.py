"""The stores of library images that the configuration names: `[[store]]`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from config.errors import ConfigError, shown
from config.export import OF_LIBRARY, Export
from config.store_settings import FileStore, ObjectStore, S3Store, Store, SwiftStore

_PRIORITY = re.compile(r"(.+):(\d{1,9})")
SCHEMES = ("file", "filesystem")
# By which a client may ask for the first store of a type; "hdfs" is VISOR's word.
SCHEMES_OF = {
    "file": SCHEMES,
    "s3": ("s3",),
    "swift": ("swift",),
    "webhdfs": ("webhdfs", "hdfs"),
    "http": ("http", "https"),
}
# An image's id. Names that begin with a dot are those of what is not an image yet.
IMAGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# Beside its name, with a dot before, while it is not there yet.
PART = ".mover-part"
# Owner's read bit: without it the store could not serve what it keeps.
_OWNER_READS = 0o400


class Directory(NamedTuple):
    """One directory of a file store; a higher priority is filled first."""

    path: str
    priority: int


def stores_of_table(tables: object, where: str) -> list[Store]:
    """The stores of a TOML file's `[[store]]` tables. Raises ConfigError."""
    try:
        stores = msgspec.convert(tables, list[Store])
    except msgspec.ValidationError as error:
        why = (
            f'{error}: each needs an `id`, and either type = "file" and `directories`, a list of "PATH" or '
            '"PATH:PRIORITY"; or type = "s3", `endpoint` and `bucket`; or type = "swift", `auth_url` and `container`; '
            'or type = "webhdfs", `endpoint` and `directory`; or type = "http"'
        )
        raise ConfigError(where, "[[store]]", why) from error
    ids = [store.id for store in stores]
    for store in stores:
        check_store(store, where)
        if ids.count(store.id) > 1:
            raise ConfigError(where, f"store {shown(store.id)}", "is given twice: choose another id for one of them")
    return stores


def directories(store: FileStore) -> list[Directory]:
    """The store's directories, the highest priority first; a repeated one counts once."""
    found = sorted(_directories(store), key=lambda one: -one.priority)
    return list(dict.fromkeys(found))


def _directories(store: FileStore) -> Iterator[Directory]:
    for text in store.directories:
        match = _PRIORITY.fullmatch(text)
        path, priority = (match[1], int(match[2])) if match else (text, 0)
        yield Directory(os.path.normpath(path), priority)


def path_of(store: FileStore, uri: str) -> str | None:
    """The file that a location of this store names; None if it names none of its images."""
    scheme, mark, path = uri.partition("://")
    directory, _, name = path.rpartition("/")
    known = any(one.path == directory for one in directories(store))
    return path if mark and scheme in SCHEMES and known and IMAGE_NAME.fullmatch(name) else None


def uri_of(path: str) -> str:
    """The location of a file: not percent-encoded, as Glance writes it."""
    return f"file://{path}"


def object_of(store: ObjectStore, uri: str) -> str | None:
    """The name of the object that a location of this store names; None if it names none of its images."""
    start = uri_of_object(store, store.prefix)
    name = uri[len(start) :] if uri.startswith(start) else ""
    return store.prefix + name if IMAGE_NAME.fullmatch(name) else None


def uri_of_object(store: ObjectStore, name: str) -> str:
    """The location of an object. Which server has it the store's settings say, and never who may ask it."""
    if isinstance(store, S3Store):
        return f"s3://{store.bucket}/{name}"
    if isinstance(store, SwiftStore):
        return f"swift://{store.container}/{name}"
    return f"webhdfs://{store.directory}/{name}"


def store_named(stores: Iterable[Store], name: str) -> Store | None:
    """The store of this id, or else the first one of the kind that the name is a scheme of."""
    found = list(stores)
    kinds = (store for store in found if name in SCHEMES_OF[type_of(store)])
    return next((store for store in found if store.id == name), None) or next(kinds, None)


def type_of(store: Store) -> str:
    """The `type` that stands in the configuration."""
    return str(store.__struct_config__.tag)


def is_of_stores(export: Export, stores: Iterable[Store]) -> bool:
    """Whether one of these stores has what an export of the library names, as far as names can say."""
    if export.transport == "http":
        return True  # its worker judges the URL, by the settings' rules
    if export.transport == "store":
        return any(store.id == export.name for store in stores)
    if export.transport == "object":
        ours = [store for store in stores if store.id == export.name and isinstance(store, ObjectStore)]
        return any(object_of(store, uri_of_object(store, export.path)) for store in ours)
    # Only as a file that is read only: `frozen` alone would make a library's of any socket, host or whole file.
    if export.transport not in OF_LIBRARY and (export.transport != "file" or export.whole_file):
        return False
    files = [store for store in stores if isinstance(store, FileStore)]
    path = _image_of(export.path) if export.transport == "part" else export.path
    return path is not None and any(path_of(store, uri_of(path)) for store in files)


def part_of(path: str) -> str:
    """Where an image's bytes are until it is published there."""
    directory, image = os.path.split(path)
    return os.path.join(directory, f".{image}{PART}")


def _image_of(part: str) -> str | None:
    """Where an image is to be whose part this is."""
    directory, name = os.path.split(part)
    image = name.removeprefix(".").removesuffix(PART)
    return os.path.join(directory, image) if part_of(os.path.join(directory, image)) == part else None


def check_store(store: Store, where: str) -> None:
    """Raises ConfigError for what each setting allows, and both together do not."""
    if isinstance(store, FileStore):
        _check_file_store(store, where)
    elif isinstance(store, ObjectStore) and store.credentials_file and not os.path.isabs(store.credentials_file):
        what = f"store {shown(store.id)}, credentials_file = {shown(store.credentials_file)}"
        raise ConfigError(where, what, "must be an absolute path")


def _check_file_store(store: FileStore, where: str) -> None:
    what = f"store {shown(store.id)}"
    paths = [one.path for one in directories(store)]
    for path in paths:
        if not os.path.isabs(path) or "\0" in path:
            raise ConfigError(where, f"{what}, directory {shown(path)}", "must be an absolute path")
        if paths.count(path) > 1:
            raise ConfigError(where, f"{what}, directory {shown(path)}", "is given two priorities: choose one")
    mode = int(store.file_mode, 8)
    if mode and not mode & _OWNER_READS:
        why = 'must let the owner read, like "0640"; "0" leaves it to the umask'
        raise ConfigError(where, f"{what}, file_mode = {shown(store.file_mode)}", why)

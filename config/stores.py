"""The stores of library images that the configuration names: `[[store]]`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from config.errors import ConfigError, shown
from config.export import Export
from config.settings import FileStore, S3Store, Store

_PRIORITY = re.compile(r"(.+):(\d{1,9})")
SCHEMES = ("file", "filesystem")
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
            '"PATH:PRIORITY", or type = "s3", `endpoint` and `bucket`, or type = "http"'
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


def object_of(store: S3Store, uri: str) -> str | None:
    """The name of the object that a location of this store names; None if it names none of its images."""
    start = uri_of_object(store, store.prefix)
    return (
        store.prefix + uri[len(start) :] if uri.startswith(start) and IMAGE_NAME.fullmatch(uri[len(start) :]) else None
    )


def uri_of_object(store: S3Store, name: str) -> str:
    """The location of an object. Which server has it the store's settings say, and never who may ask it."""
    return f"s3://{store.bucket}/{name}"


def is_of_stores(export: Export, stores: Iterable[Store]) -> bool:
    """Whether one of these stores has what an export of the library names, as far as names can say."""
    if export.transport == "http":
        return True  # its worker judges the URL, by the settings' rules
    if export.transport == "store":
        return any(store.id == export.name for store in stores)
    if export.transport == "object":
        ours = [store for store in stores if store.id == export.name and isinstance(store, S3Store)]
        return any(object_of(store, uri_of_object(store, export.path)) for store in ours)
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
    elif isinstance(store, S3Store) and store.credentials_file and not os.path.isabs(store.credentials_file):
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

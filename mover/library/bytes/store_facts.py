"""What a store can do, and where it is, as clients are told; never who may use it."""

from __future__ import annotations

from collections.abc import Mapping

from config.store_settings import FileStore, HttpStore, S3Store, SwiftStore
from config.store_settings import Store as StoreSettings
from config.stores import SCHEMES_OF, type_of
from mover.library.seam import Store

READ = ("read", "read-at-random")
WRITE = ("write", "delete")
RESUME = ("resume",)


def shown(store: StoreSettings, default: bool) -> Store:
    """The store, as a Carrier tells of it."""
    return Store(
        id=store.id,
        description=store.description,
        default=default,
        read_only=store.read_only,
        type=type_of(store),
        schemes=SCHEMES_OF[type_of(store)],
        capabilities=capabilities(store),
        properties=properties(store),
    )


def keeps_parts(store: StoreSettings) -> bool:
    """Whether an upload that breaks off can go on: what a server has of one is not known to its last byte."""
    return isinstance(store, FileStore)


def capabilities(store: StoreSettings) -> tuple[str, ...]:
    """Words for what it does."""
    if store.read_only:
        return READ
    return READ + WRITE + (RESUME if keeps_parts(store) else ())


def properties(store: StoreSettings) -> Mapping[str, str | int | bool]:
    """Where it is, and how it is written."""
    if isinstance(store, FileStore):
        return {
            "data_dir": ",".join(store.directories),
            "chunk_size": store.chunk_bytes,
            "thin_provisioning": store.thin,
        }
    if isinstance(store, S3Store):
        return {"endpoint": store.endpoint, "bucket": store.bucket, "large_object_chunk_size": store.part_bytes}
    if isinstance(store, SwiftStore):
        return {"container": store.container, "large_object_chunk_size": store.part_bytes}
    if isinstance(store, HttpStore):
        return {}
    return {"endpoint": store.endpoint, "directory": store.directory, "chunk_size": store.part_bytes}

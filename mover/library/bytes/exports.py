"""Which export shows the bytes of an image: in its store, at its location, or as the disk in it."""

from __future__ import annotations

from config.export import Export
from config.store_settings import FileStore, HttpStore, Store
from config.stores import object_of, path_of
from mover.library.records import Location
from mover.library.seam import DiskRefused

# Images that have a disk inside, which a qemu-nbd of the worker's shows (workers/store/views/server.py).
VIEW_FORMATS = frozenset({"qcow2", "vmdk", "vdi", "vhd", "vhdx"})


def view_of(image: Export, disk_format: str) -> Export:
    """The disk in an image."""
    if image.transport != "file":
        raise DiskRefused(f"the disk in a {disk_format} image can be read from a file store only: copy it to one first")
    return Export("view", name=disk_format, path=image.path)


def of_image(store: Store, image_id: str) -> Export:
    """The worker that an image is written by, and that is asked about it; without an id, about the whole store."""
    return Export("store", name=store.id, path=image_id)


def export_of(store: Store, location: Location) -> Export | None:
    """Where an image is read; None if the location is none of the store's."""
    uri = location.uri
    if isinstance(store, HttpStore):
        return Export("http", path=uri, version=str(location.metadata.get("version", "")))
    if isinstance(store, FileStore):
        path = path_of(store, uri)
        return None if path is None else Export("file", path=path, frozen=True)
    name = object_of(store, uri)
    return None if name is None else Export("object", name=store.id, path=name)

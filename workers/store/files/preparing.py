"""What a file store needs before it is used: its directories, and who may enter them."""

from __future__ import annotations

import errno
import os

from config.store_settings import FileStore
from config.stores import directories
from config.volumes import name_volume
from workers.store.files import mountpoints


def prepare(store: FileStore) -> None:
    """Make the store's directories, name them, and let those in who may read its files. Raises OSError, Refusal."""
    mode = int(store.file_mode, 8)
    passable = (0o010 if mode & 0o070 else 0) | (0o001 if mode & 0o007 else 0)
    for path, _ in directories(store):
        os.makedirs(path, 0o750, exist_ok=True)
        found = os.stat(path).st_mode
        if passable & ~found:
            os.chmod(path, (found | passable) & 0o7777)
        if not store.read_only and not os.access(path, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, "cannot be written", path)
        if not store.read_only:
            name_volume(path)
        mountpoints.metadata(store.metadata_file, path)

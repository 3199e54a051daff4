"""Points in time of disks, kept in a directory: taken, verified, restored, pruned (docs/backup.md).

Read repository.py, which points there are, with manifest.py, what is known of one; then taking.py, how one comes to be,
reader.py, how it is read through its chain, restoring.py and pruning.py.
"""

from mover.backup.errors import (
    BackupError,
    BusyError,
    ChangesUnknown,
    Damage,
    DamagedError,
    NoSuchPoint,
    RepositoryError,
)
from mover.backup.manifest import Manifest
from mover.backup.pruning import Keep, Pruned, prune
from mover.backup.repository import Disk, Repository
from mover.backup.restoring import restore_to_file
from mover.backup.taking import Taken, Wish, back_up
from mover.backup.uploading import restore_to_server
from mover.backup.verifying import verify

__all__ = [
    "BackupError",
    "BusyError",
    "ChangesUnknown",
    "Damage",
    "DamagedError",
    "Disk",
    "Keep",
    "Manifest",
    "NoSuchPoint",
    "Pruned",
    "Repository",
    "RepositoryError",
    "Taken",
    "Wish",
    "back_up",
    "prune",
    "restore_to_file",
    "restore_to_server",
    "verify",
]

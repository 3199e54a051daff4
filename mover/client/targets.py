"""Which target a path means."""

from __future__ import annotations

import stat
from pathlib import Path

from mover.client.errors import LocalError
from mover.client.file_target import DeviceTarget, RawTarget
from mover.client.qcow2_target import Qcow2Target
from mover.client.target import Target


def open_target(path: Path, image_format: str) -> Target:
    """The target that `path` means. Raises LocalError."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        raise LocalError.from_os(path, "opening", error) from error
    if stat.S_ISBLK(mode):
        if image_format != "raw":
            raise LocalError(path, "writing", "a block device takes raw images only", "use --format raw")
        return DeviceTarget(path)
    if mode and not stat.S_ISREG(mode):
        raise LocalError(path, "writing", "it is neither a file nor a block device", "name another one")
    return RawTarget(path) if image_format == "raw" else Qcow2Target(path)

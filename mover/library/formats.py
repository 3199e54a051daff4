"""The values of disk and container formats, and the rule of Amazon's kernels and ramdisks."""

from __future__ import annotations

from mover.library.errors import ApiError

DISK_FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop")
CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")

_AMAZON = ("ami", "ari", "aki")


def check_formats(disk: str | None, container: str | None) -> tuple[str | None, str | None]:
    """Both formats, one of Amazon's copied to the other if that is absent. Raises ApiError 400."""
    if disk is not None and disk not in DISK_FORMATS:
        raise ApiError(400, f"Invalid disk format '{disk[:80]}' for image.")
    if container is not None and container not in CONTAINER_FORMATS:
        raise ApiError(400, f"Invalid container format '{container[:80]}' for image.")
    if disk in _AMAZON and container is None:
        container = disk
    if container in _AMAZON and disk is None:
        disk = container
    if (disk in _AMAZON or container in _AMAZON) and disk != container:
        raise ApiError(
            400,
            "Invalid mix of disk and container formats. When setting a disk or container format to one of "
            "'aki', 'ari', or 'ami', the container and disk formats must match.",
        )
    return disk, container


def check_complete(disk: str | None, container: str | None) -> None:
    """Raise ApiError 400 unless both formats are there: no data without them."""
    if disk is None or container is None:
        raise ApiError(400, "Properties disk_format, container_format must be set prior to saving data.")

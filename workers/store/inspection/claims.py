"""Whether an image is what it was said to be, and how large the disk in it is; looked at once, before it is seen."""

from __future__ import annotations

import os
from typing import Protocol

import msgspec

from workers.lane.store_format import Why
from workers.store.backing import Refusal
from workers.store.inspection.headers import BadImage, Format, Header, Read, has_vhd_footer, look
from workers.store.inspection.qemu_img import Unreadable, info
from workers.store.inspection.sizes import said_size

# What each disk_format may be found to be. Amazon's three are raw disks, kernels and ramdisks; an ISO image that boots
# from a disk is one of each.
MAY_BE = {
    "raw": {Format.RAW, Format.ISO},
    "ami": {Format.RAW, Format.ISO},
    "aki": {Format.RAW},
    "ari": {Format.RAW},
    "iso": {Format.ISO},
    "qcow2": {Format.QCOW2},
    "vmdk": {Format.VMDK},
    "vhd": {Format.VHD},
    "vhdx": {Format.VHDX},
    "vdi": {Format.VDI},
    "ploop": {Format.PLOOP},
}
# Their names in qemu; of a format that is not here the disk is as large as the file, or nobody knows.
QEMU_NAMES = {
    Format.QCOW2: "qcow2",
    Format.VMDK: "vmdk",
    Format.VHD: "vpc",
    Format.VHDX: "vhdx",
    Format.VDI: "vdi",
}
# In other containers the disk is wrapped in something that only its reader knows.
BARE = ("bare", "ami", "aki", "ari")


class Seen(Protocol):
    """What is inspected: a Part is, and so is an image that was published."""

    def read(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer`."""

    def fileno(self) -> int | None:
        """A descriptor of the bytes; None if there is none."""


class Declared(msgspec.Struct, frozen=True):
    """What the image's owner says of it, and whether it may name other files."""

    disk_format: str | None
    container_format: str | None
    backing_files: bool


def inspect(part: Seen, size: int, declared: Declared) -> int | None:
    """The virtual size in bytes, None where there is none to be known. Raises Refusal (WRONG_FORMAT), OSError."""
    if declared.disk_format is None or (declared.container_format or "bare") not in BARE:
        return None
    try:
        header = look_as(reader(part, size), size, declared.disk_format)
    except BadImage as bad:
        raise _wrong(f"the image is refused: {bad}") from bad
    allowed = MAY_BE.get(declared.disk_format)
    if allowed is not None and header.format not in allowed:
        raise _wrong(f"the image was declared as {declared.disk_format}, and is {header.format}")
    if header.others is not None and not declared.backing_files:
        raise _wrong(f"the image is refused: it names {header.others}")
    return _virtual_size(part, size, header, declared.backing_files)


def reader(part: Seen, size: int) -> Read:
    """Bytes of the part, fewer where it ends."""

    def read(offset: int, length: int) -> bytes:
        buffer = memoryview(bytearray(max(0, min(length, size - offset))))
        part.read(buffer, offset)
        return bytes(buffer)

    return read


def look_as(read: Read, size: int, disk_format: str) -> Header:
    """What an image is that was declared as this. Raises BadImage."""
    header = look(read, size)
    if disk_format == "vhd" and header.format is Format.RAW and has_vhd_footer(read, size):
        return Header(Format.VHD)
    return header


def _virtual_size(part: Seen, size: int, header: Header, backing_files: bool) -> int | None:
    if header.format in (Format.RAW, Format.ISO):
        return size
    descriptor = part.fileno()
    if descriptor is None:
        return said_size(header.format, reader(part, size), size)
    name = QEMU_NAMES.get(header.format)
    if name is None or (header.others is not None and header.others != "a backing file"):
        return None  # qemu-img would open what it names
    fd = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = info(fd, name)
    except Unreadable as unreadable:
        raise _wrong(f"the image is refused: {unreadable}") from unreadable
    finally:
        os.close(fd)
    if found.names_others and not backing_files:
        raise _wrong("the image is refused: it names another file")
    return found.virtual_size


def _wrong(message: str) -> Refusal:
    return Refusal(Why.WRONG_FORMAT, message)

"""How large the disk in an image is, as its header says: where no file is there for qemu-img to look at."""

from __future__ import annotations

import struct

from workers.store.inspection.headers import SECTOR_BYTES, VHD_FOOTER_BYTES, Format, Read

# Where each format has its disk's size, and in which unit. A VHDX has it in a table that must be found first.
FIELDS = {
    Format.QCOW2: (24, struct.Struct(">Q"), 1),
    Format.VDI: (0x170, struct.Struct("<Q"), 1),
    Format.VMDK: (12, struct.Struct("<Q"), SECTOR_BYTES),
}
VHD_SIZE_AT = 48


def said_size(found: Format, read: Read, size: int) -> int | None:
    """The virtual size in bytes; None where the header does not say."""
    at, field, unit = FIELDS.get(found, (0, struct.Struct(">Q"), 1))
    if found is Format.VHD:
        at = size - VHD_FOOTER_BYTES + VHD_SIZE_AT
    elif found not in FIELDS:
        return None
    data = read(at, field.size)
    return int(field.unpack(data)[0]) * unit if len(data) == field.size else None

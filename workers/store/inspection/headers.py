"""What an image's own bytes say it is, read before any other program is let near it.

Only what could harm its reader is looked at: which format it is, whether it names other files, whether its tables are
larger than any reader should allow for. Sizes come from qemu-img (qemu_img.py).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from enum import StrEnum

import msgspec

Read = Callable[[int, int], bytes]
"""Bytes at an offset, so many; fewer where the image ends."""


class Format(StrEnum):
    """Formats that can be told by their bytes; RAW is what none of the others is."""

    RAW = "raw"
    ISO = "iso"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"
    VDI = "vdi"
    PLOOP = "ploop"
    QCOW = "qcow"
    QED = "qed"


class BadImage(Exception):
    """Nobody should open it; the text says why, for the client."""


class Header(msgspec.Struct, frozen=True):
    """What was found: the format, and whether the image names other files, which its readers would open."""

    format: Format
    others: str | None = None


MAGICS = (
    (0, b"vhdxfile", Format.VHDX),
    (0, b"conectix", Format.VHD),
    (0, b"KDMV", Format.VMDK),
    (0, b"COWD", Format.VMDK),
    (0, b"QED\0", Format.QED),
    (0, b"WithoutFreeSpace", Format.PLOOP),
    (0, b"WithouFreSpacExt", Format.PLOOP),
    (0x40, b"\x7f\x10\xda\xbe", Format.VDI),
    (0x8001, b"CD001", Format.ISO),
    (0x8001, b"BEA01", Format.ISO),
)
LOOKED_AT_BYTES = 0x8001 + 5
# Of a text descriptor: qemu skips comments and blank lines before it looks for this line.
VMDK_DESCRIPTOR = re.compile(rb"\s*(#[^\n]*\n\s*)*#\s*Disk\s+Descriptor\s*File|\s*(#[^\n]*\n\s*)*version=[123]", re.I)

QCOW2_MAGIC = b"QFI\xfb"
# magic version backing_offset backing_size cluster_bits size crypt l1_size l1_offset
# refcount_offset refcount_clusters snapshots snapshots_offset
QCOW2_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
QCOW2_V3 = struct.Struct(">QQQII")  # incompatible compatible autoclear refcount_order header_length
DATA_FILE, KNOWN_FEATURES = 1 << 2, 0b11111
# qemu's own limits: it allocates for both before it reads a byte of them.
L1_ENTRIES_MOST = 4 * 1024 * 1024
SNAPSHOTS_MOST = 65536
REFCOUNT_TABLE_BYTES_MOST = 8 * 1024 * 1024

# magic version flags capacity grain descriptor_offset descriptor_size, in sectors
VMDK_HEADER = struct.Struct("<4sIIQQQQ")
VMDK_TYPES = ("monolithicsparse", "streamoptimized")
VMDK_DESCRIPTOR_MOST = 1024 * 1024
SECTOR_BYTES = 512
EXTENT = re.compile(r'^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\S+)(?:\s+"([^"]*)")?', re.I | re.M)

VHD_FOOTER_BYTES = 512


def look(read: Read, size: int) -> Header:
    """What the image is. Raises BadImage for one that no program should open."""
    start = read(0, LOOKED_AT_BYTES)
    if start[:4] == QCOW2_MAGIC:
        return _qcow2(read, start, size)
    for at, magic, found in MAGICS:
        if start[at : at + len(magic)] == magic:
            return _vmdk(read, start) if found is Format.VMDK else Header(found)
    if VMDK_DESCRIPTOR.match(start[:4096]):
        return Header(Format.VMDK, "its extents, which a descriptor alone names")
    return Header(Format.RAW)


def has_vhd_footer(read: Read, size: int) -> bool:
    """A VHD of fixed size has its data first: only its end tells it from a raw disk."""
    return size >= VHD_FOOTER_BYTES and read(size - VHD_FOOTER_BYTES, 8) == b"conectix"


def _qcow2(read: Read, start: bytes, size: int) -> Header:
    if len(start) < QCOW2_HEADER.size:
        raise BadImage("its qcow2 header is cut")
    _, version, backing, _, bits, virtual, _, l1, l1_at, refcounts_at, refcount_clusters, snapshots, _ = (
        QCOW2_HEADER.unpack_from(start)
    )
    if version == 1:
        return Header(Format.QCOW, "a backing file" if backing else None)
    if version not in (2, 3):
        raise BadImage(f"its qcow2 header has version {version}")
    features = _qcow2_features(start) if version == 3 else 0
    if features & ~KNOWN_FEATURES:
        raise BadImage(f"its qcow2 header has unknown incompatible features {features & ~KNOWN_FEATURES:#x}")
    if not 9 <= bits <= 21:
        raise BadImage(f"its qcow2 clusters have 2^{bits} bytes")
    if l1 > L1_ENTRIES_MOST or virtual >= 1 << 63 or (l1 and l1_at + 8 * l1 > size):
        raise BadImage(f"its qcow2 L1 table of {l1} entries at {l1_at} does not fit into {size} bytes")
    if refcount_clusters << bits > REFCOUNT_TABLE_BYTES_MOST or refcounts_at > size or snapshots > SNAPSHOTS_MOST:
        raise BadImage("its qcow2 refcount or snapshot table is too large")
    if features & DATA_FILE:
        return Header(Format.QCOW2, "an external data file")
    return Header(Format.QCOW2, "a backing file" if backing else None)


def _qcow2_features(start: bytes) -> int:
    if len(start) < QCOW2_HEADER.size + QCOW2_V3.size:
        raise BadImage("its qcow2 header is cut")
    features: int = QCOW2_V3.unpack_from(start, QCOW2_HEADER.size)[0]
    return features


def _vmdk(read: Read, start: bytes) -> Header:
    if start[:4] == b"COWD":
        return Header(Format.VMDK, "the disk that its redo log is for")
    if len(start) < VMDK_HEADER.size:
        raise BadImage("its VMDK header is cut")
    _, _, _, capacity, _, descriptor_at, descriptor_size = VMDK_HEADER.unpack_from(start)
    if not capacity or not descriptor_size:
        return Header(Format.VMDK, "its extents, which its descriptor names")  # qemu opens them then
    length = descriptor_size * SECTOR_BYTES
    if length > VMDK_DESCRIPTOR_MOST:
        raise BadImage(f"its VMDK descriptor has {length} bytes")
    descriptor = read(descriptor_at * SECTOR_BYTES, length).split(b"\0", 1)[0].decode("utf-8", "replace")
    return Header(Format.VMDK, _vmdk_others(descriptor))


def _vmdk_others(descriptor: str) -> str | None:
    """What the embedded descriptor says beyond the one sparse extent that the file itself is."""
    settings = dict(re.findall(r'^\s*(\w+)\s*=\s*"?([^"\n]*?)"?\s*$', descriptor.lower(), re.M))
    if settings.get("createtype") not in VMDK_TYPES:
        raise BadImage(f"its VMDK type is {settings.get('createtype', 'not said')[:40]}, not {' or '.join(VMDK_TYPES)}")
    extents = EXTENT.findall(descriptor)
    if len(extents) != 1 or extents[0][0].upper() != "SPARSE" or "/" in extents[0][1]:
        return "extents in other files"
    if settings.get("parentcid", "ffffffff") != "ffffffff" or "parentfilenamehint" in settings:
        return "a parent"
    return None

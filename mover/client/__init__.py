"""Disk images over HTTP, from the client's side: the library behind `mover download`, `upload` and `backup`.

It imports neither Sanic nor Mover's settings nor its workers: an appliance needs nothing else of Mover to be running.
"""

from mover.client.address import Tls
from mover.client.client import Checksum, Client
from mover.client.errors import (
    BrokenError,
    ChangedError,
    ClientError,
    LocalError,
    LostWritesError,
    ProtocolError,
    RangeError,
    RefusedError,
    UnreachableError,
    VerificationError,
)
from mover.client.extents import Extent
from mover.client.link import Options

__all__ = [
    "BrokenError",
    "ChangedError",
    "Checksum",
    "Client",
    "ClientError",
    "Extent",
    "LocalError",
    "LostWritesError",
    "Options",
    "ProtocolError",
    "RangeError",
    "RefusedError",
    "Tls",
    "UnreachableError",
    "VerificationError",
]

"""Disk images over HTTP, from the client's side: the library behind `mover download`, `upload` and `backup`.

Read client.py, one image by one connection (link.py and wire.py are below it), then download.py and upload.py, whole
jobs: plan.py says in which order, moving.py and crew.py do it, journal.py lets them be gone on with. stream.py is for
pipes, library.py for the image library.

It imports neither Sanic nor Mover's settings nor its workers: an appliance needs nothing else of Mover to be running.
"""

from mover.client.address import Tls
from mover.client.client import Checksum, Client
from mover.client.download import download
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
    UntrustedError,
    VerificationError,
)
from mover.client.extents import Extent
from mover.client.link import Options
from mover.client.measure import Measure, measure
from mover.client.progress import OnProgress, Progress, Report
from mover.client.upload import upload
from mover.client.verification import file_checksum, verify

__all__ = [
    "BrokenError",
    "ChangedError",
    "Checksum",
    "Client",
    "ClientError",
    "Extent",
    "LocalError",
    "LostWritesError",
    "Measure",
    "OnProgress",
    "Options",
    "Progress",
    "ProtocolError",
    "RangeError",
    "RefusedError",
    "Report",
    "Tls",
    "UnreachableError",
    "UntrustedError",
    "VerificationError",
    "download",
    "file_checksum",
    "measure",
    "upload",
    "verify",
]

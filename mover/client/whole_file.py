"""An upload to a server that takes a file only as a whole, as it is: CloudStack's `file` backend."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mover.client.client import Client
from mover.client.errors import LocalError, RangeError
from mover.client.file_target import read_exactly
from mover.client.link import Options
from mover.client.progress import Bandwidth, OnProgress, Report, Tally


def is_whole_file(options: Options) -> bool:
    """Neither extents nor zeros: what is there is a file, and nobody knows what the file means."""
    return not {"extents", "zero"} & options.features


def upload_whole(
    client: Client, path: Path, *, buffer_bytes: int, bandwidth: float | None, progress: OnProgress | None
) -> Report:
    """Replace the server's file by this one, byte for byte, of whatever size and format. It appears when complete."""
    tally = Tally(progress)
    limit = Bandwidth(bandwidth, client.sleep)
    patience = client.patience()
    try:
        with path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise LocalError(path, "upload of", "the image is a file, this is none", "name a file")
            tally.set(phase="data", size=status.st_size, data=status.st_size)
            while True:
                try:
                    _put(client, path, file.fileno(), status.st_size, memoryview(bytearray(buffer_bytes)), limit, tally)
                    break
                except RangeError as error:
                    patience.failed(error)
                    tally.retried()
    except OSError as error:
        raise LocalError.from_os(path, "opening", error, "check the path") from error
    tally.set(phase="done")
    now = tally.now()
    return Report("upload", now.size, now.data, 0, now.retries, now.seconds, True)


def _put(client: Client, path: Path, fd: int, size: int, buffer: memoryview, limit: Bandwidth, tally: Tally) -> None:
    tally.set(done=0)
    with client.writing(0, size, flush=True, whole=True) as connection:
        for at in range(0, size, len(buffer)):
            view = buffer[: min(len(buffer), size - at)]
            read_exactly(path, fd, at, view)
            limit.take(len(view))
            connection.send_pieces(view)
            tally.moved(len(view))
            tally.tell()

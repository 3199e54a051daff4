"""Objects of a bucket on a server that speaks S3; a large one is a multipart upload of OpenDAL's."""

from __future__ import annotations

import opendal
from opendal.file import File

from config.store_settings import S3Store
from workers.store.objects.credentials import read_credentials
from workers.store.objects.objects import Objects, attempt, layered
from workers.store.objects.s3_multipart import abort_uploads
from workers.store.objects.writing import parallel

MIB = 1024 * 1024
# S3's own limit.
PARTS_MOST = 10_000


class S3Objects(Objects):
    """The bucket of a store."""

    store: S3Store

    def __init__(self, store: S3Store) -> None:
        self.credentials = read_credentials(store)
        operator = opendal.Operator(
            "s3",
            bucket=store.bucket,
            endpoint=store.endpoint,
            region=store.region,
            access_key_id=self.credentials["aws_access_key_id"],
            secret_access_key=self.credentials["aws_secret_access_key"],
            disable_config_load="true",
            disable_ec2_metadata="true",
        )
        super().__init__(store, layered(operator))

    def begin(self, name: str, size: int | None) -> MultipartWriter:
        """A multipart upload: nothing is seen of the object before it is completed."""
        length = part_bytes(self.store.part_bytes, size)
        return MultipartWriter(
            attempt(lambda: self.operator.open(name, "wb", chunk=length, concurrent=parallel(length)))
        )

    def end(self, name: str) -> None:
        """An upload's parts go first, then the object."""
        abort_uploads(self.store, self.credentials, name)
        self.delete(name)

    def remove(self, name: str) -> None:
        """One that is whole has no parts."""
        self.delete(name)


class MultipartWriter:
    """A file of OpenDAL's."""

    def __init__(self, file: File) -> None:
        self._file: File | None = file

    def write(self, data: bytes) -> None:
        """The next bytes."""
        file = self._file
        assert file is not None
        attempt(lambda: file.write(data))

    def close(self) -> None:
        """Complete the upload."""
        file = self._file
        assert file is not None
        attempt(file.close)

    def stop(self) -> None:
        """Let go of it: its parts are ended by who removes the object."""
        self._file = None


def part_bytes(least: int, size: int | None) -> int:
    """The size of an upload's parts: not more of them than S3 takes."""
    needed = -(-(size or 0) // PARTS_MOST)
    return max(least, -(-needed // MIB) * MIB)

"""A point that was just stored, read back and compared with its image by the server's checksum."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mover.backup.clusters import Segment, cut_at
from mover.backup.errors import DifferentError
from mover.backup.manifest import Manifest
from mover.backup.parallel import Work, in_threads, new_buffer
from mover.backup.reader import PIECE_BYTES, PointReader
from mover.backup.repository import Disk
from mover.client import Client, VerificationError
from mover.client.blkhash import BlockHashes, Hasher
from mover.client.client import DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES
from mover.client.clusters import CLUSTER_BYTES
from mover.client.progress import Tally
from mover.client.verification import Asked

BLOCK_CLUSTERS = DEFAULT_BLOCK_BYTES // CLUSTER_BYTES


def prove(disk: Disk, chain: Sequence[Manifest], client: Client, tally: Tally) -> None:
    """Raises DifferentError if the newest of the chain is not what the server has; DamagedError, ClientError."""
    with PointReader(disk, chain) as reader:
        theirs = Asked(client, DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES)
        try:
            hashes = BlockHashes(reader.manifest.size_bytes, DEFAULT_ALGORITHM, DEFAULT_BLOCK_BYTES)
            tally.set(phase="checksum", data=reader.data_bytes, done=0)
            in_threads(_blocks(reader), lambda: _hashing(reader, hashes), tally)
            theirs.same_as(hashes, tally.tell, disk.name)
        except VerificationError as error:
            raise DifferentError(disk.name, chain[-1].point, error.found, error.expected) from error
        finally:
            theirs.close()


def _blocks(reader: PointReader) -> list[list[Segment]]:
    """The data of each block of the checksum, of those that have any."""
    data = (segment for segment in reader.segments if segment.layer is not None)
    pieces = cut_at(data, BLOCK_CLUSTERS)
    return [list(group) for _, group in itertools.groupby(pieces, key=lambda piece: piece.first // BLOCK_CLUSTERS)]


def _hashing(reader: PointReader, hashes: BlockHashes) -> Work[list[Segment]]:
    hasher, buffer = Hasher(hashes), new_buffer(PIECE_BYTES)

    def work(pieces: list[Segment]) -> int:
        done = 0
        for piece in pieces:
            view, _ = reader.read(piece, buffer)
            hasher.feed(piece.first * CLUSTER_BYTES, view)
            done += len(view)
        hasher.finish()
        return done

    return work

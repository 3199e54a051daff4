"""A real disk image: files of this host, in an ext4 file system, in qcow2 with holes; and qemu-img's verdicts on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import PIPE, STDOUT, run

from mover.bench import tools
from mover.bench.data import MIB
from mover.bench.errors import ClientError, DifferenceError

# Where a Linux host keeps about a gigabyte of real files; taken in this order until there are enough.
SOURCES = [Path("/usr/lib"), Path("/usr/share"), Path("/usr/bin"), Path("/usr/include")]
QEMU_IMG_SAME, QEMU_IMG_DIFFERENT = 0, 1


def make_disk(qcow2: Path, tree_bytes: int, work: Path) -> int:
    """Make `qcow2` a disk that holds about `tree_bytes` of this host's files; return the disk's size in bytes.

    A third of it stays empty: holes. `work` is a directory for what is needed in between, removed on the way.
    """
    tree, raw = work / "tree", work / "disk.raw"
    copied = copy_files(SOURCES, tree, tree_bytes)
    size_bytes = -(-copied * 3 // 2 // (64 * MIB)) * 64 * MIB
    raw.touch(0o600)
    os.truncate(raw, size_bytes)
    _run(["mkfs.ext4", "-q", "-F", "-d", str(tree), str(raw)])
    shutil.rmtree(tree)
    _run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2)])
    raw.unlink()
    return size_bytes


def copy_files(sources: Sequence[Path], target: Path, limit_bytes: int) -> int:
    """Copy regular files from `sources` below `target` until they hold `limit_bytes` or end; return their bytes."""
    copied = 0
    for file in _regular_files(sources):
        if copied >= limit_bytes:
            break
        # Not one file much larger than all the rest: the tree should be a tree.
        if file.stat().st_size <= limit_bytes // 8:
            copied += file.stat().st_size
            place = target / file.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    return copied


def _regular_files(sources: Sequence[Path]) -> Iterator[Path]:
    for source in sources:
        for directory, _, names in os.walk(source):
            files = (Path(directory, name) for name in names)
            yield from (file for file in files if not file.is_symlink() and file.is_file() and os.access(file, os.R_OK))


def make_empty(qcow2: Path, size_bytes: int) -> Path:
    """Make `qcow2` an empty disk and return it."""
    _run(["qemu-img", "create", "-q", "-f", "qcow2", str(qcow2), str(size_bytes)])
    return qcow2


def zero_range(raw: Path, offset: int, length: int) -> None:
    """Write zeros into a raw image."""
    with raw.open("r+b") as file:
        file.seek(offset)
        while length > 0:
            length -= file.write(bytes(min(length, MIB)))


def compare(first: Path | str, second: Path) -> None:
    """Raise DifferenceError unless both images hold the same bytes.

    They are raw by the suffix .raw, else qcow2; or, as text, an NBD export.
    """
    formats = ["raw" if isinstance(image, str) or image.suffix == ".raw" else "qcow2" for image in (first, second)]
    command = ["qemu-img", "compare", "-f", formats[0], "-F", formats[1], str(first), str(second)]
    status, output = _status(command)
    if status == QEMU_IMG_DIFFERENT:
        raise DifferenceError(f"{Path(first).name} and {second.name} differ: {output}")
    if status != QEMU_IMG_SAME:
        raise ClientError(command, output)


def _run(command: Sequence[str]) -> None:
    status, output = _status(command)
    if status != 0:
        raise ClientError(command, output)


def _status(command: Sequence[str]) -> tuple[int, str]:
    result = run([tools.path(command[0]), *command[1:]], stdout=PIPE, stderr=STDOUT, text=True, check=False)
    return result.returncode, result.stdout.strip()

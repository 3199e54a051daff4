"""Shared memory: what is offered must be sealed, of the right size, and ours to write."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from workers.lane import memory
from workers.lane.memory import SEALS, MemoryRefused


def test_memory_is_the_same_bytes_in_every_mapping_and_begins_as_zeros() -> None:
    fd = memory.create("test", 8192)
    one, other = memory.map_shared(fd, 8192), memory.map_shared(fd, 8192)
    os.close(fd)
    assert bytes(one) == bytes(8192)
    one[8000:8003] = b"abc"
    assert bytes(other[8000:8003]) == b"abc"


def test_memory_can_never_change_its_size() -> None:
    fd = memory.create("test", 8192)
    for size in (0, 4096, 16384):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    os.close(fd)


def test_memory_is_closed_at_exec() -> None:
    fd = memory.create("test", 4096)
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("size", [4096, 8191, 8193, 16384, 0])
def test_another_size_than_was_agreed_is_refused(size: int) -> None:
    fd = memory.create("test", size)
    with pytest.raises(MemoryRefused):
        memory.map_shared(fd, 8192)
    os.close(fd)


@pytest.mark.parametrize("missing", [fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SEAL])
def test_every_seal_is_asked_for(missing: int) -> None:
    """Without one of them the other side could shrink the memory under our feet, which is a SIGBUS."""
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, 4096)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS & ~missing)
    with pytest.raises(MemoryRefused):
        memory.map_shared(fd, 4096)
    os.close(fd)


def test_memory_sealed_against_writing_is_refused_not_an_accident() -> None:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, 4096)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS | fcntl.F_SEAL_WRITE)
    with pytest.raises(MemoryRefused):
        memory.map_shared(fd, 4096)
    os.close(fd)


def test_what_is_no_memfd_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(4096))
    reading, writing = os.pipe()
    file = os.open(tmp_path / "file", os.O_RDWR)
    for fd in (file, reading, writing):
        with pytest.raises(MemoryRefused):
            memory.map_shared(fd, 4096)
        os.close(fd)

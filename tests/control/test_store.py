"""Transfers on disk: whole or not there, and never two Movers' in one place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from config.export import Export
from mover.control.store import Transfer, TransferStore
from mover.serve.errors import CannotStart

ONE = Transfer("one", Export(transport="unix", socket="/a", name="ü", bitmap="b"), 600)


@pytest.fixture
def store(tmp_path: Path) -> TransferStore:
    """An empty store."""
    return TransferStore(str(tmp_path / "state" / "transfers"))


def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "transfers"


def test_what_was_saved_last_is_loaded(store: TransferStore) -> None:
    """One for each id, however long that is; it was used just now."""
    long = Transfer("/" * 255, ONE.export, 5)
    for transfer in (long, Transfer("one", ONE.export, 1), ONE):
        store.save(transfer)
    loaded = dict(store.load())
    assert sorted(loaded, key=lambda transfer: transfer.id) == [long, ONE]
    assert max(loaded.values()) < 5


def test_what_was_forgotten_is_not_loaded(store: TransferStore) -> None:
    """Forgetting it twice is no error."""
    store.save(ONE)
    store.forget("one")
    store.forget("one")
    assert list(store.load()) == []


def test_the_time_of_the_last_use_is_kept(store: TransferStore, tmp_path: Path) -> None:
    """It is the file's; one in the future is now, as when the clock was set back."""
    store.save(ONE)
    store.used([("one", 100.0)])
    [(_, age_s)] = store.load()
    assert 100 <= age_s < 105
    [file] = directory(tmp_path).iterdir()
    os.utime(file, (time.time() + 1000, time.time() + 1000))
    assert list(store.load()) == [(ONE, 0.0)]


def test_a_file_that_was_not_finished_does_not_count(store: TransferStore, tmp_path: Path) -> None:
    """A crash in the middle of writing leaves what was there before, and nothing is left of it."""
    store.save(ONE)
    [file] = directory(tmp_path).iterdir()
    unfinished = file.with_name(file.name + ".new")
    unfinished.write_bytes(b'{"id": "on')
    assert [transfer for transfer, _ in store.load()] == [ONE]
    assert not unfinished.exists()


def test_a_damaged_file_harms_no_other(store: TransferStore, tmp_path: Path) -> None:
    """It is logged, and left for somebody to look at."""
    store.save(ONE)
    (directory(tmp_path) / "damaged.json").write_bytes(b"\xff\x00")
    assert [transfer for transfer, _ in store.load()] == [ONE]
    assert (directory(tmp_path) / "damaged.json").exists()


def test_only_one_has_the_store(store: TransferStore, tmp_path: Path) -> None:
    """The second one cannot start."""
    with pytest.raises(CannotStart, match="another Mover keeps its own there"):
        TransferStore(str(directory(tmp_path)))


def test_nobody_else_may_look(store: TransferStore, tmp_path: Path) -> None:
    """The directory's mode is 0700."""
    assert directory(tmp_path).stat().st_mode & 0o777 == 0o700

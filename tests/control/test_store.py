"""Tickets on disk: whole or not there, and never two Movers' in one place."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from config.export import Export
from mover.control.store import FILE, Kept, TicketStore, Use
from mover.serve.errors import CannotStart
from mover.serve.messages import Token

EXPORT = Export(transport="unix", socket="/a", name="ü", bitmap="b")
ONE = Kept("one", EXPORT, 600, "imageio", "nbd:unix:/a", ("read",), 1 << 40, "t", "f", True, True, 5, Token(b"s", b"d"))
NOW = 1_700_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> TicketStore:
    """An empty store."""
    return TicketStore(str(tmp_path))


def reopened(store: TicketStore, tmp_path: Path) -> TicketStore:
    """The store as the next service finds it."""
    store.close()
    return TicketStore(str(tmp_path))


def test_what_was_saved_last_is_loaded(store: TicketStore, tmp_path: Path) -> None:
    """One for each id, with all that was said of it, and with a number that no other one ever has."""
    long = Kept("/" * 255, EXPORT, 5)
    numbers = [store.save(kept, NOW) for kept in (long, Kept("one", EXPORT, 1), ONE)]
    rows = reopened(store, tmp_path).load()
    assert [(row.number, row.kept) for row in rows] == [(numbers[0], long), (numbers[2], ONE)]
    assert [(row.expires, row.used, row.canceled, row.moved) for row in rows] == [
        (NOW + 5, NOW, False, []),
        (NOW + 600, NOW, False, []),
    ]
    assert len(set(numbers)) == 3


def test_a_number_is_never_given_twice(store: TicketStore, tmp_path: Path) -> None:
    """Not after its ticket was forgotten, not after a restart, and not to those who hold their tickets themselves."""
    first = store.save(ONE, NOW)
    store.forget([first])
    store = reopened(store, tmp_path)
    second, third = store.number("settings", "one", EXPORT), store.number("directory", "one", EXPORT)
    assert len({first, second, third, store.save(ONE, NOW)}) == 4


def test_what_was_forgotten_is_not_loaded(store: TicketStore) -> None:
    """Forgetting it twice is no error."""
    number = store.save(ONE, NOW)
    store.forget([number])
    store.forget([number])
    assert store.load() == []
    assert store.numbers() == set()


def test_changes_are_kept(store: TicketStore, tmp_path: Path) -> None:
    """When it expires, when and how it was used, and that it was canceled."""
    number = store.save(ONE, NOW)
    store.used([Use(number, NOW + 1, NOW + 2, [(0, 10), (1 << 40, 1)])])
    store.extend(number, NOW + 3)
    store.cancel(number)
    [row] = reopened(store, tmp_path).load()
    assert (row.expires, row.used, row.canceled, row.moved) == (NOW + 3, NOW + 2, True, [(0, 10), (1 << 40, 1)])


def test_the_same_id_and_export_have_the_same_number(store: TicketStore, tmp_path: Path) -> None:
    """Of each holder's own; another export under an id is another transfer."""
    number = store.number("settings", "one", EXPORT)
    store = reopened(store, tmp_path)
    assert store.number("settings", "one", EXPORT) == number
    other = store.number("settings", "one", Export(transport="unix", socket="/b"))
    assert other != number
    assert store.ids("settings") == {"one": other}
    assert store.ids("directory") == {}
    assert store.load() == []


def test_a_damaged_ticket_harms_no_other(store: TicketStore, tmp_path: Path) -> None:
    """It is logged, and left for somebody to look at."""
    store.save(ONE, NOW)
    store.save(Kept("two", EXPORT, 5), NOW)
    store.close()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("UPDATE ticket SET content = 'x' WHERE id = 'two'")
    database.close()
    store = TicketStore(str(tmp_path))
    assert [row.kept for row in store.load()] == [ONE]
    assert len(store.numbers()) == 2


def test_a_failing_disk_is_an_oserror(store: TicketStore) -> None:
    """Whatever SQLite calls it."""
    store._database.execute("DROP TABLE ticket")
    with pytest.raises(OSError, match=r"tickets\.db: no such table"):
        store.save(ONE, NOW)


@pytest.mark.parametrize("content", [b"x" * 5000, b"\0" * 5000], ids=["text", "zeros"])
def test_what_is_no_registry_keeps_the_service_from_starting(content: bytes, tmp_path: Path) -> None:
    """It is not taken for an empty one, nor written over."""
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CannotStart, match=r"tickets\.db is no use"):
        TicketStore(str(tmp_path))
    assert (tmp_path / FILE).read_bytes() == content


def test_another_version_s_registry_is_left_alone(store: TicketStore, tmp_path: Path) -> None:
    """An older Mover does not guess what a newer one has written."""
    store.close()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(CannotStart, match="its version is 99"):
        TicketStore(str(tmp_path))


def test_only_one_has_the_store(store: TicketStore, tmp_path: Path) -> None:
    """The second one cannot start; the first one's end lets another one start."""
    with pytest.raises(CannotStart, match="another Mover keeps its own there"):
        TicketStore(str(tmp_path))
    reopened(store, tmp_path)


def test_nobody_else_may_look(store: TicketStore, tmp_path: Path) -> None:
    """The mode of all its files is 0600, whatever the umask."""
    store.save(ONE, NOW)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}

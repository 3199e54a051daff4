"""The tables: made by migrations alone, the same that the code uses, walked along by lists."""

from __future__ import annotations

import sqlite3
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import SAWarning

from mover.library.queries import Query, Viewer
from mover.library.registry import migrate, schema
from mover.library.registry.engine import open_engine, reading
from mover.library.registry.query import statement
from mover.library.registry.tables import METADATA, SORTED_BY
from tests.harness.postgres import Postgres

INDEXES = {"size_bytes": "size", "created_at_us": "created", "updated_at_us": "updated"}


def test_migrations_make_what_the_code_uses(database: str) -> None:
    """Table by table and column by column; and again, there is nothing left to do."""
    for _ in range(2):
        migrate.upgrade(database)
    engine = open_engine(database)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        with warnings.catch_warnings():
            # Neither SQLAlchemy nor Alembic can compare indexes over expressions.
            warnings.filterwarnings("ignore", "Skipped unsupported reflection", SAWarning)
            warnings.filterwarnings("ignore", "autogenerate skipping metadata-specified expression-based index")
            assert [one for one in compare_metadata(context, METADATA) if not _is_index(one)] == []
        names = text(
            "SELECT name FROM sqlite_master WHERE type = 'index'" if schema.is_sqlite(database)
            else "SELECT indexname FROM pg_indexes"
        )  # fmt: skip
        made = set(connection.scalars(names))
        assert {index.name for table in METADATA.tables.values() for index in table.indexes} <= made
    engine.dispose()


def _is_index(difference: Any) -> bool:
    """These are compared by their names."""
    return difference[0] in ("add_index", "remove_index")


def test_two_who_migrate_at_once(database: str) -> None:
    """One does it, the other waits and finds it done."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(schema.migrate, [database] * 2))
    migrate.upgrade(database)


def test_the_head_that_is_looked_for_is_the_last(tmp_path: Path) -> None:
    """The quick look at a SQLite file knows the last migration."""
    engine = open_engine(f"sqlite:///{tmp_path}/x.sqlite")
    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(migrate.configuration(connection))
        assert scripts.get_current_head() == schema.HEAD
    engine.dispose()


def test_what_is_to_be_done_at_start(tmp_path: Path, postgres: Postgres) -> None:
    """Nothing for a file that is not there or is current; all else is migrated, PostgreSQL asked."""
    file = tmp_path / "a %41?#.sqlite"
    database = f"sqlite:///{file}"
    assert not schema.must_migrate_at_start(database)
    schema.migrate(f"sqlite:///{tmp_path}/b.sqlite")
    (tmp_path / "b.sqlite").rename(file)
    assert schema.is_current(database)
    assert not schema.must_migrate_at_start(database)
    file.write_bytes(b"")
    assert schema.must_migrate_at_start(database)
    assert schema.must_migrate_at_start(postgres.database())


def test_tables_of_a_later_mover_are_left_alone(tmp_path: Path) -> None:
    """An older Mover says so and changes nothing."""
    file = tmp_path / "library.sqlite"
    schema.migrate(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(schema.MigrationFailed, match="another version of Mover"):
        schema.migrate(f"sqlite:///{file}")


def test_a_database_that_is_not_there() -> None:
    """Why, without the password."""
    with pytest.raises(schema.MigrationFailed) as refused:
        schema.migrate("postgresql+psycopg://user:secret@/x?host=/nonexistent")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("key", sorted(set(SORTED_BY) - {"id"}))
@pytest.mark.parametrize("down", [False, True])
def test_lists_walk_along_an_index(tmp_path: Path, key: str, down: bool) -> None:
    """A page with filters is read in its own order: no list sorts all images to show 25."""
    database = f"sqlite:///{tmp_path}/library.sqlite"
    migrate.upgrade(database)
    query = Query(
        Viewer("t"),
        conditions=(("hidden", "eq", False), ("state", "eq", "active"), ("size_bytes", "gte", 5)),
        one_of={"disk_format": ("raw", "qcow2")},
        sort=((key, down),),
    )
    engine = open_engine(database)
    with reading(engine) as connection:
        compiled = statement(query).compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})
        plan = " / ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}"))
    engine.dispose()
    assert f"images_by_{INDEXES.get(key, key)}" in plan, plan
    assert "TEMP B-TREE" not in plan, plan


def test_a_property_is_found_by_its_index(tmp_path: Path) -> None:
    """By name and value, not by reading all values of the name."""
    database = f"sqlite:///{tmp_path}/library.sqlite"
    migrate.upgrade(database)
    engine = open_engine(database)
    for value in ("short", "x" * 64, "x" * 100):
        compiled = statement(Query(Viewer("t"), properties={"os": value})).compile(
            dialect=engine.dialect, compile_kwargs={"literal_binds": True}
        )
        with reading(engine) as connection:
            plan = " / ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}"))
        assert "properties_by_value (name=? AND <expr>=?)" in plan, plan
    engine.dispose()

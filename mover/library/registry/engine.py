"""The connection to the database: SQLite or PostgreSQL behind one face."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url

# How long a write waits for another process's write to SQLite; each takes a millisecond or so.
BUSY_S = 20
# Connections of one process, unless told otherwise; each of them is a thread that waits for the database.
CONNECTIONS = 8
# How long a PostgreSQL that is not there may keep a request waiting.
CONNECT_S = 5
# What was sent to one that is cut off is given up after so long, and a silent one is asked for a sign of life.
SILENT_S = 15


def open_engine(database: str, connections: int = CONNECTIONS) -> Engine:
    """An engine for the setting `library.database`; nothing is connected yet."""
    url = make_url(database)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, pool_size=connections, max_overflow=0, connect_args={"timeout": BUSY_S})
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
        return engine
    options = {
        "connect_timeout": CONNECT_S,
        "application_name": "mover",
        "tcp_user_timeout": SILENT_S * 1000,
        "keepalives_idle": SILENT_S,
        "keepalives_interval": SILENT_S // 3,
        "keepalives_count": 3,
    }
    return create_engine(url, pool_size=connections, max_overflow=0, pool_pre_ping=True, connect_args=options)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that reads: all that it sees is of one moment.

    PostgreSQL has to be told: an image was seen active, and its location, by the next statement, as that of an image
    that had been deleted between the two. It costs nothing: BEGIN says it.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes, committed at the end of the block unless it raises."""
    with engine.connect().execution_options(mover_writes=True) as connection, connection.begin():
        yield connection


def _on_sqlite_connect(connection: sqlite3.Connection, record: object) -> None:
    # Transactions begin where we say so (_on_sqlite_begin), not where the module thinks that they should.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL: a delete that was answered must not come back after a power failure, with its bytes gone.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # LIKE is not used for data but by recovery, whose prefixes are ours.
    cursor.execute("PRAGMA case_sensitive_like = ON")
    cursor.close()


def _on_sqlite_begin(connection: Connection) -> None:
    # A transaction that reads first and writes later cannot wait for another writer, only fail: so say it at once.
    writes: Any = connection.get_execution_options().get("mover_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

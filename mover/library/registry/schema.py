"""Whether the database has the tables that this version of Mover wants, and the process that makes them.

Alembic is loaded by a process of its own, `python -m mover.library.registry.migrate`, since front ends and the
supervisor need it once, if ever.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

# The last of migrations/versions.
HEAD = "0005"
# Making indexes over a hundred thousand images takes seconds.
MIGRATE_S = 600

_SQLITE = "sqlite:///"


class MigrationFailed(Exception):
    """The tables could not be brought to this version; the text says why and what to do."""


def is_sqlite(database: str) -> bool:
    """Whether `library.database` is a file of this host."""
    return database.startswith(_SQLITE)


def is_current(database: str) -> bool:
    """Whether nothing is to be done. Of PostgreSQL that is not known without asking it: False."""
    return is_sqlite(database) and _revision(database.removeprefix(_SQLITE)) == HEAD


def may_have_jobs(database: str) -> bool:
    """Whether a service that has ended may have left jobs; of a file that is asked without loading SQLAlchemy."""
    if not is_sqlite(database):
        return True
    live = "SELECT EXISTS (SELECT 1 FROM image_jobs WHERE state IN ('pending', 'running'))"
    return _asked(database.removeprefix(_SQLITE), live) not in (None, "0")


def must_migrate_at_start(database: str) -> bool:
    """A file that is not there yet is made when the first client needs it: who has no library pays nothing for it."""
    if not is_sqlite(database):
        return True
    return os.path.exists(database.removeprefix(_SQLITE)) and not is_current(database)


def migrate(database: str) -> None:
    """Bring the tables to this version, and wait for it. Raises MigrationFailed."""
    command = [sys.executable, "-s", "-P", "-m", "mover.library.registry.migrate"]
    try:
        # By its input: a command line can be read by everybody, and the URL may hold a password.
        done = subprocess.run(command, input=database.encode(), capture_output=True, timeout=MIGRATE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MigrationFailed(str(error)) from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise MigrationFailed(lines[-1] if lines else f"status {done.returncode}")


def _revision(path: str) -> str | None:
    return _asked(path, "SELECT version_num FROM alembic_version")


def _asked(path: str, question: str) -> str | None:
    """The first value of the answer; None if there is no file, table or row."""
    try:
        # mode=rw: asking must not make the file.
        with closing(sqlite3.connect(f"file:{_quoted(path)}?mode=rw", uri=True)) as connection:
            row = connection.execute(question).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")

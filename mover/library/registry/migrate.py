"""`python -m mover.library.registry.migrate`: bring the database, whose URL is read from standard input, to HEAD.

Everything is one transaction, in both databases: a migration that is killed has not happened. Of two hosts that
start at once, one waits for the other and finds nothing left to do.
"""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from mover.library.registry.engine import open_engine, writing

# "mover" as a number: the advisory lock that keeps two migrations of one PostgreSQL apart.
LOCK = 0x6D6F766572


def configuration(connection: Connection) -> Config:
    """Alembic's, without a file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(database: str) -> None:
    """Make what is missing. Raises SQLAlchemyError, and CommandError for tables of a later version."""
    engine = open_engine(database)
    try:
        with writing(engine) as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            command.upgrade(configuration(connection), "head")
    finally:
        engine.dispose()


def main() -> int:
    """Migrate; why not, in one line on standard error."""
    try:
        upgrade(sys.stdin.read().strip())
    except CommandError as error:
        print(f"{error}: its tables are of another version of Mover: install that one", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        print(" ".join(str(cause).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

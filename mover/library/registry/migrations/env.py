"""Alembic's entry: it runs this file, which runs the migrations over the connection that migrate.py opened."""

from __future__ import annotations

from alembic import context

from mover.library.registry.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()

"""What the supervisor does for the library: its tables and directories are there before front ends serve it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from config.log import facts
from config.settings import LibrarySettings
from config.store_settings import FileStore, ObjectStore, Store
from mover.library.registry import schema
from mover.serve.errors import CannotStart
from workers.store.backing import Refusal
from workers.store.files.preparing import prepare
from workers.store.objects.credentials import read_credentials

log = logging.getLogger(__name__)


def prepare_library(settings: LibrarySettings, stores: Sequence[Store]) -> None:
    """Bring the tables to this version, make ready what stores need, say who will be answered. Raises CannotStart."""
    if not settings.enabled:
        return
    for store in stores:
        _prepare_store(store)
    if schema.must_migrate_at_start(settings.database):
        try:
            schema.migrate(settings.database)
        except schema.MigrationFailed as error:
            advice = "mend library.database, or set library.enabled = false to go without a library"
            raise CannotStart("open the library's database", str(error), advice) from error
    if not os.path.exists(settings.token_file):
        log.info(
            "the library answers clients on this host only, without tokens: there is no table of them",
            extra=facts(tenant=settings.default_tenant, role="admin", file=settings.token_file),
        )


def _prepare_store(store: Store) -> None:
    advice = "mend it, or [[store]] in the configuration, or set library.enabled = false"
    try:
        if isinstance(store, FileStore):
            prepare(store)
        elif isinstance(store, ObjectStore):
            read_credentials(store)
    except Refusal as refusal:
        raise CannotStart(f"use store {store.id}", refusal.message, advice) from refusal
    except OSError as error:
        why = f"{error.filename}: {str(error.strerror).lower()}"
        raise CannotStart(f"use store {store.id}", why, advice) from error

"""What the supervisor does for the library: its tables are there before front ends serve it."""

from __future__ import annotations

import logging
import os

from config.log import facts
from config.settings import LibrarySettings
from mover.library.registry import schema
from mover.serve.errors import CannotStart

log = logging.getLogger(__name__)


def prepare_library(settings: LibrarySettings) -> None:
    """Bring the tables to this version, and say who will be answered. Raises CannotStart."""
    if not settings.enabled:
        return
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

"""What is done in the background: bytes that are due are removed, uploads of the dead may be sent again."""

from __future__ import annotations

import asyncio
import logging

from config.log import facts
from mover.library import deletes
from mover.library.library import Library
from mover.library.registry.errors import RegistryError

log = logging.getLogger(__name__)

# Each round is two queries that find nothing, as a rule.
ROUND_S = 10.0


async def run(library: Library) -> None:
    """A round now, and another one every so often, until cancelled."""
    while True:
        try:
            await library.release_dead()
            await deletes.scrub(library)
        except RegistryError as error:
            log.error("the library's round failed", extra=facts(reason=str(error)))
        await asyncio.sleep(ROUND_S)

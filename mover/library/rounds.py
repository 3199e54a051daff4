"""What is done in the background: bytes that are due are removed, uploads of the dead may be sent again.

Every so many rounds the stores are swept of what crashes have left in them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from itertools import count

from config.log import facts
from mover.library import bridge, deletes
from mover.library.library import Library
from mover.library.registry.errors import RegistryError
from mover.library.seam import CarrierError

log = logging.getLogger(__name__)

# Each round is two queries that find nothing, as a rule.
ROUND_S = 10.0
SWEEP_ROUNDS = 60
# Ended jobs are forgotten after so long: Glance's task_time_to_live.
KEPT_S = 48 * 3600.0


async def run(library: Library) -> None:
    """A round now, and another one every so often, until cancelled."""
    for number in count():
        try:
            await library.release_dead()
            await deletes.scrub(library)
            await bridge.tend(library)
            if number % SWEEP_ROUNDS == 0:
                forgotten_us = int((time.time() - KEPT_S) * 1e6)
                await library.ask(lambda registry: registry.jobs.prune(forgotten_us))  # noqa: B023
                await library.carrier.sweep(partial(wanted, library))
        except RegistryError as error:
            log.error("the library's round failed", extra=facts(reason=str(error)))
        except CarrierError as error:
            log.warning("a store cannot be swept", extra=facts(reason=error.message))
        except Exception:
            log.exception("the library's round failed")  # another one follows, whatever it was
        await asyncio.sleep(ROUND_S)


async def wanted(library: Library, image_id: str, uri: str) -> bool:
    """Whether the bytes at `uri` are the image's, or an upload under way may be about to say so."""
    return await library.ask(lambda registry: registry.wanted(image_id, uri))

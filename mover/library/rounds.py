"""What is done in the background: bytes that are due are removed, uploads of the dead may be sent again.

One front end of a host does it. Every so many rounds the stores are swept of what crashes have left in them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from itertools import count

from config.log import facts
from mover.library import bridge, deletes
from mover.library.leases import Leases
from mover.library.library import Library
from mover.library.registry.errors import RegistryError
from mover.library.seam import CarrierError

log = logging.getLogger(__name__)

# Each round is two queries that find nothing, as a rule.
ROUND_S = 10.0
SWEEP_ROUNDS = 60
# Ended jobs are forgotten after so long: Glance's task_time_to_live.
KEPT_S = 48 * 3600.0


async def run(library: Library, leases: Leases) -> None:
    """A round now, and another one every so often, until cancelled."""
    for number in count():
        try:
            await library.settle()
            if leases.leads():
                await _lead(library, leases, number)
        except RegistryError as error:
            log.error("the library's round failed", extra=facts(reason=str(error)))
        except CarrierError as error:
            log.warning("a store cannot be swept", extra=facts(reason=error.message))
        except Exception:
            log.exception("the library's round failed")  # another one follows, whatever it was
        await asyncio.sleep(ROUND_S)


async def _lead(library: Library, leases: Leases, number: int) -> None:
    await library.release_dead()
    await deletes.scrub(library, leases.takes_turn())
    await bridge.tend(library)
    if number % SWEEP_ROUNDS == 0:
        forgotten_us = int((time.time() - KEPT_S) * 1e6)
        await library.ask(lambda registry: registry.jobs.prune(forgotten_us))
        # Once after each start, of as many hosts as there are; then the stores that all share are shared work.
        await library.sweep(shared=number == 0 or leases.takes_turn())

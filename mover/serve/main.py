"""The process `mover serve`: what it holds before the loop runs, and what it gives back after it."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Callable

from config import log
from config.settings import Settings
from mover.control.peers import group_numbers
from mover.serve.errors import CannotStart
from mover.serve.library import prepare_library
from mover.serve.listeners import Listeners, make_state_dir
from mover.serve.programs import Programs
from mover.serve.supervisor import Supervisor

STATUS_CANNOT_START = 3


def serve(settings: Settings, programs: Programs | None = None, reread: Callable[[], Settings] | None = None) -> int:
    """Serve until a signal ends it; the exit status. The settings are resolved by config/load.py.

    `reread` reads them again for SIGHUP; it raises ConfigError.
    """
    log.setup(settings.log, "supervisor")
    _raise_descriptor_limit()
    try:
        make_state_dir(settings.serve.state_dir)
        prepare_library(settings.library, settings.store)
        groups = group_numbers(settings.control)
        with Listeners(settings.serve, settings.tls.enabled, groups[0] if groups else None) as listeners:
            return asyncio.run(_supervise(settings, listeners, programs or Programs(), reread or (lambda: settings)))
    except CannotStart as error:
        print(f"mover: {error}", file=sys.stderr)
        return STATUS_CANNOT_START


async def _supervise(
    settings: Settings, listeners: Listeners, programs: Programs, reread: Callable[[], Settings]
) -> int:
    return await Supervisor(settings, listeners, programs, reread).run()


def _raise_descriptor_limit() -> None:
    """Front ends inherit the limit, and each client is a descriptor; the usual soft limit is 1024 for select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""The process `mover serve`: what it holds before the loop runs, and what it gives back after it."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Callable

from msgspec.structs import replace

from config import log
from config.settings import Settings
from mover.control.peers import group_numbers
from mover.serve.activation import passed_sockets, with_paths
from mover.serve.errors import CannotStart
from mover.serve.library import prepare_library
from mover.serve.listeners import Listeners, check_state_dir, make_state_dir
from mover.serve.notify import Notifier
from mover.serve.privileges import become, wanted_identity
from mover.serve.programs import Programs
from mover.serve.supervisor import House, Supervisor, read_certificates

STATUS_CANNOT_START = 3
# What tells a process that a service manager started it.
MANAGERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def serve(settings: Settings, programs: Programs | None = None, reread: Callable[[], Settings] | None = None) -> int:
    """Serve until a signal ends it; the exit status. The settings are resolved by config/load.py.

    `reread` reads them again for SIGHUP; it raises ConfigError.
    """
    log.setup(settings.log, "supervisor")
    _raise_descriptor_limit()
    notifier = Notifier(os.environ)
    try:
        passed = passed_sockets(os.environ, settings.serve)
        for name in MANAGERS:
            os.environ.pop(name, None)  # no child speaks to the service manager

        def served(read: Settings) -> Settings:
            return replace(read, serve=with_paths(read.serve, passed))

        settings = served(settings)
        identity = wanted_identity(settings.serve)
        control_groups = group_numbers(settings.control)
        make_state_dir(settings.serve.state_dir, identity)
        with Listeners(settings.serve, settings.tls.enabled, passed) as listeners:
            house = House(settings, listeners, read_certificates(settings.tls), notifier)
            if identity is not None:
                listeners.give_to(identity.gid)
            if control_groups:
                listeners.give_control_to(control_groups[0])
            if identity is not None:
                become(identity)
            check_state_dir(settings.serve.state_dir)
            prepare_library(settings.library, settings.store)
            again = reread or (lambda: settings)
            return asyncio.run(_supervise(house, programs or Programs(), lambda: served(again())))
    except CannotStart as error:
        print(f"mover: {error}", file=sys.stderr)
        return STATUS_CANNOT_START


async def _supervise(house: House, programs: Programs, reread: Callable[[], Settings]) -> int:
    return await Supervisor(house, programs, reread).run()


def _raise_descriptor_limit() -> None:
    """Front ends inherit the limit, and each client is a descriptor; the usual soft limit is 1024 for select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

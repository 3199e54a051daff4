"""A process, as records of uploads name it, and whether it is no more."""

from __future__ import annotations

import os

from config.processes import started


def writer(pid: int) -> str:
    """A process, as all that see the same processes name it: kernel, namespace, pid, and when it started."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}/{pid}/{started(pid)}"


def is_dead(named: str) -> bool:
    """Whether the process was one of this host, and is no more."""
    here, _, rest = named.rpartition("/")[0].rpartition("/")
    own = writer(os.getpid()).rsplit("/", 2)[0]
    return here == own and rest.isdigit() and writer(int(rest)) != named

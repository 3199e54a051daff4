"""A program of its own: `python -I -S confine.py PROGRAM ARGUMENT...` runs PROGRAM with next to no means.

It imports nothing of ours. What is taken away: processor time, memory, files to write, descriptors, the network,
capabilities, and any way to get them back. Where a user may not have a network namespace of his own, the network stays.
"""

import ctypes
import os
import resource
import sys

CPU_S = 10
MEMORY_BYTES = 2 * 1024**3
DESCRIPTORS = 64
LIMITS = (
    (resource.RLIMIT_CPU, CPU_S),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_NOFILE, DESCRIPTORS),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_AS, MEMORY_BYTES),
)
# linux/sched.h, linux/prctl.h, linux/securebits.h
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECUREBITS = 38, 28
# uid 0 has no capabilities after exec, and cannot ask for them back.
SECURE_NOROOT, SECURE_NOROOT_LOCKED, NO_AMBIENT, NO_AMBIENT_LOCKED = 1, 2, 64, 128


def confine() -> None:
    """Give up what is not needed to read one file and print what is in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        if libc.unshare(CLONE_NEWNET | CLONE_NEWIPC):
            sys.exit("confine: no network namespace")
        libc.prctl(PR_SET_SECUREBITS, SECURE_NOROOT | SECURE_NOROOT_LOCKED | NO_AMBIENT | NO_AMBIENT_LOCKED, 0, 0, 0)
    else:
        libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit("confine: new privileges cannot be ruled out")
    for limit, most in LIMITS:
        resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    confine()
    os.execv(sys.argv[1], sys.argv[1:])

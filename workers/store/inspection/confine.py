"""A program of its own: `python -I -S confine.py --read IMAGE PROGRAM ARGUMENT...` runs PROGRAM with next to no means
but the descriptor IMAGE.

`--serve IMAGE SOCKET PROGRAM ARGUMENT...` runs a server of that image: it gets the descriptor SOCKET, which listens, as
a service manager would give it, and the image as SERVED_FD; it has time without end, and ends with who started it.

It imports nothing of ours. What is taken away: processor time, memory, files to write, descriptors, the network,
capabilities, and any way to get them back; and, where the kernel has Landlock, all files but programs, libraries and
the descriptors that it was given. Where a user may not have a network namespace of his own, UDP stays.
"""

import ctypes
import fcntl
import os
import resource
import signal
import struct
import sys

CPU_S = 10
MEMORY_BYTES = 2 * 1024**3
DESCRIPTORS = 64
# A server has threads and a cache.
SERVER_MEMORY_BYTES = 4 * 1024**3
SERVER_DESCRIPTORS = 256
# sd_listen_fds(3): the first descriptor that is passed on is this one.
LISTEN_FD = 3
SERVED_FD = 10
# linux/sched.h, linux/prctl.h, linux/securebits.h
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECUREBITS = 1, 38, 28
# uid 0 has no capabilities after exec, and cannot ask for them back.
SECURE_NOROOT, SECURE_NOROOT_LOCKED, NO_AMBIENT, NO_AMBIENT_LOCKED = 1, 2, 64, 128
# linux/landlock.h; its system calls have the same numbers on all machines.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
GET_VERSION, PATH_BENEATH = 1, 1
EXECUTE, READ_FILE, READ_DIR = 1, 4, 8
# What is known of files, of TCP, and of signals and abstract sockets, by the version that brought it.
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
NET_SINCE, NET_RIGHTS = 4, 3
SCOPED_SINCE, SCOPES = 6, 3
PROGRAMS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/ld.so.preload")

libc = ctypes.CDLL(None, use_errno=True)


def confine(program: str, image: int, limits: tuple[tuple[int, int], ...]) -> None:
    """Give up what is not needed to read `image`, a descriptor, and to say what is in it."""
    if os.geteuid() == 0:
        if libc.unshare(CLONE_NEWNET | CLONE_NEWIPC):
            sys.exit("confine: no network namespace")
        libc.prctl(PR_SET_SECUREBITS, SECURE_NOROOT | SECURE_NOROOT_LOCKED | NO_AMBIENT | NO_AMBIENT_LOCKED, 0, 0, 0)
    else:
        libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit("confine: new privileges cannot be ruled out")
    hide_files(program, image)
    for limit, most in limits:
        resource.setrlimit(limit, (most, most))


def hide_files(program: str, image: int) -> None:
    """No file can be opened but programs, libraries and the image. Without Landlock nothing happens."""
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), GET_VERSION)
    if version < 1:
        return
    handled = max(rights for since, rights in FILE_RIGHTS.items() if since <= version)
    net = NET_RIGHTS if version >= NET_SINCE else 0
    scoped = SCOPES if version >= SCOPED_SINCE else 0
    known = 24 if scoped else 16 if net else 8
    asked = ctypes.create_string_buffer(struct.pack("=QQQ", handled, net, scoped)[:known], known)
    rules = libc.syscall(CREATE_RULESET, asked, ctypes.c_size_t(known), 0)
    if rules < 0:
        sys.exit("confine: no Landlock ruleset")
    for path in (*PROGRAMS, os.path.realpath(program)):
        if os.path.exists(path):
            fd = os.open(path, os.O_PATH)
            allow(rules, fd, EXECUTE | READ_FILE | (READ_DIR if os.path.isdir(path) else 0))
            os.close(fd)
    allow(rules, image, READ_FILE)
    if libc.syscall(RESTRICT_SELF, rules, 0):
        sys.exit("confine: Landlock does not begin")
    os.close(rules)


def allow(rules: int, fd: int, rights: int) -> None:
    """Let this be done beneath `fd`."""
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, fd), 12)
    if libc.syscall(ADD_RULE, rules, PATH_BENEATH, rule, 0):
        sys.exit("confine: no Landlock rule")


def limits_of(memory: int, descriptors: int) -> tuple[tuple[int, int], ...]:
    """What every such program may use."""
    return (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, descriptors),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory),
    )


def serve(image: int, listening: int, command: list[str]) -> None:
    """Be the server of an image; does not return."""
    parent = os.getppid()
    image = fcntl.fcntl(image, fcntl.F_DUPFD, SERVED_FD)
    os.dup2(image, SERVED_FD)
    os.dup2(listening, LISTEN_FD)
    confine(command[0], SERVED_FD, limits_of(SERVER_MEMORY_BYTES, SERVER_DESCRIPTORS))
    # After all that changes who we are, which would take it back.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("confine: nobody waits any more")
    os.closerange(LISTEN_FD + 1, SERVED_FD)
    os.closerange(SERVED_FD + 1, SERVER_DESCRIPTORS)
    environment = dict(os.environ, LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    os.execve(command[0], command, environment)


def run(image: int, command: list[str]) -> None:
    """Be a program that is done soon; does not return."""
    confine(command[0], image, ((resource.RLIMIT_CPU, CPU_S), *limits_of(MEMORY_BYTES, DESCRIPTORS)))
    os.execv(command[0], command)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    else:
        run(int(sys.argv[2]), sys.argv[3:])

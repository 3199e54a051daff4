"""A network of hosts on this one: namespaces for each, all on one bridge, with cables that can be pulled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# 198.18.0.0/15 is for networks under test (RFC 2544): one of its 8,192 networks of 16 addresses for each process.
BASE, NETWORKS, SIZE = 198 << 24 | 18 << 16, 8192, 16
NAMESPACES = ("net", "uts", "mnt")
# What is told by one line: everything is in place.
KEEPER = 'hostname "$1" && mount -t tmpfs "$1" "$2" && echo && exec sleep infinity'


class Cabled:
    """A host's own network, name and disk, kept by a process that sleeps."""

    def __init__(self, name: str, keeper: subprocess.Popen[bytes], cable: str) -> None:
        self.name = name
        self._keeper = keeper
        self._cable = cable

    @property
    def enter(self) -> tuple[str, ...]:
        """What a command line begins with that is to run there; it becomes that program."""
        spaces = [
            f"--{option}=/proc/{self._keeper.pid}/ns/{name}"
            for option, name in zip(("net", "uts", "mount"), NAMESPACES, strict=True)
        ]
        return ("nsenter", *spaces)

    def pull(self) -> None:
        """Nothing comes through any more, and nobody is told."""
        _run("ip", "link", "set", self._cable, "down")

    def plug(self) -> None:
        """It is connected again."""
        _run("ip", "link", "set", self._cable, "up")


class Network:
    """A bridge, with the test's own address on it. On `disk` each host has a file system of its own."""

    def __init__(self, stack: ExitStack, disk: Path) -> None:
        self._stack = stack
        self._disk = disk
        self._own = os.getpid()
        self._bridge = f"mvb{self._own}"
        self._hosts = 0
        self.address = self._address(1)
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        stack.callback(_run, "ip", "link", "del", self._bridge)
        _run("ip", "address", "add", f"{self.address}/28", "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")

    def host(self, name: str) -> Cabled:
        """One more host."""
        self._hosts += 1
        command = ["unshare", "--net", "--uts", "--mount", "sh", "-c", KEEPER, "sh", name, str(self._disk)]
        keeper = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._stack.callback(keeper.wait)
        self._stack.callback(keeper.kill)
        assert keeper.stdout is not None
        with keeper.stdout as said:
            assert said.readline() == b"\n", f"host {name} cannot be made"
        cable = f"mv{self._own}h{self._hosts}"
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(keeper.pid))
        _run("ip", "link", "set", cable, "master", self._bridge, "up")
        host = Cabled(name, keeper, cable)
        _run(*host.enter, "ip", "address", "add", f"{self._address(1 + self._hosts)}/28", "dev", "eth0")
        for link in ("lo", "eth0"):
            _run(*host.enter, "ip", "link", "set", link, "up")
        return host

    def _address(self, number: int) -> str:
        address = BASE + self._own % NETWORKS * SIZE + number
        return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


@contextmanager
def network(disk: Path) -> Iterator[Network]:
    """A network for the time of the block."""
    with ExitStack() as stack:
        yield Network(stack, disk)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)

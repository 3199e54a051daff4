"""Short transfers one after the other, as a host sees them in an hour: a ticket, some bytes, no ticket any more.

Each is of an image of its own behind one NBD server, by CloudStack's socket or imageio's in turn; what Mover holds is
compared between blocks of them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import psutil

from tests.control.agent import Agent
from tests.harness.fixtures import Images
from tests.harness.http import Client, ask
from tests.harness.mover import Mover, Tables
from tests.harness.patterns import pattern, write_pattern
from tests.harness.servers import NbdServer
from tests.harness.transfers import Doing
from tests.harness.waiting import wait_until

KIB = 1024
SIZE = 256 * KIB
EXPORTS = 130
AT_ONCE = 2
# Of a process in Python that has just done a thousand more things: pages of arenas of the allocator, not a leak.
NOISE_BYTES = 3 << 20


def settings(room: Path) -> Tables:
    """Everything leaves soon, so that an hour's comings and goings fit in a minute."""
    return {
        "serve": {"control_socket": str(room / "agent"), "ticket_socket": str(room / "vdsm")},
        "front": {"lane_idle_s": 0.3},
        "worker": {"idle_s": 0.3, "settle_s": 0.1},
        "log": {"requests": False},
    }


def serve_many(room: Path, images: Images) -> NbdServer:
    """One server with an export for each file of a directory."""
    directory = room / "exports"
    directory.mkdir()
    for number in range(EXPORTS):
        write_pattern(directory / f"e{number}", number, SIZE)
    return images.nbdkit("many", "file", f"dir={directory}", threads=4)


class Host:
    """A Mover, and what a host's agents do with it."""

    def __init__(self, mover: Mover, room: Path, server: NbdServer) -> None:
        self.mover = mover
        self._server = server
        self._agent = Agent(room / "agent")
        self._vdsm = room / "vdsm"
        self.done = 0

    def run(self, count: int) -> None:
        """So many transfers, some at once."""
        first, self.done = self.done, self.done + count
        parts = [range(first + part, self.done, AT_ONCE) for part in range(AT_ONCE)]
        for one in [Doing(partial(self._transfer_all, part)) for part in parts]:
            one.result(600)

    def _transfer_all(self, numbers: range) -> None:
        for number in numbers:
            self._transfer(number)

    def _transfer(self, number: int) -> None:
        export, name = number % EXPORTS, f"transfer-{number}"
        self._install(number, name, f"e{export}")
        with Client(self.mover.address(unix=number % 3 == 0)) as client:
            body = pattern(export, 0, SIZE)
            assert client.ask("GET", f"/images/{name}").body == body
            place = {"Content-Range": f"bytes 4096-{4096 + 16 * KIB - 1}/*"}
            answer = client.ask("PUT", f"/images/{name}", body[4096 : 4096 + 16 * KIB], place)
            assert answer.status == 200, answer
            assert client.ask("POST", f"/images/{name}/flush").status == 200
        self._remove(number, name)

    def _install(self, number: int, name: str, export: str) -> None:
        if number % 2:
            assert self._agent.register(name, self._server, export=export)["status"] == "ok"
            return
        url = f"nbd:unix:{self._server.socket}:exportname={export}"
        ticket = {"uuid": name, "size": SIZE, "url": url, "timeout": 300, "ops": ["read", "write"]}
        assert ask(self._vdsm, "PUT", f"/tickets/{name}", json.dumps(ticket).encode()).status == 200

    def _remove(self, number: int, name: str) -> None:
        if number % 2:
            assert self._agent.unregister(name)["status"] == "ok"
        else:
            assert ask(self._vdsm, "DELETE", f"/tickets/{name}").status == 204

    # -- what is left ----------------------------------------------------------------------------------------

    def at_rest(self) -> Counter[str]:
        """What it holds when the last worker has left: processes, descriptors, files of its state, by kind."""
        wait_until("all workers have left", lambda: not self.mover.workers(), 60)
        census = self.mover.settled_census()
        files = [re.sub(r"\d+", "", path.name) for path in self.mover.state_dir.rglob("*") if path.is_file()]
        return census.processes + census.descriptors + Counter(files)

    def memory_bytes(self) -> dict[str, int]:
        """Unshared memory of the processes that stay."""
        pids = {"supervisor": self.mover.pid}
        pids |= {f"front end {n}": pid for n, pid in enumerate(self.mover.front_end_pids())}
        return {name: psutil.Process(pid).memory_full_info().uss for name, pid in pids.items()}


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Which of them have grown by more than noise, and by how much."""
    return {name: after[name] - size for name, size in before.items() if after[name] - size > NOISE_BYTES}

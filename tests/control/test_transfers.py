"""CloudStack's transfers on a real Mover: what its agent does, and what happens meanwhile."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import threading
from contextlib import closing

import pytest

from mover.control.store import FILE
from tests.control.agent import Agent, Answer, ok
from tests.harness.fixtures import Images
from tests.harness.http import connect, head, read_to_end
from tests.harness.mover import ROOT, Mover
from tests.harness.patterns import pattern
from tests.harness.servers import NbdServer
from tests.harness.transfers import Doing, read_compared
from tests.harness.waiting import PROGRAM_S, wait_until

pytestmark = pytest.mark.nbd

MIB = 1 << 20
# More than all buffers on the way to a client that does not read.
BYTES = 64 * MIB
# Long before a client that stalls is given up (front.progress_s), and enough for a host that is busy.
ANSWER_S = 30.0


@pytest.fixture
def disk(images: Images) -> NbdServer:
    """A server of a disk whose every block says where it is from."""
    return images.qemu_nbd(images.pattern("disk.raw", 1, BYTES))


@pytest.fixture
def other_disk(images: Images) -> NbdServer:
    """Another one."""
    return images.qemu_nbd(images.pattern("other.raw", 2, BYTES))


def waits(agent: Agent, unregistering: Doing[Answer]) -> bool:
    """Whether the agent still waits, though many a request that came later has been answered."""
    for _ in range(100):
        assert agent.active() == 0
    return not unregistering.done


def first_block(mover: Mover, transfer_id: str) -> tuple[int, bytes]:
    answer = mover.ask("GET", f"/images/{transfer_id}", Range="bytes=0-4095")
    return answer.status, answer.body


def test_a_transfer_from_end_to_end(mover: Mover, agent: Agent, disk: NbdServer) -> None:
    """Status, register, PUT, GET, unregister: each is in force for every client when it is answered."""
    assert agent.ask("status") == ok(0)
    assert mover.ask("GET", "/images/one").status == 404
    assert agent.register("one", disk) == ok(1)
    for _ in range(8):  # over both front ends, as the kernel deals connections out
        assert mover.ask("GET", "/images/one", Range="bytes=0-0").status == 206
    assert mover.ask("PUT", "/images/one", pattern(7, 0, MIB)).status == 200
    assert first_block(mover, "one") == (206, pattern(7, 0, 4096))
    assert agent.unregister("one") == ok(0)
    for _ in range(8):
        answer = mover.ask("GET", "/images/one", Range="bytes=0-0")
        assert (answer.status, answer.json()) == (404, {"error": "unknown image_id"})
    mover.stop_clean()


def test_the_control_socket_is_for_owner_and_group(mover: Mover, agent: Agent) -> None:
    """Its mode is 0660, its directory was made, and it goes with the service."""
    assert agent.path.stat().st_mode & 0o777 == 0o660
    mover.stop_clean()
    assert not agent.path.exists()


def test_unregistering_what_is_not_there_is_ok(mover: Mover, agent: Agent, disk: NbdServer) -> None:
    """It tells how many others there are, as if it had been there."""
    agent.register("one", disk)
    assert agent.unregister("two") == ok(1)


def test_an_export_need_not_exist_yet(mover: Mover, agent: Agent, images: Images) -> None:
    """Registering looks at nothing; the request that comes before the server is 502, the one after it is served."""
    socket = images.room / "qemu-late.raw.nbd"
    request = {"transfer_id": "late", "config": {"socket": str(socket)}}
    assert agent.ask("register", **request) == ok(1)
    assert mover.ask("GET", "/images/late").status == 502
    images.qemu_nbd(images.pattern("late.raw", 3, MIB))
    assert first_block(mover, "late") == (206, pattern(3, 0, 4096))


def test_a_name_that_the_server_does_not_know_is_not_served(mover: Mover, agent: Agent, disk: NbdServer) -> None:
    """`export` goes to the server as it is."""
    agent.register("one", disk, export="no such export")
    assert mover.ask("GET", "/images/one").status == 502


def test_a_file_is_served_whole(mover: Mover, agent: Agent, images: Images) -> None:
    """`backend` file: a PUT replaces it, a GET is what is there then."""
    path = images.pattern("whole.img", 3, MIB)
    config = {"backend": "file", "file": str(path)}
    assert agent.ask("register", transfer_id="one", config=config) == ok(1)
    assert first_block(mover, "one") == (206, pattern(3, 0, 4096))
    assert mover.ask("PUT", "/images/one", pattern(4, 0, MIB // 2)).status == 200
    assert path.read_bytes() == pattern(4, 0, MIB // 2)
    assert agent.unregister("one") == ok(0)
    mover.stop_clean()


# -- unregister waits --------------------------------------------------------------------------------------------


def test_unregister_waits_for_a_put_in_flight(mover: Mover, agent: Agent, disk: NbdServer) -> None:
    """The upload is finished as if nothing had happened; only then the agent has its answer. Others are refused."""
    agent.register("one", disk)
    body = pattern(9, 0, 8 * MIB)
    with connect(mover.address()) as client:
        client.sendall(head("PUT", "/images/one", Content_Length=len(body), Connection="close") + body[: 4 * MIB])
        wait_until("the upload is in flight", lambda: any(row["bytes_written"] for row in mover.workers()))
        unregistering = Doing(lambda: agent.unregister("one"))
        wait_until("nobody is admitted", lambda: first_block(mover, "one")[0] == 404)
        assert waits(agent, unregistering)
        client.sendall(body[4 * MIB :])
        assert read_to_end(client).startswith(b"HTTP/1.1 200")
        assert unregistering.result(ANSWER_S) == ok(0)
    agent.register("again", disk)
    assert first_block(mover, "again") == (206, pattern(9, 0, 4096))
    mover.stop_clean()


def test_unregister_is_answered_under_constant_load(mover: Mover, agent: Agent, disk: NbdServer) -> None:
    """Clients that ask again and again do not keep the agent waiting: they are refused from the first moment on."""
    agent.register("one", disk)
    refused: list[int] = []

    def load() -> None:
        with mover.client() as client:
            while (status := client.ask("GET", "/images/one", Range="bytes=0-4095").status) == 206:
                loaded.set()
            refused.append(status)

    loaded = threading.Event()
    clients = [Doing(load) for _ in range(8)]
    assert loaded.wait(ANSWER_S)
    assert agent.unregister("one") == ok(0)
    for client in clients:
        client.result()
    assert refused == [404] * 8


def test_a_dead_client_does_not_keep_the_agent_waiting(mover: Mover, agent: Agent, disk: NbdServer) -> None:
    """A client that leaves in the middle of its download is no longer in flight."""
    agent.register("one", disk)
    with mover.client() as client:
        client.begin("GET", "/images/one")
        unregistering = Doing(lambda: agent.unregister("one"))
        wait_until("nobody is admitted", lambda: first_block(mover, "one")[0] == 404)
        assert waits(agent, unregistering)
        client.close()
        assert unregistering.result(ANSWER_S) == ok(0)


def test_a_killed_front_end_does_not_keep_the_agent_waiting(mover: Mover, agent: Agent, disk: NbdServer) -> None:
    """What it had in flight has ended with it; the one that takes its place knows the transfer no more."""
    agent.register("one", disk)
    with mover.client() as client:
        client.begin("GET", "/images/one")
        unregistering = Doing(lambda: agent.unregister("one"))
        wait_until("nobody is admitted", lambda: first_block(mover, "one")[0] == 404)
        for front_end in [child for child in mover.children() if "mover.front" in child.cmdline()]:
            front_end.kill()
        assert unregistering.result(ANSWER_S) == ok(0)
    wait_until("front ends are back", lambda: mover.ask("GET", "/healthz").status == 200)
    assert first_block(mover, "one")[0] == 404


# -- registering again -------------------------------------------------------------------------------------------


def test_registering_again_leaves_requests_in_flight_alone(
    mover: Mover, agent: Agent, disk: NbdServer, other_disk: NbdServer
) -> None:
    """A download goes on with the disk that it began with, new ones get the other; and unregister waits for it."""
    agent.register("one", disk)
    with mover.client() as client:
        response = client.begin("GET", "/images/one")
        assert agent.register("one", other_disk) == ok(1)
        assert first_block(mover, "one") == (206, pattern(2, 0, 4096))
        unregistering = Doing(lambda: agent.unregister("one"))
        wait_until("nobody is admitted", lambda: first_block(mover, "one")[0] == 404)
        assert waits(agent, unregistering)
        read_compared(response, memoryview(pattern(1, 0, BYTES)))
    assert unregistering.result(ANSWER_S) == ok(0)
    assert "misbehaved" not in mover.log()


# -- restarts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_transfers_survive_a_restart(mover: Mover, agent: Agent, disk: NbdServer, how: signal.Signals) -> None:
    """However the service ended, the next one has what was registered, and has not what was unregistered."""
    agent.register("stays", disk)
    agent.register("goes", disk)
    agent.unregister("goes")
    mover.signal(how)
    mover.wait_for_end()
    mover.start()
    assert agent.ask("status") == ok(1)
    assert first_block(mover, "stays") == (206, pattern(1, 0, 4096))
    assert first_block(mover, "goes")[0] == 404
    assert agent.unregister("stays") == ok(0)
    mover.stop_clean()


def test_the_idle_time_goes_on_over_a_restart(mover: Mover, agent: Agent, disk: NbdServer) -> None:
    """A transfer that nobody used for its idle time has expired, though the service was not always there."""
    agent.register("short", disk, idle_timeout_seconds=3600)
    agent.register("long", disk, idle_timeout_seconds=3700)
    mover.stop()
    with closing(sqlite3.connect(mover.state_dir / FILE)) as database, database:
        database.execute("UPDATE ticket SET used = used - 3650, expires = expires - 3650")
    mover.start()
    assert agent.ask("status") == ok(1)
    assert first_block(mover, "short")[0] == 404
    assert first_block(mover, "long")[0] == 206
    mover.stop()
    mover.start()
    assert agent.ask("status") == ok(1)


def test_a_request_in_flight_keeps_its_transfer(mover: Mover, agent: Agent, disk: NbdServer) -> None:
    """Idle time does not count while a client downloads, however slowly; without one it does."""
    agent.register("busy", disk, idle_timeout_seconds=1)
    agent.register("idle", disk, idle_timeout_seconds=1)
    with mover.client() as client:
        response = client.begin("GET", "/images/busy")
        wait_until("the idle one has expired", lambda: agent.active() == 1)
        assert first_block(mover, "busy")[0] == 206
        read_compared(response, memoryview(pattern(1, 0, BYTES)))
    wait_until("the busy one expires, too", lambda: agent.active() == 0)


def test_two_movers_do_not_share_a_state_directory(mover: Mover, agent: Agent) -> None:
    """Each would bring the other's transfers back to life: the second one does not start, and says why."""
    command = [*mover.command, f"--control-socket={agent.path}2", f"--unix-socket={mover.unix}2"]
    second = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=PROGRAM_S, check=False)
    assert second.returncode == 3
    assert "another Mover keeps its own there" in second.stderr

"""Image workers as the supervisor keeps them: started on demand, introduced, fenced, restarted, given up."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import AllowSettings, Image
from config.store_settings import FileStore
from tests.harness.waiting import PATIENCE_S
from tests.serve.stage import Event, Stage, is_gone, is_zombie, short_waits, wait_for


class Server:
    """An NBD server's socket, as far as a fence can tell: it ends a connection when the test says so."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.address = listener.getsockname()

    def accept(self) -> socket.socket:
        """The next client, waited for."""
        self.listener.settimeout(PATIENCE_S)
        client, _ = self.listener.accept()
        client.settimeout(PATIENCE_S)
        return client


@pytest.fixture(params=["unix", "tcp"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server on a Unix socket, and one on TCP."""
    if request.param == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "nbd.sock"))
        listener.listen()
    else:
        listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        yield Server(listener)


def connected(stage: Stage, worker: int, server: Server, connection: int = 1) -> socket.socket:
    """Have a worker connect; the server's end."""
    stage.order(worker, "connect", connection=connection, address=server.address)
    client = server.accept()
    stage.event("connected")
    return client


def kept_sockets(stage: Stage) -> set[str]:
    return {fd for fd in stage.fds_at_rest() if fd.startswith("socket:")}


# -- introduction ------------------------------------------------------------------------------------------------


def test_both_sides_are_introduced(stage: Stage) -> None:
    """Worker and front end get one end each of the lane's socket, with one generation."""
    stage.ready()
    front = stage.front()
    stage.open(front, lane=5)
    serve = stage.event("Serve")
    assert (serve["fds"], serve["doubts"], serve["server_lost"]) == (2, [], False)
    attach, lane_socket = stage.event("Attach"), stage.event("LaneSocket")
    assert attach["fds"] == lane_socket["fds"] == 1
    assert lane_socket["lane"] == 5
    assert attach["generation"] == lane_socket["generation"] > serve["generation"]
    assert attach["front_end"] == 1


def test_one_worker_serves_one_export(stage: Stage) -> None:
    """Lanes of all front ends to one export lead to one worker; another export has another one."""
    stage.ready(stage.settings(front_ends=2))
    first, second = stage.front(), stage.front()
    worker = stage.attached(first, lane=1)
    assert stage.attached(second, lane=1) == worker
    assert stage.attached(first, lane=2) == worker
    assert stage.attached(first, lane=3, socket_path="/elsewhere") != worker


def test_a_dead_worker_s_lane_ends(stage: Stage) -> None:
    """No copy of the lane's socket is kept: the front end reads its end when the worker dies."""
    stage.ready()
    front = stage.front()
    os.kill(stage.attached(front, lane=4), signal.SIGKILL)
    stage.event("lane-end", lane=4)


def test_lanes_over_the_limit_are_refused(stage: Stage) -> None:
    """A lane whose arena does not fit the host-wide limit is refused for a second; closing one makes room."""
    stage.ready(stage.settings(**short_waits(arena_limit_bytes=3 << 20)))
    front = stage.front()
    stage.attached(front, lane=1)
    stage.open(front, lane=2, arena_bytes=(2 << 20) + 1)
    refused = stage.event("LaneRefused", lane=2)
    assert refused["retry_after_s"] == 1.0
    assert "supervisor.arena_limit_bytes" in refused["reason"]
    stage.order(front, "close", lane=1)
    stage.open(front, lane=3, arena_bytes=3 << 20)
    stage.event("LaneSocket", lane=3)


def test_a_lane_number_is_used_once_at_a_time(stage: Stage) -> None:
    """A front end that opens a lane it has open already is broken, and replaced."""
    stage.ready()
    front = stage.front()
    stage.attached(front, lane=1)
    stage.open(front, lane=1)
    stage.front()
    assert is_gone(front)


def test_introductions_leave_no_descriptor(stage: Stage) -> None:
    """However many lanes were opened, the supervisor holds no more descriptors."""
    stage.ready()
    front = stage.front()
    stage.attached(front, lane=0)
    before = len(stage.fds_at_rest())
    for lane in range(1, 20):
        stage.attached(front, lane=lane)
    wait_for("the last one's descriptors are closed", lambda: len(stage.fds()) == before)


# -- death -------------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_its_lanes_attached_again(stage: Stage) -> None:
    """Every lane that is still open is attached to the successor, with a higher generation; closed ones are not."""
    stage.ready()
    front = stage.front()
    for lane in (1, 2, 3):
        stage.open(front, lane)
    sockets = [stage.event("LaneSocket", lane=lane) for lane in (1, 2, 3)]
    worker = stage.event("Serve")["pid"]
    stage.order(front, "close", lane=2)
    stage.workers(front)  # answered after the close was seen
    os.kill(worker, signal.SIGKILL)
    again = [stage.event("LaneSocket", lane=lane) for lane in (1, 3)]
    assert min(one["generation"] for one in again) > max(one["generation"] for one in sockets)
    assert stage.unread("LaneSocket") == []
    [row] = stage.workers(front)
    assert row["restarts"] == 1


def test_a_worker_that_leaves_while_a_lane_opens_is_replaced(stage: Stage) -> None:
    """Status 0 with a lane open is the race of leaving and opening: the lane gets another worker."""
    stage.ready()
    front = stage.front()
    worker = stage.attached(front)
    stage.order(worker, "exit", status=0)
    assert stage.event("LaneSocket", lane=1)["pid"] == front


def test_an_idle_worker_may_leave(stage: Stage) -> None:
    """A worker without lanes that exits is not replaced until a lane is opened."""
    stage.ready()
    front = stage.front()
    worker = stage.attached(front)
    stage.order(front, "close", lane=1)
    stage.workers(front)
    stage.order(worker, "exit", status=0)
    wait_for("the worker leaves", lambda: is_gone(worker))
    assert stage.workers(front) == []
    assert stage.attached(front, lane=2) != worker


def test_the_successor_waits_for_the_fence(stage: Stage, server: Server) -> None:
    """The dead worker's connection is half-closed, and until the server ends it nobody is attached."""
    stage.ready()
    front = stage.front()
    worker = stage.attached(front)
    with connected(stage, worker, server) as client:
        stage.order(worker, "write", connection=1, text="written")
        stage.event("wrote")
        os.kill(worker, signal.SIGKILL)
        assert client.recv(100) == b"written"
        assert client.recv(100) == b""  # only the supervisor's half-close can end it: it keeps a duplicate
        client.sendall(b"the answers to what is still being applied")
        [row] = stage.workers(front)
        assert (row["state"], row["pid"]) == ("restarting", None)
        assert stage.unread("Serve")[1:] == []
    first, second = stage.event("Serve"), stage.event("Serve")
    assert first["generation"] < second["generation"]
    assert (second["doubts"], second["server_lost"]) == ([], False)
    stage.event("LaneSocket", lane=1)


def test_a_connection_announced_last_is_fenced_too(stage: Stage, server: Server) -> None:
    """What a worker said just before it died counts, however much of it is still unread."""
    stage.ready()
    worker = stage.attached(stage.front())
    os.kill(stage.process.pid, signal.SIGSTOP)
    stage.order(worker, "chatter")
    with connected(stage, worker, server) as client:
        os.kill(worker, signal.SIGKILL)
        wait_for("the worker is dead", lambda: is_zombie(worker))
        os.kill(stage.process.pid, signal.SIGCONT)
        assert client.recv(100) == b""
        client.sendall(b"still there")  # the supervisor reads: its duplicate is open


def test_a_fence_that_fails_leaves_doubts(stage: Stage, server: Server) -> None:
    """If the server does not end the connection in time, the successor is told what the ledger holds as begun."""
    stage.ready(stage.settings(**short_waits(fence_s=0.1)))
    worker = stage.attached(stage.front())
    stage.event("Serve")
    with connected(stage, worker, server):
        stage.order(worker, "begin", tag=1, offset=4096, length=8192)
        stage.event("begun")
        os.kill(worker, signal.SIGKILL)
        serve = stage.event("Serve")
    assert serve["doubts"] == [[4096, 8192, 1]]
    assert serve["doubts_until_s"] > 0


def test_a_lost_remote_server_is_told(stage: Stage, tmp_path: Path) -> None:
    """A TCP connection that the server had ended before the worker died: what was not flushed may be lost."""
    stage.ready()
    worker = stage.attached(stage.front())
    stage.event("Serve")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connected(stage, worker, Server(listener)).close()
        os.kill(worker, signal.SIGKILL)
        assert stage.event("Serve")["server_lost"]


def test_a_connection_the_worker_ended_is_let_go(stage: Stage, server: Server) -> None:
    """The supervisor's duplicate is closed when the worker says that the connection has ended."""
    stage.ready()
    worker = stage.attached(stage.front())
    before = kept_sockets(stage)
    with connected(stage, worker, server):
        # Of what was there before, some may go: the lane's own ends, which were handed out just now.
        wait_for("the duplicate is kept", lambda: len(kept_sockets(stage) - before) == 1)
        stage.order(worker, "disconnect", connection=1)
        wait_for("the duplicate is closed", lambda: not kept_sockets(stage) - before)


def test_deaths_leave_no_descriptor(stage: Stage, server: Server) -> None:
    """After a worker was killed, fenced and replaced, the supervisor holds as many descriptors as before."""
    stage.ready()
    worker = stage.attached(stage.front())
    stage.event("Serve")
    before = len(stage.fds_at_rest())
    with connected(stage, worker, server):
        os.kill(worker, signal.SIGKILL)
    stage.event("Serve")
    stage.event("LaneSocket")
    wait_for("the old descriptors are closed", lambda: len(stage.fds_at_rest()) == before)


@pytest.mark.parametrize("misdeed", ["garbage", "pass-file"])
def test_a_worker_that_says_nonsense_is_replaced(stage: Stage, misdeed: str) -> None:
    """A packet that is no message, or a connection that is no socket, costs the worker its life."""
    stage.ready()
    worker = stage.attached(stage.front())
    stage.order(worker, misdeed)
    stage.event("LaneSocket")
    assert is_gone(worker)


# -- giving up ---------------------------------------------------------------------------------------------------


def test_a_worker_that_keeps_dying_is_given_up(stage: Stage) -> None:
    """After as many deaths as the setting says its lanes are refused with a reason and a time to try again."""
    stage.ready(stage.settings(**short_waits(deaths=3)), worker="die-served")
    front = stage.front()
    stage.open(front, lane=1)
    refused = stage.event("LaneRefused", lane=1)
    assert "died 3 times" in refused["reason"]
    assert refused["retry_after_s"] == 0.2
    assert len(stage.unread("Serve")) == 3


def test_after_giving_up_there_is_a_pause(stage: Stage) -> None:
    """A lane opened at once is refused with the rest of the pause; later there is a fresh start."""
    stage.ready(stage.settings(**short_waits(deaths=1)), worker="die-served")
    front = stage.front()
    stage.open(front, lane=1)
    stage.event("LaneRefused", lane=1)
    stage.open(front, lane=2)
    retry_after_s = stage.event("LaneRefused", lane=2)["retry_after_s"]
    assert 0 < retry_after_s <= 0.2
    assert len(stage.unread("Serve")) == 1
    assert stage.silent_for_events(retry_after_s)
    stage.open(front, lane=3)
    stage.event("LaneRefused", lane=3)
    assert len(stage.unread("Serve")) == 2


def test_a_completed_job_begins_a_new_series(stage: Stage) -> None:
    """A worker that did something between its deaths is not given up."""
    stage.ready(stage.settings(**short_waits(deaths=2)))
    worker = stage.attached(stage.front())
    for _ in range(4):
        stage.order(worker, "complete")
        stage.event("completed")
        os.kill(worker, signal.SIGKILL)
        stage.event("LaneSocket")
        worker = stage.event("Attach")["pid"]
    assert stage.unread("LaneRefused") == []


def test_another_version_of_the_worker_is_given_up_at_once(stage: Stage) -> None:
    """A mixed set refuses clearly: the lane is told both versions, after one try."""
    stage.ready(stage.settings(**short_waits()), worker="other-version")
    stage.open(stage.front())
    assert "version 99" in stage.event("LaneRefused")["reason"]
    assert len(stage.unread("Serve")) == 1


# -- GET /workers ------------------------------------------------------------------------------------------------


def test_workers_are_listed(stage: Stage) -> None:
    """What the worker says, and what the supervisor knows of it."""
    stage.ready()
    front = stage.front()
    worker = stage.attached(front)
    [row] = stage.workers(front)
    expected: Event = {
        "export": "nbd+unix:///?socket=/nowhere", "pid": worker, "state": "connected", "connections": 0, "in_flight": 0,
        "in_flight_peak": 7, "bytes_read": 1, "bytes_written": 2, "restarts": 0, "replays": 3,
        "arena_bytes": 1 << 20, "lanes": [{"front_end": 1, "slots": 32, "slots_used": 0}],
    }  # fmt: skip
    assert row.pop("uss_bytes") > 0
    assert row == expected


def test_a_mute_worker_is_listed_as_such(stage: Stage) -> None:
    """A worker that does not answer within a second is shown, and holds nobody up."""
    stage.ready(worker="mute")
    front = stage.front()
    worker = stage.attached(front)
    [row] = stage.workers(front)
    assert (row["pid"], row["state"], row["in_flight"]) == (worker, "not answering", None)


# -- a front end that somebody has taken over ----------------------------------------------------------------------


def test_a_front_end_reaches_no_host_that_neither_settings_nor_tickets_name(stage: Stage) -> None:
    """Nor anything by calling it a library's: no worker is started for it."""
    image = "/pictures/5b591808-5246-4211-88ab-f009d1147588"
    stores = [FileStore("file", ["/pictures"])]
    allow = AllowSettings(("/",), ("/",), ("localhost", "192.0.2.0/24"), ("/",))
    named = [Image("own", "nbd://198.51.100.9:10809/own")]
    stage.ready(stage.settings(allow=allow, store=stores, image=named))
    front = stage.front()
    refused: list[dict[str, object]] = [
        {"transport": "tcp", "host": "198.51.100.7"},
        {"transport": "tcp", "host": "198.51.100.9", "name": "other"},
        {"transport": "tcp", "host": "198.51.100.7", "path": image, "frozen": True},
        {"transport": "unix", "socket": "/run/x", "path": image, "frozen": True},
        {"transport": "file", "path": image, "frozen": True, "whole_file": True},
        {"transport": "file", "path": "/etc/passwd", "frozen": True},
    ]
    for lane, export in enumerate(refused):
        stage.order(front, "open", lane=lane, export=export, arena_bytes=1)
        assert stage.event("LaneRefused", lane=lane)["retry_after_s"] is None, export
    taken: list[dict[str, object]] = [
        {"transport": "tcp", "host": "192.0.2.7"},
        {"transport": "tcp", "host": "198.51.100.9", "name": "own"},
    ]
    taken.append({"transport": "file", "path": image, "frozen": True})
    for lane, export in enumerate(taken):
        stage.order(front, "open", lane=lane, export=export, arena_bytes=1)
        assert stage.event("LaneSocket")["lane"] == lane

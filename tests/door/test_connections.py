"""Connections: how many there may be, who gets a refusal, and which front end takes one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.harness.certificates import Authority, tables
from tests.harness.fixtures import Images, StartMover
from tests.harness.http import Address, Client, connect, head, read_to_end
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, mapped
from tests.harness.transfers import download
from tests.harness.waiting import wait_until
from tests.operation.metrics import turned_away

pytestmark = pytest.mark.nbd

HEALTH = head("GET", "/healthz")


@contextmanager
def held(address: Address, count: int) -> Iterator[list[Client]]:
    """So many connections, each of which has had an answer."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(address)) for _ in range(count)]
        for client in clients:
            assert client.ask("GET", "/healthz").status == 200
        yield clients


def status(address: Address) -> int:
    """That of a question on a connection of its own; its body says what its status means."""
    with Client(address) as client:
        answer = client.ask("GET", "/healthz")
        if answer.status != 200:
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["connection"] == "close"
            assert "too many connections" in answer.json()["error"]
        return answer.status


def has_room(mover: Mover) -> bool:
    """Whether a connection is let in again; one that was closed is counted until the front end has seen it."""
    return status(mover.tcp) == 200


@pytest.mark.parametrize("front_ends", [1, 3])
def test_the_host_has_so_many_connections(front_ends: int, start_mover: StartMover) -> None:
    """One more than allowed over all front ends is 503, on the Unix socket, too; one that leaves makes room."""
    mover = start_mover({}, {"limits": {"connections": 10}}, front_ends)
    wait_until("the connection of the start is forgotten", lambda: has_room(mover))
    with held(mover.tcp, 6) as clients, held(mover.unix, 4):
        assert (status(mover.tcp), status(mover.unix)) == (503, 503)
        clients[0].close()
        wait_until("there is room", lambda: has_room(mover))
        for client in clients[1:]:
            assert client.ask("GET", "/healthz").status == 200
    wait_until("there is room for one that asks", lambda: has_room(mover))
    assert turned_away(mover, "connections") >= 2
    mover.stop_clean()


@pytest.mark.parametrize("front_ends", [1, 3])
def test_a_client_has_so_many_connections(front_ends: int, start_mover: StartMover) -> None:
    """One more than allowed of one address is 429; other addresses, and the Unix socket, are another matter."""
    mover = start_mover({}, {"limits": {"client_connections": 5}}, front_ends)
    with held(mover.tcp, 5) as clients, held(mover.unix, 8):
        assert status(mover.tcp) == 429
        assert turned_away(mover, "client_connections") == 1
        with contextlib.closing(socket.socket()) as other:
            other.bind(("127.0.0.2", 0))
            other.connect(mover.tcp)
            other.sendall(head("GET", "/healthz", Connection="close"))
            assert read_to_end(other).startswith(b"HTTP/1.1 200")
        clients[0].close()
        wait_until("there is room", lambda: has_room(mover))
    mover.stop_clean()


def test_limits_change_with_a_reload(start_mover: StartMover) -> None:
    """SIGHUP changes how many may come; those that are there stay."""
    mover = start_mover({}, {"limits": {"client_connections": 2}})
    with held(mover.tcp, 2) as clients:
        assert status(mover.tcp) == 429
        mover.configure({"limits": {"client_connections": 100}})
        mover.signal(signal.SIGHUP)
        wait_until("more are let in", lambda: has_room(mover))
        assert clients[0].ask("GET", "/healthz").status == 200
    mover.stop_clean()


def test_a_refusal_can_be_read_though_nothing_of_the_request_was(start_mover: StartMover) -> None:
    """A client that sends a large body at once reads the refusal, not a reset."""
    mover = start_mover({}, {"limits": {"client_connections": 1}})
    with held(mover.tcp, 1), contextlib.closing(connect(mover.tcp)) as sock:
        sock.sendall(head("PUT", "/images/x", Content_Length=50_000) + bytes(50_000))
        assert b'{"error":"too many connections from your address"}' in read_to_end(sock)
    mover.stop_clean()


def test_a_flood_of_connections_leaves_nothing(images: Images, start_mover: StartMover) -> None:
    """Five hundred connections over the limit cost nobody anything; when they are gone, nothing is left of them."""
    source = images.pattern("disk", 1, 4 * MIB)
    mover = start_mover({"disk": images.qemu_nbd(source)}, {"limits": {"client_connections": 20}})
    with mapped(source) as expected:
        download(mover.tcp, "/images/disk", expected)
        before = mover.settled_census()
        with ExitStack() as stack:
            for _ in range(500):
                stack.enter_context(contextlib.closing(connect(mover.tcp)))
            download(mover.unix, "/images/disk", expected)
        mover.assert_returns_to(before)
        download(mover.tcp, "/images/disk", expected)
    mover.stop_clean()


def test_over_tls_a_connection_too_many_is_closed_without_a_handshake(
    tmp_path: Path, images: Images, start_mover: StartMover
) -> None:
    """A handshake costs the server more than its client: there is no answer, and no slot is taken by it."""
    authority = Authority(tmp_path)
    own = authority.issue("server")
    mover = start_mover({}, {"limits": {"client_connections": 2}, "tls": tables(own)})
    secure = mover.secure(authority.client_context())
    with held(secure, 2), contextlib.closing(connect(mover.tcp)) as sock, contextlib.suppress(ConnectionResetError):
        assert sock.recv(100) == b""
    wait_until("there is room", lambda: not is_refused(secure))
    mover.stop_clean()


def is_refused(address: Address) -> bool:
    """Whether there is no answer."""
    try:
        return status(address) != 200
    except OSError:  # SSLError is one
        return True


# -- which front end ---------------------------------------------------------------------------------------------


def spread(mover: Mover) -> list[int]:
    """How many connections each front end has, the fewest first."""
    found: Counter[int] = Counter(dict.fromkeys(mover.front_end_pids(), 0))
    for pid in found:
        for connection in psutil.Process(pid).net_connections("tcp"):
            found[pid] += connection.status == psutil.CONN_ESTABLISHED
    return sorted(found.values())


@pytest.mark.parametrize(("front_ends", "connections"), [(2, 8), (3, 9), (2, 1)])
def test_connections_are_spread(front_ends: int, connections: int, start_mover: StartMover) -> None:
    """No front end has more than two above another, whatever comes; also when some have gone and others come."""
    mover = start_mover({}, front_ends=front_ends)
    with ExitStack() as stack:
        socks = [stack.enter_context(contextlib.closing(connect(mover.tcp))) for _ in range(connections)]
        wait_until("all are accepted", lambda: sum(spread(mover)) == connections)
        assert spread(mover)[-1] - spread(mover)[0] <= 2
        for _ in range(3):
            for _ in range(connections // 2):
                socks.pop(0).close()
            wait_until("they are seen to be gone", lambda: sum(spread(mover)) == len(socks))
            while len(socks) < connections:
                socks.append(stack.enter_context(contextlib.closing(connect(mover.tcp))))
            wait_until("all are accepted", lambda: sum(spread(mover)) == connections)
        assert spread(mover)[-1] - spread(mover)[0] <= 2
    mover.stop_clean()


def test_a_front_end_that_hangs_keeps_no_connection_waiting(start_mover: StartMover) -> None:
    """One with none of the connections stands still: the other one takes what comes, after a moment's courtesy."""
    mover = start_mover({}, {"supervisor": {"silence_s": 60}}, front_ends=2)
    stopped, _ = mover.front_end_pids()
    os.kill(stopped, signal.SIGSTOP)
    try:
        with held(mover.tcp, 12):
            assert spread(mover) == [0, 12]
    finally:
        os.kill(stopped, signal.SIGCONT)
    mover.stop_clean()


def test_the_connections_of_a_front_end_that_was_killed_do_not_count(start_mover: StartMover) -> None:
    """Its share of the limits is free again, and its successor gets connections as the other one does."""
    mover = start_mover({}, {"limits": {"connections": 21, "client_connections": 20}}, front_ends=2)
    with held(mover.tcp, 20) as clients:
        assert status(mover.tcp) == 429
        victim, _ = mover.front_end_pids()
        os.kill(victim, signal.SIGKILL)
        wait_until("it was replaced", lambda: len(set(mover.front_end_pids()) - {victim}) == 2)
        wait_until("its successor serves", lambda: mover.log().count("front end ready") == 3)
        alive = [client for client in clients if is_alive(client)]
        assert 8 <= len(alive) <= 12
        with held(mover.tcp, 20 - len(alive)):
            assert status(mover.tcp) == 429
            assert spread(mover)[0] >= 8
    mover.stop_clean()


def is_alive(client: Client) -> bool:
    """Whether the connection still answers."""
    try:
        return client.ask("GET", "/healthz").status == 200
    except OSError:
        return False

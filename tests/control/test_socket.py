"""The control socket against clients of all kinds: each is answered with one line, and harms no other."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mover.control.cloudstack import REQUEST_BYTES, REQUEST_S
from mover.control.store import FILE
from tests.control.agent import Agent, error, ok, read_answer
from tests.harness.http import read_to_end
from tests.harness.mover import ROOT, Mover
from tests.harness.transfers import Doing
from tests.harness.waiting import PROGRAM_S, wait_until

STATUS = b'{"action": "status"}'


@dataclass(frozen=True)
class House:
    """A Mover without images, and its agent."""

    mover: Mover
    agent: Agent


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One for all tests that leave it as they found it: without transfers."""
    room = tmp_path_factory.mktemp("control")
    agent = Agent(room / "run" / "image-server.sock")
    mover = Mover(room, {}, {"serve": {"control_socket": str(agent.path)}})
    with closing(mover):
        yield House(mover.start(), agent)


@pytest.mark.parametrize(
    ("request_bytes", "half_close"),
    [(STATUS + b"\n", False), (STATUS, True), (b" " + STATUS + b" \n more", True), (STATUS + b"\n" + STATUS, False)],
)
def test_a_request_ends_with_a_newline_or_a_half_close(house: House, request_bytes: bytes, half_close: bool) -> None:
    """Whichever comes first; what follows is not looked at."""
    assert house.agent.send(request_bytes, half_close=half_close) == ok(0)


@pytest.mark.parametrize(
    ("request_bytes", "told"),
    [
        (b"", "bad JSON"),
        (b"\n", "bad JSON"),
        (b'{"action": "sta', "bad JSON"),
        (b"\x00\xff\xfe garbage \x80\n", "bad JSON"),
        (b'{"action": "\xff"}\n', "bad JSON"),
        (b"[" * 60_000 + b"\n", "bad JSON"),
        (b'["status"]\n', "the request must be a JSON object"),
        (b"GET / HTTP/1.1\r\n\r\n", "bad JSON"),
        (STATUS + b" " * REQUEST_BYTES + b"\n", "the request is larger than 65536 bytes"),
        (b"x" * (1 << 20), "the request is larger than 65536 bytes"),
    ],
    ids=["nothing", "empty", "half", "bytes", "no-utf8", "deep", "list", "http", "too-long", "megabyte"],
)
def test_what_is_no_request_is_told_so(house: House, request_bytes: bytes, told: str) -> None:
    """One line says what is wrong, and the next request is answered as ever."""
    answer = house.agent.send(request_bytes)
    assert (answer["status"], answer["message"][: len(told)]) == ("error", told)
    assert house.agent.ask("status") == ok(0)


def test_a_request_of_the_largest_size_is_read(house: House) -> None:
    """64 KiB are a request, without the newline."""
    assert house.agent.send(STATUS.ljust(REQUEST_BYTES) + b"\n") == ok(0)


def test_who_sends_no_whole_request_is_let_go(house: House) -> None:
    """Half a request, or none at all: after five seconds, and no sooner, it is told so."""
    began = time.monotonic()
    with house.agent.connect() as silent, house.agent.connect() as half:
        half.sendall(STATUS[:10])
        assert house.agent.ask("status") == ok(0)
        for sock in (silent, half):
            assert read_answer(sock) == error("no whole request within 5 s")
    assert time.monotonic() - began >= REQUEST_S


def test_who_leaves_before_the_answer_harms_nobody(house: House) -> None:
    """However it left, it is forgotten: the supervisor holds no more descriptors than before."""
    before = psutil.Process(house.mover.pid).num_fds()
    for request_bytes in (b"", STATUS[:5], STATUS + b"\n", b"x" * 100_000):
        with house.agent.connect() as sock:
            try:
                sock.sendall(request_bytes)
            except OSError:
                pass  # it was answered already
    assert house.agent.ask("status") == ok(0)
    wait_until("their connections are closed", lambda: psutil.Process(house.mover.pid).num_fds() <= before)
    house.mover.assert_log_clean()


def test_fifty_at_once_are_all_answered(house: House) -> None:
    """Half of them say nothing; the others register a transfer each, and none is lost."""
    with ExitStack() as stack:
        for _ in range(25):
            stack.enter_context(house.agent.connect())
        config = {"socket": "/nowhere.sock"}
        registering = [
            Doing(lambda name=f"t{number}": house.agent.ask("register", transfer_id=name, config=config))  # type: ignore[misc]
            for number in range(50)
        ]
        assert sorted(one.result()["active_transfers"] for one in registering)[-1] == 50
    assert house.agent.ask("status") == ok(50)
    unregistering = [
        Doing(lambda name=f"t{number}": house.agent.ask("unregister", transfer_id=name))  # type: ignore[misc]
        for number in range(50)
    ]
    assert {one.result()["status"] for one in unregistering} == {"ok"}
    assert house.agent.ask("status") == ok(0)


def test_one_id_registered_by_many_at_once_is_one_transfer(house: House) -> None:
    """The last one counts, and all are answered."""
    config = {"socket": "/nowhere.sock"}
    registering = [Doing(lambda: house.agent.ask("register", transfer_id="one", config=config)) for _ in range(20)]
    assert [one.result() for one in registering] == [ok(1)] * 20
    assert house.agent.ask("unregister", transfer_id="one") == ok(0)


def test_a_disk_that_takes_nothing_refuses_the_transfer(mover: Mover, agent: Agent) -> None:
    """What would not survive a restart is not registered; the agent is told why."""
    with closing(sqlite3.connect(mover.state_dir / FILE)) as database:
        database.execute("DROP TABLE ticket")
    answer = agent.ask("register", transfer_id="one", config={"socket": "/nowhere.sock"})
    assert answer == error("cannot write the state directory: tickets.db: no such table: ticket")
    assert agent.ask("status") == ok(0)


# -- the file ----------------------------------------------------------------------------------------------------


def start_another(mover: Mover, agent: Agent, room: Path) -> subprocess.CompletedProcess[str]:
    """Try to start a second Mover on the same control socket."""
    command = [*mover.command, f"--state-dir={room}/state2", f"--unix-socket={room}/http2"]
    command += [f"--control-socket={agent.path}"]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=PROGRAM_S, check=False)


def test_a_live_control_socket_is_not_taken(house: House, room: Path) -> None:
    """A second Mover ends with status 3 and one line; the first one still answers."""
    second = start_another(house.mover, house.agent, room)
    said = [line for line in second.stderr.splitlines() if line.startswith("mover: ")]
    assert (second.returncode, len(said)) == (3, 1)
    assert "another process serves there" in said[0]
    assert "--control-socket" in said[0]
    assert house.agent.ask("status") == ok(0)


def test_a_stale_control_socket_is_replaced(mover: Mover, agent: Agent) -> None:
    """What a killed Mover left behind does not keep the next one from starting."""
    mover.process.kill()
    mover.wait_for_end()
    assert agent.path.exists()
    mover.start()
    assert agent.ask("status") == ok(0)


def test_a_mover_that_drains_answers_no_more(mover: Mover, agent: Agent) -> None:
    """At SIGTERM the socket goes, and whoever waits for an answer has the end of the connection."""
    with agent.connect() as waiting:
        assert agent.ask("status") == ok(0)
        assert mover.stop() == 0
        assert read_to_end(waiting) == b""
    with pytest.raises(FileNotFoundError), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(agent.path))


def test_the_answer_is_what_the_agent_parses(house: House) -> None:
    """Exactly the keys of the contract, in one line."""
    with house.agent.connect() as sock:
        sock.sendall(STATUS + b"\n")
        assert json.loads(read_to_end(sock)) == {"status": "ok", "active_transfers": 0}

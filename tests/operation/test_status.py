"""`mover status` and `mover top` against a real service."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import connect, head
from tests.harness.mover import PROGRAM, ROOT, Mover
from tests.harness.patterns import MIB
from tests.harness.waiting import PATIENCE_S, PROGRAM_S, wait_until

pytestmark = pytest.mark.nbd

ID = "0123456789-a-secret"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments], cwd=ROOT, text=True, capture_output=True, timeout=PROGRAM_S, check=False
    )


@pytest.fixture
def mover(images: Images, start_mover: StartMover) -> Mover:
    """A service with two front ends and a transfer."""
    server = images.qemu_nbd(images.pattern("disk", 1, 64 * MIB))
    mover = start_mover({ID: server}, front_ends=2)
    assert mover.ask("GET", f"/images/{ID}").status == 200
    assert mover.ask("PUT", f"/images/{ID}", bytes(MIB)).status == 200
    return mover


def test_status_shows_the_house(mover: Mover) -> None:
    """Front ends, the transfer with its bytes, the worker; ids never whole; everything once more as JSON."""
    with connect(mover.tcp, receive_buffer=65536) as sock:
        sock.sendall(head("GET", f"/images/{ID}"))
        sock.recv(1)
        shown = run("status", "--socket", str(mover.unix), "--interval", "0.1")
        found = json.loads(run("status", "--socket", str(mover.unix), "--interval", "0.1", "--json").stdout)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "ready" in shown.stdout
    assert "1 tickets, 1 workers" in shown.stdout
    assert str(mover.worker_pid()) in shown.stdout
    assert ID not in shown.stdout + json.dumps(found)
    [transfer] = found["transfers"]
    assert (transfer["in_flight"], transfer["requests"], transfer["bytes_in"]) == (1, 2, MIB)
    assert transfer["bytes_out"] > 64 * MIB
    assert (found["faults"], found["tickets"], len(found["front_ends"])) == ([], 1, 2)
    assert sum(row["in_flight"] for row in found["front_ends"]) == 1
    [worker] = found["worker_rows"]
    assert worker["bytes_read"] >= 64 * MIB
    assert {"read_rate", "written_rate"} <= set(worker)
    mover.stop_clean()


def test_status_says_what_is_not_ready(mover: Mover) -> None:
    """Status 1, and which front end it is."""
    pid = mover.front_end_pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        # The other one answers, if the connection comes to it.
        def shown() -> str:
            done = run("status", "--socket", str(mover.unix), "--interval", "0.1")
            return done.stdout if done.returncode == 1 else ""

        assert "not ready: front end 1 does not answer" in wait_until("status 1", shown)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_no_service_is_status_3(mover: Mover) -> None:
    """One line says which socket, why, and what to do; without any socket it is wrong usage."""
    assert mover.stop() == 0
    done = run("status", "--socket", str(mover.unix))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"mover: status: {mover.unix}: no such file or directory: ")
    done = run("top", "--config", os.devnull)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_top_shows_once_without_a_terminal(mover: Mover) -> None:
    """Plain text, with or without --once; the socket may come from the settings."""
    for arguments in (["--once"], []):
        done = run("top", "--socket", str(mover.unix), "--interval", "0.1", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "1 tickets, 1 workers" in done.stdout


def test_top_is_live_on_a_terminal(mover: Mover) -> None:
    """It goes on showing until q is pressed, and leaves the terminal as it was."""
    ours, theirs = pty.openpty()
    before = subprocess.run(["stty", "-a"], stdin=theirs, capture_output=True, check=True).stdout
    command = [*PROGRAM, "top", "--socket", str(mover.unix), "--interval", "0.1"]
    environ = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as process:
        try:
            seen = b""
            deadline = time.monotonic() + PATIENCE_S
            while seen.count(b"1 tickets") < 2:
                assert time.monotonic() < deadline, seen
                if select.select([ours], [], [], 1)[0]:
                    seen += os.read(ours, 65536)
            os.write(ours, b"q")
            while process.poll() is None:
                if select.select([ours], [], [], 0.1)[0]:
                    os.read(ours, 65536)
                assert time.monotonic() < deadline
        finally:
            if process.poll() is None:
                process.kill()
    assert process.returncode == 0
    assert subprocess.run(["stty", "-a"], stdin=theirs, capture_output=True, check=True).stdout == before
    os.close(ours)
    os.close(theirs)

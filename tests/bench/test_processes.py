"""Servers as child processes, with small Python programs in their place."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from mover.bench import clients, processes
from mover.bench.errors import ClientError, StartError
from mover.bench.processes import Server, running
from mover.cli.terminable import terminable

READY = "print('ready', flush=True); "
FOREVER = "import signal; signal.pause()"


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def printed(server: Server, text: str) -> None:
    server.wait_until(lambda: text in server.output() or None)


def test_a_server_runs_for_the_time_of_the_block_and_not_longer(tmp_path: Path) -> None:
    with running("it", program(READY + FOREVER), tmp_path / "log") as server:
        printed(server, "ready")
        assert psutil.pid_exists(server.pid)
    assert server.process.returncode == -signal.SIGTERM


def test_a_server_is_ended_where_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), running("it", program(FOREVER), tmp_path / "log") as server:
        raise KeyboardInterrupt
    assert server.process.returncode is not None


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.05)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    with running("it", program(deaf + READY + "\nwhile True: signal.pause()"), tmp_path / "log") as server:
        printed(server, "ready")
    assert server.process.returncode == -signal.SIGKILL


def test_a_server_that_exits_before_it_is_ready_is_an_error_with_its_status_and_last_words(tmp_path: Path) -> None:
    text = "import sys; sys.exit('address in use')"
    with (
        pytest.raises(StartError, match="it did not start: it exited with status 1: address in use"),
        running("it", program(text), tmp_path / "log") as server,
    ):
        printed(server, "ready")


def test_a_server_that_never_gets_ready_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "READY_S", 0.05)
    with (
        pytest.raises(StartError, match="not ready after"),
        running("it", program(FOREVER), tmp_path / "log") as server,
    ):
        printed(server, "ready")


def test_sigterm_is_an_interrupt_inside_the_block_and_what_it_was_after_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_client_that_fails_is_an_error_with_its_status_and_last_words() -> None:
    with pytest.raises(ClientError, match="status 7: refused"):
        clients.timed(program("import sys; sys.stderr.write('refused'); sys.exit(7)"))


def test_a_client_is_killed_where_its_block_fails() -> None:
    with pytest.raises(KeyboardInterrupt), clients.started(program(FOREVER)) as client:
        raise KeyboardInterrupt
    assert client.returncode == -signal.SIGKILL


def test_clients_together_all_run_at_once_and_all_end(tmp_path: Path) -> None:
    # Each opens its end of the pipe, which blocks until the other one has too.
    os.mkfifo(tmp_path / "pipe")
    commands = [program(f"open({str(tmp_path / 'pipe')!r}, {mode!r}).close()") for mode in ("r", "w")]
    assert clients.timed_together(commands) > 0


def test_the_first_byte_of_a_command_is_timed_and_the_rest_is_read() -> None:
    assert clients.first_byte_of(program("print('x' * 3000000)")) > 0


def test_memory_is_what_the_client_held_at_its_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    samples = iter([10 << 20, 50 << 20])

    def sample(_process: psutil.Process) -> int:
        with contextlib.suppress(StopIteration):
            return next(samples)
        # The client waits in its open() until now: it runs for exactly as long as there are samples.
        with contextlib.suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return 20 << 20

    monkeypatch.setattr(clients, "_unshared", sample)
    assert clients.peak_memory(program(f"open({str(pipe)!r}).close()")) == 50

"""How the supervisor starts to listen, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from tests.serve.stage import Stage, is_gone, short_waits, wait_for


def test_sigterm_drains_and_leaves_nothing(stage: Stage) -> None:
    """Front ends drain, then workers leave, the socket's file goes, the status is 0, nobody is left."""
    stage.ready(stage.settings(front_ends=2))
    worker = stage.attached(stage.front())
    stage.signal()
    stage.event("Drain")
    stage.event("Drain")
    stage.event("Leave", pid=worker)
    assert stage.status() == 0
    assert not os.path.exists(stage.unix_path)
    assert all(map(is_gone, stage.pids))


def test_workers_outlive_the_drain(stage: Stage) -> None:
    """While a front end finishes what is in flight, a worker that dies is still replaced."""
    stage.ready(front="stay")
    front = stage.front()
    worker = stage.attached(front)
    stage.signal()
    stage.event("Drain")
    os.kill(worker, signal.SIGKILL)
    stage.event("LaneSocket", pid=front)
    stage.order(front, "exit", status=0)
    assert stage.status() == 0


def test_front_ends_that_do_not_drain_are_killed(stage: Stage) -> None:
    """The drain has a deadline: front ends left over are killed, and the status is still 0."""
    stage.ready(stage.settings(drain_s=0.1), front="stay")
    stage.signal()
    assert stage.status() == 0
    assert all(map(is_gone, stage.pids))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_second_signal_ends_at_once(stage: Stage, number: signal.Signals, status: int) -> None:
    """The second signal kills every child and ends without waiting for the drain, which would take an hour."""
    stage.ready(stage.settings(drain_s=3600.0), front="stay", worker="stay")
    stage.attached(stage.front())
    stage.signal()
    stage.event("Drain")
    stage.signal(number)
    assert stage.status() == status
    assert all(map(is_gone, stage.pids))
    assert not os.path.exists(stage.unix_path)


def test_sigterm_before_ready_ends_the_start(stage: Stage) -> None:
    """A signal during the start ends it with status 0 and no ready line."""
    stage.start(front="silent")
    stage.front()
    stage.signal()
    assert stage.status() == 0
    assert all(map(is_gone, stage.pids))


def test_a_killed_supervisor_orphans_nobody(stage: Stage) -> None:
    """After kill -9 of the supervisor every child reads the end of its channel."""
    stage.ready()
    stage.attached(stage.front())
    stage.signal(signal.SIGKILL)
    stage.status()
    wait_for("the children leave", lambda: all(map(is_gone, stage.pids)))


def test_a_taken_port_ends_the_start(stage: Stage) -> None:
    """One line says which port, and why, and what to do; the status is 3."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        settings = stage.settings()
        stage.start(stage.with_serve(settings, port=port))
        line = stage.line("mover: cannot listen")
        assert f"127.0.0.1 port {port}: address already in use, give" in line
        assert stage.status() == 3


def test_ipv6_is_listened_on(stage: Stage) -> None:
    """An IPv6 address gets an IPv6 socket, shown in brackets."""
    assert "http://[::1]:" in stage.ready(stage.with_serve(stage.settings(), listen="::1"))


def test_a_stale_socket_is_replaced(stage: Stage) -> None:
    """A socket's file that nobody listens on is replaced, with mode 0660."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(stage.unix_path)
    stage.ready()
    assert stat.S_IMODE(os.stat(stage.unix_path).st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(stage.unix_path)


def test_a_live_socket_is_an_error(stage: Stage) -> None:
    """A socket that somebody listens on is left alone, the status is 3."""
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(stage.unix_path)
        alive.listen()
        stage.start()
        assert "another process serves there" in stage.line("mover: cannot listen")
        assert stage.status() == 3
        assert os.path.exists(stage.unix_path)


def test_a_file_in_the_socket_s_place_is_an_error(stage: Stage) -> None:
    """A file that is no socket is never removed, the status is 3."""
    Path(stage.unix_path).write_text("precious")
    stage.start()
    assert "no socket" in stage.line("mover: cannot listen")
    assert stage.status() == 3
    assert Path(stage.unix_path).read_text() == "precious"


def test_another_s_socket_is_not_removed_at_the_end(stage: Stage) -> None:
    """If somebody else has taken the path meanwhile, the file is theirs and stays."""
    stage.ready()
    os.unlink(stage.unix_path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(stage.unix_path)
        stage.signal()
        assert stage.status() == 0
        assert os.path.exists(stage.unix_path)


def test_the_state_directory_is_private(stage: Stage) -> None:
    """The state directory is made with mode 0700."""
    stage.ready()
    assert stat.S_IMODE(os.stat(stage.directory / "state").st_mode) == 0o700


def test_a_state_directory_that_is_a_file_is_an_error(stage: Stage) -> None:
    """One line says what is wrong with it; the status is 3."""
    (stage.directory / "state").write_text("")
    stage.start()
    assert "it is no directory" in stage.line("mover: cannot use the state directory")
    assert stage.status() == 3


def test_children_inherit_only_what_is_theirs(stage: Stage) -> None:
    """A child holds its end of its channel, and no other socket of the supervisor's."""
    stage.ready(stage.settings(**short_waits()))
    worker = stage.attached(stage.front())
    fds = [os.readlink(f"/proc/{worker}/fd/{fd}") for fd in os.listdir(f"/proc/{worker}/fd")]
    # its channel, its line to the test, its lane
    assert len([fd for fd in fds if fd.startswith("socket:")]) == 3
    assert not [fd for fd in fds if "eventpoll" in fd or "pidfd" in fd]

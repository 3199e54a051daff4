"""Front ends as the supervisor keeps them: started, told, restarted, never believed."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from config.settings import Image
from tests.serve.stage import Stage, is_gone, short_waits, wait_for


def test_ready_line_says_where(stage: Stage) -> None:
    """When every front end serves, one line on standard error says where."""
    line = stage.ready(stage.settings(front_ends=2))
    assert line.startswith("mover: ready on http://127.0.0.1:")
    assert line.endswith(f" and unix:{stage.unix_path}")


def test_begin_comes_first_with_the_listening_sockets(stage: Stage) -> None:
    """The first message is Begin, with the TCP and the Unix socket and the seats; then come the tickets."""
    stage.ready(stage.settings(image=[Image("demo", "nbd:unix:/demo.sock")]))
    begin = stage.event("Begin")
    assert (begin["front_end"], begin["fds"], begin["tcp"]) == (1, 5, True)
    assert begin["unix_socket"] == stage.unix_path
    [ticket] = stage.event("Tickets")["installed"]
    assert (ticket["id"], ticket["write"], ticket["sparse"], ticket["version"]) == ("demo", True, False, 1)
    assert ticket["export"]["socket"] == "/demo.sock"


def test_a_set_too_big_for_a_packet_comes_in_pieces(stage: Stage) -> None:
    """Tickets that fill several packets all arrive, in messages with increasing numbers, before the ready line."""
    images = [Image(f"{number:0200}", "nbd:unix:/demo.sock") for number in range(2000)]
    stage.ready(stage.settings(image=images))
    pieces = stage.unread("Tickets")
    assert len(pieces) > 1
    assert [piece["number"] for piece in pieces] == sorted({piece["number"] for piece in pieces})
    assert [ticket["id"] for piece in pieces for ticket in piece["installed"]] == [image.id for image in images]


def test_not_ready_before_the_tickets_are_in_force(stage: Stage) -> None:
    """A front end that says it is ready is believed only when it has acknowledged the whole set."""
    stage.start(front="no-ack")
    front = stage.event("Begin")["pid"]
    number = stage.event("Tickets")["number"]
    assert stage.silent_for(0.2)
    stage.order(front, "apply", number=number)
    stage.line("mover: ready on")


def test_both_sockets_are_served(stage: Stage) -> None:
    """A client reaches a front end over TCP and over the Unix socket."""
    line = stage.ready()
    port = int(line.split()[3].rpartition(":")[2])
    for address in (("127.0.0.1", port), stage.unix_path):
        with socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX) as client:
            client.connect(address)
            stage.event("accepted")


def test_a_killed_front_end_is_replaced_on_the_same_sockets(stage: Stage) -> None:
    """After kill -9 another process has the same number and the same listening sockets."""
    line = stage.ready()
    port = int(line.split()[3].rpartition(":")[2])
    first = stage.event("Begin")
    os.kill(first["pid"], signal.SIGKILL)
    second = stage.event("Begin")
    assert second["pid"] != first["pid"]
    assert second["front_end"] == first["front_end"]
    with socket.create_connection(("127.0.0.1", port)):
        stage.event("accepted", pid=second["pid"])


def test_a_front_end_that_keeps_dying_is_restarted_ever_later(stage: Stage) -> None:
    """The first restart is at once, the next ones wait 0.1 s and 0.2 s at least."""
    stage.ready(stage.settings(**short_waits()))
    begun = []
    for _ in range(4):
        pid = stage.event("Begin")["pid"]
        begun.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
    assert begun[2] - begun[1] >= 0.1
    assert begun[3] - begun[2] >= 0.2


def test_a_front_end_that_says_nonsense_is_replaced(stage: Stage) -> None:
    """A packet that is no message costs its sender its life, and nobody else anything."""
    stage.ready()
    first = stage.front()
    stage.order(first, "garbage")
    stage.front()
    assert is_gone(first)


def test_a_front_end_that_claims_the_future_is_replaced(stage: Stage) -> None:
    """An acknowledgement of a change that was never sent is a lie."""
    stage.ready()
    first = stage.front()
    stage.order(first, "apply", number=1000)
    stage.front()
    assert is_gone(first)


def test_a_front_end_that_releases_what_it_has_not_is_replaced(stage: Stage) -> None:
    """A ticket that is in force, or that nobody ever saw, cannot be released."""
    stage.ready(stage.settings(image=[Image("demo", "nbd:unix:/demo.sock")]))
    for version in (1, 1000):
        front = stage.front()
        stage.order(front, "release", version=version)
        wait_for("it is gone", lambda front=front: is_gone(front))  # type: ignore[misc]


def test_tickets_are_looked_for_where_the_settings_say(stage: Stage, tmp_path: Path) -> None:
    """A front end that asks for an id has its ticket before the answer; the others have it, too."""
    (tmp_path / "one").write_text('{"socket": "/disk.sock"}')
    stage.ready(stage.with_serve(stage.settings(front_ends=2), transfer_dir=str(tmp_path)))
    first, second = stage.event("Begin"), stage.event("Begin")
    assert first["ask"]
    assert second["ask"]
    stage.order(first["pid"], "ask-ticket", id="one")
    assert stage.event("TicketAnswer", pid=first["pid"])["id"] == "one"
    for front in (first["pid"], second["pid"]):
        assert stage.event("Tickets", pid=front)["installed"] == []  # as it began
        assert stage.event("Tickets", pid=front)["installed"][0]["id"] == "one"


def test_nobody_asks_where_there_is_nothing_to_look(stage: Stage) -> None:
    """Without a directory of transfers an unknown id costs no question; one that is asked is answered."""
    stage.ready()
    begin = stage.event("Begin")
    assert not begin["ask"]
    for ticket_id in ("one", "../../etc/passwd", "\0", ""):
        stage.order(begin["pid"], "ask-ticket", id=ticket_id)
        assert stage.event("TicketAnswer")["id"] == ticket_id


def test_a_mixed_set_refuses_to_start(stage: Stage) -> None:
    """A front end of another version ends the start with one line and status 3."""
    stage.start(front="other-version")
    line = stage.line("mover: cannot start")
    assert "version 99" in line
    assert stage.status() == 3


def test_front_ends_that_never_come_up_end_the_start(stage: Stage) -> None:
    """A front end that dies again and again before it was ready ends the start with one line and status 3."""
    stage.start(front="die")
    assert "front end 1 ended with status 9" in stage.line("mover: cannot start")
    assert stage.status() == 3


def test_a_dead_front_end_loses_its_lanes(stage: Stage) -> None:
    """The arena memory of a dead front end can be used by the next one, and its lanes are not attached again."""
    stage.ready(stage.settings(**short_waits(arena_limit_bytes=1 << 20)))
    first = stage.front()
    worker = stage.attached(first)
    os.kill(first, signal.SIGKILL)
    second = stage.front()
    assert stage.attached(second) == worker
    os.kill(worker, signal.SIGKILL)
    stage.event("Serve")
    assert stage.event("Attach")["front_end"] == 1
    stage.event("LaneSocket", pid=second)
    assert stage.unread("Attach") == []


def test_no_descriptor_is_left_of_a_dead_front_end(stage: Stage) -> None:
    """After a front end was replaced, the supervisor holds as many descriptors as before."""
    stage.ready()
    first = stage.front()
    before = len(stage.fds())
    os.kill(first, signal.SIGKILL)
    stage.front()
    wait_for("the old descriptors are closed", lambda: len(stage.fds()) == before)

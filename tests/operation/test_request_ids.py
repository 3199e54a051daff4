"""The name of a request: accepted or made, in the answer and in every line of the log that it causes."""

from __future__ import annotations

import contextlib
import json
from contextlib import closing
from typing import Any

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import connect, head, read_to_end
from tests.harness.mover import Mover
from tests.harness.patterns import MIB
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.nbd

SANE = ["a", "backup-17", "0123456789abcdef" * 4, "1-5f/a:b=c+d@e.f_g"]
NOT_SANE = ["", " ", "a b", "x" * 65, 'a"b', "a\tb", "é", "a,b", "%0a"]


def lines_of(mover: Mover, name: str) -> list[dict[str, Any]]:
    """What the log says of a request."""
    lines = [json.loads(line) for line in mover.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("request") == name]


@pytest.mark.parametrize("name", SANE)
def test_a_sane_name_is_kept(name: str, house: Mover) -> None:
    """The client's own name comes back."""
    assert house.ask("GET", "/healthz", X_Request_Id=name).headers["x-request-id"] == name


@pytest.mark.parametrize("name", NOT_SANE)
def test_any_other_name_is_replaced(name: str, house: Mover) -> None:
    """What could break a line or a header gets a name of ours."""
    given = house.ask("GET", "/healthz", X_Request_Id=name)
    assert given.headers["x-request-id"] not in ("", name)


def test_names_that_are_made_are_unique(house: Mover) -> None:
    """Over requests, connections, and answers of every status."""
    answers = [house.ask("GET", path) for path in ("/healthz", "/nothing", "/images/nobody", "/readyz") * 5]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_one_line_says_what_a_request_came_to(images: Images, start_mover: StartMover) -> None:
    """Method, kind, transfer, status, offset, bytes, time, client and name: one line, whatever became of it."""
    server = images.qemu_nbd(images.pattern("disk", 1, 4 * MIB))
    mover = start_mover({"a-secret-id": server}, {"log": {"format": "json"}})
    mover.ask("GET", "/images/a-secret-id", Range="bytes=4096-8191", X_Request_Id="small")
    mover.ask("GET", "/images/a-secret-id", X_Request_Id="large", unix=True)
    mover.ask("PUT", "/images/a-secret-id", bytes(MIB), Content_Range=f"bytes {MIB}-*/*", X_Request_Id="put")
    mover.ask("GET", "/images/another-secret-id", X_Request_Id="unknown")
    mover.ask("GET", "/images/a-secret-id/extents", X_Request_Id="extents")
    wait_until("the last one is written", lambda: lines_of(mover, "extents"))

    def said(name: str) -> tuple[object, ...]:
        [line] = lines_of(mover, name)
        assert (line["event"], line["level"], line["logger"]) == ("request", "info", "mover.front")
        assert 0 < line["time_us"] < 20_000_000
        return tuple(line[key] for key in ("method", "kind", "transfer", "status", "offset", "bytes", "client"))

    assert said("small") == ("GET", "image", 1, 206, 4096, 4096, "127.0.0.1")
    assert said("large") == ("GET", "image", 1, 200, 0, 4 * MIB, "unix")
    assert said("put") == ("PUT", "image", 1, 200, MIB, MIB, "127.0.0.1")
    assert said("unknown") == ("GET", "image", 0, 404, 0, 0, "127.0.0.1")
    assert said("extents") == ("GET", "extents", 1, 200, 0, 0, "127.0.0.1")
    assert "secret-id" not in mover.log()
    mover.stop_clean()


def test_every_line_that_a_request_causes_has_its_name(images: Images, start_mover: StartMover) -> None:
    """A body that had to be broken off is an error with the request's name, and then there is its line."""
    file, trigger = images.pattern("disk", 1, 64 * MIB), images.room / "trigger"
    errors = ["error-pread-rate=100%", f"error-file={trigger}"]
    server = images.nbdkit("failing", "file", f"file={file}", *errors, filters=["error"])
    mover = start_mover({"disk": server}, {"log": {"format": "json"}})
    with closing(connect(mover.tcp, receive_buffer=65536)) as sock:
        sock.sendall(head("GET", "/images/disk", X_Request_Id="broken"))
        sock.recv(1)
        trigger.touch()
        with contextlib.suppress(ConnectionError):
            read_to_end(sock)
    wait_until("its line is written", lambda: len(lines_of(mover, "broken")) == 2)
    why, line = lines_of(mover, "broken")
    assert (why["event"], why["level"]) == ("broken off", "error")
    assert (line["event"], line["status"]) == ("request", 0)
    assert line["bytes"] == why["offset"] < 64 * MIB
    mover.stop_clean()


@pytest.mark.parametrize("settings", [{"requests": False}, {"level": "warning"}])
def test_lines_of_requests_can_be_left_out(
    settings: dict[str, bool | str], images: Images, start_mover: StartMover
) -> None:
    """By a setting of their own, or with all that is only information."""
    server = images.qemu_nbd(images.pattern("disk", 1, MIB))
    mover = start_mover({"disk": server}, {"log": settings})
    assert mover.ask("GET", "/images/disk").status == 200
    mover.stop_clean()
    assert "mover.front: request" not in mover.log()

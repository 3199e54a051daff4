"""imageio's ticket service on a real Mover, side by side with imageio's own daemon where that is there."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mover.bench.processes import running
from mover.bench.servers import IMAGEIO_CONFIGURATION, find_imageio
from mover.control.http_socket import BODY_BYTES, CONNECTIONS_MOST, HEAD_BYTES, REQUEST_S
from tests.harness.http import Client, connect, read_to_end
from tests.harness.mover import Mover, Tables
from tests.harness.transfers import Doing
from tests.harness.waiting import wait_until
from tests.tickets.vdsm import Vdsm

IMAGEIO = find_imageio()
UUID = "6ff7b5f4-93f9-4b2e-8a5e-8ab2a1a0f7a1"
TICKET: dict[str, Any] = {
    "uuid": UUID, "size": 1 << 30, "url": "nbd:unix:/run/none.sock", "timeout": 300, "ops": ["write"],
    "transfer_id": "transfer", "filename": "disk.qcow2", "sparse": True, "dirty": False, "inactivity_timeout": 7,
}  # fmt: skip


def without(*keys: str, **more: object) -> dict[str, Any]:
    return {key: value for key, value in (TICKET | more).items() if key not in keys}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mover, Vdsm]]:
    """One Mover for all tests that leave it as they found it: without tickets."""
    room = tmp_path_factory.mktemp("tickets")
    vdsm = Vdsm(room / "tickets.sock")
    mover = Mover(room, {}, {"serve": {"ticket_socket": str(vdsm.path)}}, 2)
    with closing(mover):
        yield mover.start(), vdsm


@pytest.fixture
def service(house: tuple[Mover, Vdsm]) -> Vdsm:
    """Its ticket service."""
    return house[1]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vdsm]:
    """imageio's own."""
    if IMAGEIO is None:
        pytest.skip("ovirt-imageio is missing: `.ci/setup imageio` installs it")
    room = tmp_path_factory.mktemp("imageio")
    (room / "conf.d").mkdir()
    configuration = IMAGEIO_CONFIGURATION.format(socket=room / "control", tls="enable = false")
    (room / "conf.d/50-test.conf").write_text(configuration)
    with running("ovirt-imageio", [str(IMAGEIO), "--conf-dir", str(room)], room / "log") as server:
        server.wait_until(lambda: "Ready for requests" in server.output() or None)
        yield Vdsm(room / "control")


# -- what both say -----------------------------------------------------------------------------------------------

# Method, id, body; both answer the same status, and an error names the same key.
SAID: list[tuple[str, str, object, str]] = [
    ("PUT", UUID, TICKET, ""),
    ("PUT", UUID, TICKET, ""),
    ("PUT", UUID, without("transfer_id", "filename", "sparse", "dirty", "inactivity_timeout"), ""),
    ("PUT", UUID, without(unheard_of=1), ""),
    ("PUT", UUID, without(ops=[]), ""),
    *(("PUT", UUID, without(key), key) for key in ("uuid", "size", "ops", "timeout", "url")),
    *(
        ("PUT", UUID, without(**{key: wrong}), key)
        for key, wrong in [
            ("uuid", 1), ("size", "1"), ("size", 1.5), ("size", None), ("ops", "read"), ("timeout", "300"), ("url", 1),
            ("url", "ftp://x/"), ("url", "none"), ("transfer_id", 1), ("filename", 1), ("sparse", "yes"),
            ("dirty", 1), ("inactivity_timeout", "7"), ("filename", None),
        ]
    ),
    ("PUT", UUID, b"", "json"),
    ("PUT", UUID, b"{", "json"),
    ("PUT", UUID, b"\xff", "json"),
    ("PUT", UUID, [], "Invalid ticket"),
    ("PUT", "", TICKET, "Ticket id is required"),
    ("GET", UUID, None, ""),
    ("GET", "nobody", None, "No such ticket"),
    ("PATCH", UUID, {"timeout": 60}, ""),
    ("PATCH", UUID, {"timeout": 0}, ""),
    ("PATCH", UUID, {"timeout": 60, "other": 1}, ""),
    ("PATCH", UUID, {}, "timeout"),
    ("PATCH", UUID, {"timeout": "60"}, "Integer required"),
    ("PATCH", UUID, {"timeout": 1.5}, "Integer required"),
    ("PATCH", UUID, {"timeout": -1}, "-1 < 0"),
    ("PATCH", UUID, b"{", "Invalid patch"),
    ("PATCH", "nobody", {"timeout": 60}, "No such ticket"),
    ("PATCH", "nobody", {}, "timeout"),
    ("PATCH", "", {"timeout": 60}, "Ticket id is required"),
    ("POST", UUID, TICKET, ""),
    ("DELETE", UUID, None, ""),
    ("DELETE", UUID, None, ""),
    ("DELETE", "nobody", None, ""),
    ("DELETE", "", None, ""),
    ("GET", UUID, None, "No such ticket"),
]  # fmt: skip


def test_both_services_answer_alike(service: Vdsm, theirs: Vdsm) -> None:
    """Each request in turn: the same status, an empty body where theirs is empty, and errors that name the same."""
    for method, ticket_id, body, named in SAID:
        ours, other = service.ask(method, ticket_id, body), theirs.ask(method, ticket_id, body)
        assert (ours.status, not ours.body) == (other.status, not other.body), (method, ticket_id, body, ours, other)
        for answer in (ours, other):
            assert named in answer.body.decode(), (method, ticket_id, body, answer)
        if ours.status >= 400:
            assert list(ours.json()) == ["error"]


def test_both_services_tell_the_same_of_a_ticket(service: Vdsm, theirs: Vdsm) -> None:
    """Every key that they have, with a value of the same type; equal, but for the time."""
    tickets: list[dict[str, Any]] = [TICKET, without("transfer_id", "filename", ops=["read", "write"])]
    for ticket in tickets:
        ours: dict[str, Any] = {}
        other: dict[str, Any] = {}
        for vdsm, found in ((service, ours), (theirs, other)):
            vdsm.ask("PUT", UUID, ticket)
            found |= vdsm.look(UUID)
            vdsm.remove(UUID)
        assert {key: type(ours.get(key)) for key in other} == {key: type(value) for key, value in other.items()}
        assert abs(ours.pop("expires") - other.pop("expires")) < 60
        assert {key: ours[key] for key in other} == other
        assert "transferred" in ours or len(ticket["ops"]) > 1


def test_what_they_take_and_mover_does_not(service: Vdsm) -> None:
    """Tickets that could never work, or that do not say what they mean."""
    refused: list[tuple[dict[str, Any], str]] = [
        ({"uuid": str(uuid4())}, "uuid"), ({"uuid": ""}, "uuid"), ({"size": True}, "size"), ({"size": -1}, "size"),
        ({"timeout": -1}, "timeout"), ({"ops": ["erase"]}, "ops"), ({"inactivity_timeout": 0}, "inactivity_timeout"),
        ({"url": "https://host/disk"}, "url"), ({"token": "short"}, "token"), ({"token": "ü" * 20}, "token"),
        ({"filename": "x" * 1025}, "filename"),
    ]  # fmt: skip
    for wrong, named in refused:
        answer = service.ask("PUT", UUID, without(**wrong))
        assert (answer.status, f"'{named}'" in answer.json()["error"]) == (400, True), (wrong, answer)
    for bad in ("..", "a%2Fb", "%00", "%ff", "x" * 256):
        assert service.ask("PUT", bad, without(uuid=bad)).status == 400
    assert service.ask("GET").json() == []


def test_the_list_has_them_all(service: Vdsm) -> None:
    """What GET says of each; DELETE without an id removes them."""
    ids = [service.install(str(TICKET["url"]), 1, "read") for _ in range(3)]
    found = {one["uuid"]: one for one in service.ask("GET").json()}
    assert sorted(found) == sorted(ids)
    assert found[ids[0]] == service.look(ids[0])
    service.remove()
    assert service.ask("GET").json() == []


@pytest.mark.parametrize("target", ["/", "/tickets", "/images/x", "/ticket/x"])
def test_there_is_nothing_else(service: Vdsm, target: str) -> None:
    """404, whatever the method."""
    with Client(service.path) as client:
        assert client.ask("GET", target).status == 404
        assert client.ask("DELETE", target).status == 404


def test_a_connection_serves_request_after_request(service: Vdsm) -> None:
    """Keep-alive, `Expect: 100-continue`, chunks, and several requests in one packet."""
    with Client(service.path) as client:
        for _ in range(3):
            assert client.ask("GET", "/tickets/").status == 200
        body = json.dumps(TICKET).encode()
        assert client.ask("PUT", f"/tickets/{UUID}", body, {"Expect": "100-continue"}).status == 200
        assert client.ask("PUT", f"/tickets/{UUID}", iter([body[:10], body[10:]])).status == 200
        assert client.ask("DELETE", f"/tickets/{UUID}").status == 204
        assert client.ask("GET", f"/tickets/{UUID}").status == 404
    with service.connect() as sock:
        sock.sendall(b"GET /tickets/a HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock).count(b"HTTP/1.1 404") == 3


# -- clients of all kinds ----------------------------------------------------------------------------------------

PUT = b"PUT /tickets/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x00\xff\xfe garbage \x80\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /tickets/x HTTP/1.1\r\n\r\n", 400),
        (b"GET /tickets/x HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (PUT[:-2] % 5 + b"Content-Length: 6\r\n\r\n", 400),
        (PUT[:-2] % 5 + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /tickets/x HTTP/1.1\r\nHost: x\r\nX: " + b"x" * HEAD_BYTES, 431),
        (PUT % (1 << 20) + b"x" * (1 << 20), 413),
        (b"x" * (1 << 20), 431),
        (PUT % (BODY_BYTES + 1) + b"x" * (BODY_BYTES + 1), 413),
        (PUT % BODY_BYTES + b" " * BODY_BYTES, 400),
    ],
    ids=["bytes", "line", "no-host", "blank", "lengths", "coding", "head", "megabyte", "junk", "body", "largest"],
)
def test_what_is_no_request_is_told_so(service: Vdsm, sent: bytes, status: int) -> None:
    """One answer says what is wrong, and the next client is answered as ever."""
    with service.connect() as sock:
        try:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has heard enough, and answered
        answer = read_to_end(sock)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b'{"error":' in answer
    assert service.ask("GET").status == 200


def test_who_sends_no_whole_request_is_let_go(service: Vdsm) -> None:
    """Half a head or half a body is told so after five seconds, a connection without a request just ends."""
    began = time.monotonic()
    with ExitStack() as stack:
        silent, head, body = (stack.enter_context(service.connect()) for _ in range(3))
        head.sendall(PUT[:20])
        body.sendall(PUT % 100 + b"{")
        assert service.ask("GET").status == 200
        assert read_to_end(silent) == b""
        assert read_to_end(head).startswith(b"HTTP/1.1 408")
        assert read_to_end(body).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began >= REQUEST_S


def test_idle_clients_keep_nobody_out(service: Vdsm) -> None:
    """Those that have been answered give their places up; while all are busy, one more is told so."""
    with ExitStack() as stack:
        idle = [stack.enter_context(Client(service.path)) for _ in range(CONNECTIONS_MOST)]
        for client in idle:
            assert client.ask("GET", "/tickets/x").status == 404
        assert service.ask("GET").status == 200
    with ExitStack() as stack:
        for _ in range(CONNECTIONS_MOST):
            stack.enter_context(service.connect()).sendall(PUT[:20])

        def refused() -> bool:
            with service.connect() as sock:
                sock.sendall(b"GET /tickets/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return read_to_end(sock).startswith(b"HTTP/1.1 503")

        wait_until("all places are taken", refused)
    wait_until("their places are free", lambda: service.ask("GET").status == 200)


def test_two_clients_race_for_one_ticket(service: Vdsm) -> None:
    """Installed and removed by twenty at once: each is answered, and in the end it is there or not, for both."""

    def install() -> int:
        return service.ask("PUT", UUID, TICKET).status

    def remove() -> int:
        return service.ask("DELETE", UUID).status

    racing = [Doing(work) for work in (install, remove) * 10]
    assert [one.result() for one in racing] == [200, 204] * 10
    there = service.ask("GET", UUID).status == 200
    assert len(service.ask("GET").json()) == there
    service.remove(UUID)
    assert service.ask("GET").json() == []


def test_more_tickets_than_there_may_be(tmp_path: Path) -> None:
    """One more is 503, replacing one is not; CloudStack's agent is told, too."""
    vdsm = Vdsm(tmp_path / "tickets.sock")
    control = tmp_path / "control.sock"
    tables: Tables = {
        "serve": {"ticket_socket": str(vdsm.path), "control_socket": str(control)},
        "control": {"tickets_most": 2},
    }
    with closing(Mover(tmp_path, {}, tables)) as mover:
        mover.start()
        ids = [vdsm.install(str(TICKET["url"]), 1, "read") for _ in range(2)]
        answer = vdsm.ask("PUT", UUID, TICKET)
        assert (answer.status, "control.tickets_most" in answer.json()["error"]) == (503, True)
        vdsm.install(str(TICKET["url"]), 1, "read", ticket_id=ids[0])
        with connect(control) as sock:
            sock.sendall(b'{"action": "register", "transfer_id": "t", "config": {"socket": "/s"}}\n')
            assert b"control.tickets_most" in read_to_end(sock)
        vdsm.remove(ids[1])
        assert vdsm.ask("PUT", UUID, TICKET).status == 200

"""A client that neither sends nor takes a byte is cut off, whatever it was about."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from tests.contract.house import SHREDS_BYTES
from tests.contract.wire import request
from tests.harness.http import connect
from tests.harness.mover import Mover
from tests.harness.servers import nbdkit
from tests.harness.waiting import PATIENCE_S

pytestmark = pytest.mark.nbd

RECEIVE_BUFFER_BYTES = 4096
UNTAKEN = {
    "small answers": request("GET", "/images/shreds", Range="bytes=0-60000") * 200,
    "a large answer": request("GET", "/images/shreds"),
    "JSON": request("OPTIONS", "/images/*") * 20_000,
    "extents": request("GET", "/images/shreds/extents"),
}
UNSENT = {
    "JSON": request("PATCH", "/images/shreds", b'{"op": ', Content_Length=20),
    "data": request("PUT", "/images/shreds?flush=n", b"x", Content_Length=20),
}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mover]:
    """A service that waits half a second for its clients."""
    room = tmp_path_factory.mktemp("impatient")
    arguments = ("sparse-random", f"size={SHREDS_BYTES}", "percent=50", "runlength=32768")
    server = nbdkit(room, "shreds", *arguments)
    mover = Mover(room, {"shreds": server}, {"front": {"progress_s": 0.5}})
    try:
        server.start()
        yield mover.start()
    finally:
        mover.close()
        server.close()


def hangs_up(sock: socket.socket) -> bool:
    """Whether the other end closes or resets the connection in time; nothing is read."""
    waiting = select.poll()
    waiting.register(sock, select.POLLRDHUP)
    return bool(waiting.poll(PATIENCE_S * 1000))


@pytest.mark.parametrize("answers", UNTAKEN)
def test_a_client_that_does_not_read_is_cut_off(answers: str, impatient: Mover) -> None:
    """It holds no connection for ever, be its answers small or large."""
    with connect(impatient.unix, receive_buffer=RECEIVE_BUFFER_BYTES) as sock:
        sock.setblocking(False)
        try:
            sock.send(UNTAKEN[answers])
        except BlockingIOError:
            pass
        assert hangs_up(sock)


@pytest.mark.parametrize("body", UNSENT)
def test_a_client_that_does_not_send_its_body_is_cut_off(body: str, impatient: Mover) -> None:
    """Half a body does not hold a connection for ever."""
    with connect(impatient.tcp) as sock:
        sock.sendall(UNSENT[body])
        assert hangs_up(sock)

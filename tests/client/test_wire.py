"""The client's HTTP against servers that answer with anything: what is not HTTP is an error, never bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mover.client import BrokenError, Client, ClientError, ProtocolError, RefusedError, UnreachableError
from mover.client.wire import Connection, NotHttp, WireBroken


@contextmanager
def answering(*answers: bytes) -> Iterator[Client]:
    """A client of a server that gives these answers, one for each request, whatever is asked; then hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    received = b""
                    while b"\r\n\r\n" not in received:
                        received += connection.recv(65536)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}/images/x", unix_socket=None, patience_s=0) as client:
        yield client
    thread.join(10)


GOOD = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/100\r\n\r\nabcd"


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
        b"HTTP/1.0 206 OK\r\ncontent-length:4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabcd" + b"x" * 96,
        b"HTTP/1.1 206\r\nContent-Length: 4\r\n\r\nabcd",
    ],
)
def test_bodies_are_read(answer: bytes) -> None:
    """With what servers put around them."""
    buffer = bytearray(4)
    with answering(answer) as client:
        client.read_into(0, buffer)
    assert buffer == b"abcd"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Length: four\r\n\r\nabcd",
        b"HTTP/1.1 206 OK\r\nContent-Length: -4\r\n\r\nabcd",
        b"HTTP/1.1 206 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 206 OK\r\nno colon\r\n\r\nabcd",
        b"HTTP/1.1 206 OK\r\nTransfer-Encoding: gzip\r\n\r\nabcd",
        b"HTTP/1.1 206 OK\r\n\r\nabcd",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        b"HTTP/1.1 206 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    """Named as such, and not tried again."""
    with answering(answer) as client, pytest.raises(ProtocolError):
        client.read_into(0, bytearray(4))


def test_the_whole_is_not_taken_for_a_part() -> None:
    """A server that ignores ranges sends the image's beginning, not what was asked for."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100
    with answering(answer) as client, pytest.raises(ProtocolError, match="whole image"):
        client.read_into(8, bytearray(4))


@pytest.mark.parametrize("cut", [0, 1, 30, len(GOOD) - 1])
def test_an_answer_that_breaks_off_is_broken(cut: int) -> None:
    """At any place."""
    with answering(GOOD[:cut]) as client, pytest.raises((BrokenError, UnreachableError)):
        client.read_into(0, bytearray(4))


def test_an_error_says_what_the_server_said() -> None:
    """JSON, or text, or nothing; one line of it."""
    for body, reason in ((b'{"error": "a\\nb"}', "a b"), (b"text", "text"), (b"", "Teapot"), (b"\xff", "\ufffd")):
        answer = b"HTTP/1.1 418 Teapot\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        with answering(answer) as client, pytest.raises(RefusedError) as refused:
            client.read_into(0, bytearray(4))
        assert refused.value.reason == reason


def test_chunks() -> None:
    """Extents come so; a chunk that is none is an error."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    good = head + b'5;x=y\r\n[{"st\r\n18\r\nart":0,"length":1,"zero"\r\n7\r\n:true}]\r\n0\r\nTrailer: x\r\n\r\n'
    with answering(good) as client:
        assert [extent.length for extent in client.extents("dirty")] == [1]
    for bad in (b"zz\r\n", b"5\r\n[]xxxyy", b"-5\r\n", b"5\r\n[{", b""):
        with answering(head + bad) as client, pytest.raises(ClientError):
            list(client.extents("dirty"))


def test_options_and_checksums_are_checked() -> None:
    """What is no JSON of the kind is an error."""
    for body in (b"[]", b"{", b'{"max_readers": "many"}'):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        with answering(answer) as client, pytest.raises(ProtocolError):
            client.options()


def test_a_closed_connection_wakes_who_waits_for_it() -> None:
    """From another thread, at once."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours, "h", {})
    threading.Timer(0.05, connection.close).start()
    with theirs, pytest.raises((WireBroken, NotHttp)):
        connection.reply()
    connection.release()

"""Bodies over TLS: every byte arrives, what breaks is seen to be broken, and nothing is left of clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from functools import partial

import pytest

from tests.harness.fixtures import Images
from tests.harness.http import Client, Secure, connect, head, read_to_end
from tests.harness.patterns import MIB, assert_same_file, difference, mapped, pattern, sparse_file
from tests.harness.transfers import Doing, download, upload
from tests.harness.waiting import PATIENCE_S, wait_until
from tests.tls.conftest import StartSecure, leaving_nothing

pytestmark = pytest.mark.nbd

SIZE = 24 * MIB + 512


def test_curl_reads_and_writes(images: Images, start_secure: StartSecure) -> None:
    """A whole image goes to the client and another one comes from it, by the plainest of clients."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    secure = start_secure({"source": images.qemu_nbd(source, read_only=True), "disk": images.qemu_nbd(disk)})
    secure.curl("--fail", "-o", images.room / "copy", f"{secure.url}/source")
    assert_same_file(images.room / "copy", source)
    secure.curl("--fail", "-T", source, f"{secure.url}/disk")
    assert_same_file(disk, source)
    secure.mover.stop_clean()


def test_zeros_and_data_are_sent_as_they_stand(images: Images, start_secure: StartSecure) -> None:
    """An image of runs of data and holes, each of many lengths, is the same at the client's."""
    source = images.room / "disk"
    sparse_file(source, 64 * MIB)
    with source.open("r+b") as file:
        for number in range(20):
            file.seek(number * 3 * MIB + number * 4096)
            file.write(pattern(1, number * MIB, (number + 1) * 65536))
    secure = start_secure({"disk": images.qemu_nbd(source)})
    with mapped(source) as expected:
        download(secure.address, "/images/disk", expected)


def test_the_unix_socket_stays_plain(images: Images, start_secure: StartSecure) -> None:
    """Clients on the host go on as without TLS; on TCP, a client that does not speak it gets no answer."""
    source = images.pattern("disk", 1, MIB)
    secure = start_secure({"disk": images.qemu_nbd(source)})
    with mapped(source) as expected:
        download(secure.mover.unix, "/images/disk", expected)
    with contextlib.closing(connect(secure.mover.tcp)) as plain:
        plain.sendall(head("GET", "/images/disk"))
        received = plain.recv(1000)
        assert b"HTTP/1" not in received, received
    assert "handshake failed client=127.0.0.1" in secure.mover.log()
    secure.mover.assert_log_clean()


@pytest.mark.parametrize("front_ends", [1, 2])
def test_many_at_once(front_ends: int, images: Images, start_secure: StartSecure) -> None:
    """Eight readers and eight writers, each of an image of its own, do not get in each other's way."""
    sources = {f"source-{n}": images.pattern(f"source-{n}", n, SIZE) for n in range(4)}
    disks = {f"disk-{n}": images.pattern(f"disk-{n}", 10 + n, SIZE) for n in range(4)}
    served = {name: images.qemu_nbd(path) for name, path in {**sources, **disks}.items()}
    secure = start_secure(served, front_ends=front_ends)
    with contextlib.ExitStack() as stack:
        expected = [stack.enter_context(mapped(path)) for path in sources.values()]
        doings: list[Doing[object]] = []
        for n, source in enumerate(expected):
            doings += [Doing(partial(download, secure.address, f"/images/source-{n}", source)) for _ in range(2)]
            doings.append(Doing(partial(upload, secure.address, f"/images/disk-{n}", source)))
        for doing in doings:
            doing.result()
    for source_path, disk_path in zip(sources.values(), disks.values(), strict=True):
        assert_same_file(disk_path, source_path)
    secure.mover.stop_clean()


async def said(address: Secure, asked: bytes) -> bytes:
    """All that the server says to this. By one thread: Python 3.11's TLS sockets do not stand two at a time."""
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=address.context)
    writer.write(asked)
    async with asyncio.timeout(60):
        received = await reader.read()
    writer.close()
    return received


def test_requests_follow_each_other_on_one_connection(images: Images, start_secure: StartSecure) -> None:
    """Reads, writes and refusals, pipelined and not, of a few bytes and of many, stay apart."""
    source = images.pattern("disk", 1, 4 * MIB)
    secure = start_secure({"disk": images.qemu_nbd(source)})
    asked = b""
    for number in range(40):
        body = pattern(7, number * 4096, (number * 3001) % 150_000 + 1)
        asked += head("PUT", "/images/disk?flush=n", Content_Length=len(body), Content_Range="bytes 5-*/*") + body
        asked += head("GET", "/images/disk", Range=f"bytes=5-{4 + len(body)}")
        asked += head("GET", "/images/nobody")
    asked += head("GET", "/healthz", Connection="close")
    received = asyncio.run(said(secure.address, asked))
    at = 0
    for number in range(40):
        body = pattern(7, number * 4096, (number * 3001) % 150_000 + 1)
        for status, ends in ((b"200", b'"ok":true}'), (b"206", body), (b"404", b'"unknown image_id"}')):
            assert received[at : at + 12] == b"HTTP/1.1 " + status
            at = received.index(b"\r\n\r\n", at) + 4
            at = received.index(ends, at) + len(ends)
    assert received[at:].endswith(b'{"status":"ok"}')


# -- what breaks -------------------------------------------------------------------------------------------------


def test_a_body_that_breaks_off_does_not_end_well(images: Images, start_secure: StartSecure) -> None:
    """When the image is lost in the middle of a GET, curl fails; a client that counts no bytes sees no end of TLS."""
    source = images.pattern("disk", 1, 64 * MIB)
    server = images.qemu_nbd(source)
    secure = start_secure({"disk": server}, {"worker": {"reconnect_s": 0.2, "settle_s": 0.2}})
    with contextlib.closing(connect(secure.address)) as sock:
        sock.sendall(head("GET", "/images/disk", Connection="close"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        server.kill()
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            read_to_end(sock)
    server.start()
    copy = images.room / "copy"
    curl = Doing(partial(secure.curl, "--limit-rate", "8M", "-o", copy, f"{secure.url}/disk", check=False))
    wait_until("curl has some of it", lambda: copy.exists() and copy.stat().st_size > MIB)
    server.kill()
    done = curl.result()
    assert done.returncode in (18, 56), done.stderr  # a part of the file; a failure to receive
    server.start()


def test_clients_that_leave_in_the_middle_leave_nothing(images: Images, start_secure: StartSecure) -> None:
    """Twenty clients leave in the middle of a GET or a PUT, politely or not: all that they held is given back."""
    source = images.pattern("disk", 1, 64 * MIB)
    secure = start_secure({"disk": images.qemu_nbd(source)})
    with mapped(source) as expected:
        download(secure.address, "/images/disk", expected)
        with leaving_nothing(secure.mover):
            for number in range(20):
                leave_in_the_middle(secure.address, expected, reads=number % 2 == 0, says_goodbye=number % 4 < 2)
        download(secure.address, "/images/disk", expected)
    secure.mover.stop_clean()


def leave_in_the_middle(address: Secure, content: memoryview, *, reads: bool, says_goodbye: bool) -> None:
    """Begin a GET or a PUT and be gone."""
    sock = connect(address)
    assert isinstance(sock, ssl.SSLSocket)
    if reads:
        sock.sendall(head("GET", "/images/disk"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    else:
        sock.sendall(head("PUT", "/images/disk", Content_Length=len(content)))
        sock.sendall(content[: 5 * MIB])
    if says_goodbye:
        sock.settimeout(0.01)
        with contextlib.suppress(OSError):  # SSLError is one: the server's bytes are in the way
            sock.unwrap()
    sock.close()


@pytest.mark.parametrize("victim", ["worker", "server"])
def test_a_worker_or_connection_that_dies_costs_a_client_nothing(
    victim: str, images: Images, start_secure: StartSecure
) -> None:
    """In the middle of a GET and of a PUT it is replaced, and every byte is right."""
    source, disk = images.pattern("source", 1, 64 * MIB), images.pattern("disk", 2, 64 * MIB)
    servers = {"source": images.qemu_nbd(source), "disk": images.qemu_nbd(disk)}
    secure = start_secure(servers)

    def kill(name: str) -> None:
        if victim == "worker":
            secure.mover.kill_worker(servers[name])
        else:
            servers[name].kill()
            servers[name].start()

    with mapped(source) as expected:
        download(secure.address, "/images/source", expected, {32 * MIB: lambda: kill("source")})
        answer = upload(secure.address, "/images/disk?flush=n", expected, {32 * MIB: lambda: kill("disk")})
        assert answer.status == 200
    assert_same_file(disk, source)
    secure.mover.stop_clean()


def test_a_slow_reader_of_the_connections_last_answer_gets_all_of_it(images: Images, start_secure: StartSecure) -> None:
    """The server closes after the answer: what stands in its memory then is still sent, whatever the client's pace."""
    source = images.pattern("disk", 1, 8 * MIB)
    secure = start_secure({"disk": images.qemu_nbd(source)})
    with mapped(source) as expected:
        for length in (70_000, 300_000, 8 * MIB):
            with contextlib.closing(connect(secure.address, receive_buffer=4096)) as sock:
                wanted = f"bytes=0-{length - 1}"
                sock.sendall(head("GET", "/images/disk", Connection="close", Range=wanted))
                body = read_to_end(sock).partition(b"\r\n\r\n")[2]  # the end of TLS, or it would raise
                assert difference(body, expected[:length]) is None


def test_stalled_readers_hold_nothing_that_others_need(images: Images, start_secure: StartSecure) -> None:
    """More clients that stopped reading than the lane has slots: others are served, and then those go on, too."""
    source = images.pattern("disk", 1, 16 * MIB)
    secure = start_secure({"disk": images.qemu_nbd(source)})
    with mapped(source) as expected, contextlib.ExitStack() as stalled:
        readers = []
        for _ in range(40):
            sock = stalled.enter_context(contextlib.closing(connect(secure.address, receive_buffer=64 * 1024)))
            sock.sendall(head("GET", "/images/disk", Connection="close"))
            readers.append((sock, sock.recv(1000)))
        download(secure.address, "/images/disk", expected)
        for sock, first in readers[:3]:
            body = (first + read_to_end(sock)).partition(b"\r\n\r\n")[2]
            assert difference(body, expected) is None
    secure.mover.stop_clean()


def test_a_front_end_that_drains_ends_tls_in_order(images: Images, start_secure: StartSecure) -> None:
    """At SIGTERM idle connections get an end of TLS, a transfer is finished, and the service ends with status 0."""
    source = images.pattern("disk", 1, 64 * MIB)
    secure = start_secure({"disk": images.qemu_nbd(source)})
    with mapped(source) as expected, Client(secure.address) as idle:
        assert idle.ask("GET", "/healthz").status == 200
        stop = partial(secure.mover.signal, signal.SIGTERM)
        download(secure.address, "/images/disk", expected, {32 * MIB: stop})
        assert idle.sock is not None
        assert idle.sock.recv(1) == b""
    assert secure.mover.process.wait(PATIENCE_S) == 0
    secure.mover.wait_for_end()

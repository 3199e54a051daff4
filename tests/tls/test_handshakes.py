"""Handshakes: which TLS is spoken, and what clients cost that are silent, old or in the way."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess

import pytest

from tests.harness.fixtures import Images
from tests.harness.http import Client, connect
from tests.harness.patterns import MIB, mapped
from tests.harness.transfers import download, upload
from tests.harness.waiting import PATIENCE_S, wait_until
from tests.operation.metrics import turned_away
from tests.tls.conftest import SecureMover, StartSecure, leaving_nothing

pytestmark = pytest.mark.nbd

SIZE = 16 * MIB
GARBAGE = (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, b"\x16\x03\x03\xff\xff" + b"x" * 70_000, b"SSH-2.0-x\r\n")


def s_client(secure: SecureMover, *options: str, say: str = "") -> str:
    """What openssl's client says of a connection to Mover."""
    where = f"127.0.0.1:{secure.mover.tcp[1]}"
    command = ["openssl", "s_client", "-connect", where, "-CAfile", str(secure.authority.certificate), *options]
    done = subprocess.run(command, input=say, capture_output=True, text=True, timeout=PATIENCE_S)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("version", "spoken"), [("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)]
)
def test_old_versions_are_refused(version: str, spoken: bool, images: Images, start_secure: StartSecure) -> None:
    """TLS 1.0 and 1.1 are refused, even to a client that would take any cipher; 1.2 and 1.3 are spoken."""
    secure = start_secure({"disk": images.qemu_nbd(images.pattern("disk", 1, MIB))})
    said = s_client(secure, version, "-cipher", "ALL:@SECLEVEL=0", "-verify_return_error")
    if spoken:
        assert "Verify return code: 0 (ok)" in said
    else:
        assert "alert protocol version" in said
        assert "Cipher is (NONE)" in said


def test_http_1_1_is_agreed_on(images: Images, start_secure: StartSecure) -> None:
    """A client that also knows HTTP/2 is told by ALPN that it is not spoken."""
    secure = start_secure({"disk": images.qemu_nbd(images.pattern("disk", 1, MIB))})
    context = secure.authority.client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with contextlib.closing(connect(secure.mover.secure(context))) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.selected_alpn_protocol() == "http/1.1"


def test_a_client_cannot_have_keys_made_again_and_again(images: Images, start_secure: StartSecure) -> None:
    """Renegotiation, which costs a server more than its client, is refused; the service goes on."""
    secure = start_secure({"disk": images.qemu_nbd(images.pattern("disk", 1, MIB))})
    said = s_client(secure, "-tls1_2", "-legacy_renegotiation", say="R\nGET /healthz HTTP/1.1\r\n\r\n")
    assert "no renegotiation" in said
    with Client(secure.address) as client:
        assert client.ask("GET", "/healthz").status == 200


def test_a_hundred_silent_handshakes_keep_nobody_from_anything(images: Images, start_secure: StartSecure) -> None:
    """While a hundred clients have connected and say nothing, others transfer; then the silent ones are cut off."""
    source = images.pattern("disk", 1, SIZE)
    secure = start_secure({"disk": images.qemu_nbd(source)}, handshake_s=2.0)
    with mapped(source) as expected:
        download(secure.address, "/images/disk", expected)
        with leaving_nothing(secure.mover), contextlib.ExitStack() as silent:
            socks = [silent.enter_context(contextlib.closing(connect(secure.mover.tcp))) for _ in range(100)]
            for number, sock in enumerate(socks):
                if number % 2:
                    sock.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")  # the beginning of a ClientHello
            download(secure.address, "/images/disk", expected)
            assert upload(secure.address, "/images/disk", expected).status == 200
            for sock in socks:
                assert is_cut_off(sock)
    assert secure.mover.log().count("handshake failed client=127.0.0.1") == 100
    assert turned_away(secure.mover, "handshake_s") == 100
    secure.mover.stop_clean()


def is_cut_off(sock: socket.socket) -> bool:
    """Whether the server ends the connection."""
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True


def test_garbage_in_place_of_a_handshake(images: Images, start_secure: StartSecure) -> None:
    """Bytes that are no TLS end the connection with a line in the log, and nothing else."""
    secure = start_secure({"disk": images.qemu_nbd(images.pattern("disk", 1, MIB))})
    with Client(secure.address) as client:
        assert client.ask("GET", "/healthz").status == 200
    with leaving_nothing(secure.mover):
        for garbage in GARBAGE:
            with contextlib.closing(connect(secure.mover.tcp)) as sock, contextlib.suppress(ConnectionError):
                sock.sendall(garbage)
                while sock.recv(1000):
                    pass
    wait_until("the log has them", lambda: len(re.findall("handshake failed", secure.mover.log())) == 4)
    assert turned_away(secure.mover, "handshake") == 4
    secure.mover.stop_clean()


def test_records_that_are_forged_end_the_connection(images: Images, start_secure: StartSecure) -> None:
    """A byte changed on its way is no body: nothing of its record is written, and the connection ends."""
    disk = images.pattern("disk", 1, SIZE)
    secure = start_secure({"disk": images.qemu_nbd(disk)})
    content = disk.read_bytes()
    download(secure.address, "/images/disk", memoryview(content))
    with leaving_nothing(secure.mover), contextlib.closing(connect(secure.address)) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        sock.sendall(f"PUT /images/disk HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n".encode())
        sock.sendall(content[: 3 * MIB])
        plain = socket.socket(fileno=sock.detach())
        with contextlib.closing(plain):
            plain.settimeout(PATIENCE_S)
            plain.sendall(b"\x17\x03\x03\x00\x20" + b"?" * 32)
            received = b"".join(iter(lambda: plain.recv(1000), b""))
            assert b"HTTP" not in received
    assert disk.read_bytes() == content
    secure.mover.stop_clean()

"""Against ovirt-imageio's own daemon, and over TLS with certificates and tokens."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from mover.bench import servers as bench_servers
from mover.bench.exports import NbdServer as BenchServer
from mover.client import Client, RefusedError, Tls, UntrustedError, download, stream, upload, verify
from tests.client.conftest import DISK_BYTES, assert_same_disk, make_disk, qemu_img
from tests.client.proxy import Proxy
from tests.harness.certificates import Authority, tables
from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import MIB
from tests.harness.servers import NbdServer

IMAGEIO = bench_servers.find_imageio()

pytestmark = pytest.mark.nbd


class Daemon:
    """imageio's daemon with images "source", "thick" (as one of data), and "target"."""

    def __init__(self, base_url: str, source: Path, target: Path) -> None:
        self.base_url = base_url
        self.source = source
        self.target = target

    def client(self, image: str) -> Client:
        """A client of one of its images."""
        return Client(f"{self.base_url}/images/{image}", patience_s=10)


@pytest.fixture
def daemon(images: Images, room: Path, endings: ExitStack) -> Daemon:
    """The daemon, over servers of ours."""
    if IMAGEIO is None:
        pytest.skip("ovirt-imageio is missing: `.ci/setup imageio` installs it")
    source, target = make_disk(room / "source"), images.pattern("target", 9, DISK_BYTES)

    def image(name: str, server: NbdServer, read_only: bool) -> bench_servers.Image:
        return bench_servers.Image(name, BenchServer(server.socket, server.pid, read_only), DISK_BYTES)

    served = [
        image("source", images.qemu_nbd(source, read_only=True), True),
        image("target", images.qemu_nbd(target), False),
    ]
    http = endings.enter_context(bench_servers.imageio(IMAGEIO, room, served))
    return Daemon(http.base_url, source, target)


def test_imageio_downloads_uploads_extents_and_checksum(daemon: Daemon, room: Path) -> None:
    """All jobs work against the server that the contract comes from, verified, in every format."""
    with daemon.client("source") as disk:
        assert {"extents", "zero", "flush", "checksum"} >= disk.options().features
        extents = list(disk.extents())
        assert (extents[0].start, extents[-1].end) == (0, DISK_BYTES)
        assert disk.size() == DISK_BYTES
        for image_format in ("raw", "qcow2"):
            report = download(
                disk, room / "copy", image_format=image_format, verify="checksum" in disk.options().features
            )
            assert report.data < DISK_BYTES // 2
            assert_same_disk(room / "copy", daemon.source, image_format)
        with (room / "stream").open("wb") as file:
            stream.download(disk, file.fileno())
        assert_same_disk(room / "stream", daemon.source)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", daemon.source, room / "source.qcow2")
    with daemon.client("target") as disk:
        assert upload(disk, room / "source.qcow2", verify=True).flushed
        assert_same_disk(daemon.target, daemon.source)
        verify(disk, daemon.source)


def test_imageio_an_upload_zeroes_what_was_there(daemon: Daemon, room: Path) -> None:
    """Over an old image, with several connections that each flush."""
    with daemon.client("target") as disk:
        upload(disk, make_disk(room / "other", stamp=3), max_workers=3)
    assert_same_disk(daemon.target, room / "other")


def test_imageio_says_why_it_refuses(daemon: Daemon) -> None:
    """Its reasons arrive, with the range."""
    with daemon.client("source") as disk, pytest.raises(RefusedError) as refused:
        disk.write(MIB, b"x" * 4096)
    assert (refused.value.status, refused.value.offset) == (403, MIB)


def test_tls(images: Images, start_mover: StartMover, room: Path) -> None:
    """Over TLS with an authority that is named; not with one that is not, unless one wants any."""
    authority = Authority(room)
    source = make_disk(room / "source")
    target = images.hole("target", DISK_BYTES)
    mover = start_mover(
        {"disk": images.qemu_nbd(source, read_only=True), "target": images.qemu_nbd(target)},
        {"tls": tables(authority.issue("server"))}, front_ends=2,
    )  # fmt: skip
    url = f"https://127.0.0.1:{mover.tcp[1]}/images/"
    trusting = Tls(ca_file=authority.certificate)
    with Client(url + "disk", tls=trusting, unix_socket=None) as disk:
        download(disk, room / "copy", verify=True)
        assert not disk.by_unix_socket
    assert_same_disk(room / "copy", source)
    with Client(url + "target", tls=trusting, unix_socket=None) as disk:
        upload(disk, source, verify=True)
    assert_same_disk(target, source)
    with Client(url + "disk", tls=trusting) as disk:
        disk.size()
        assert disk.by_unix_socket
    with Client(url + "disk", unix_socket=None) as disk, pytest.raises(UntrustedError, match="certificate"):
        disk.size()
    with Client(url.replace("127.0.0.1", "localhost") + "disk", tls=Tls(insecure=True), unix_socket=None) as disk:
        assert disk.size() == DISK_BYTES
    with Client(f"https://127.0.0.1:{_plain_port()}/images/x") as disk, pytest.raises(UntrustedError):
        disk.size()


def _plain_port() -> int:
    """A port where somebody answers who speaks no TLS."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def test_the_token_goes_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a bearer's; proxies of the environment do not get it, and errors do not show it."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    listener = socket.create_server(("127.0.0.1", 0))
    heads: list[bytes] = []

    def answer() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                while head := connection.recv(65536):
                    heads.append(head)
                    connection.sendall(b'HTTP/1.1 401 No\r\nContent-Length: 17\r\n\r\n{"error": "who?"}')

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    disk = Client(f"http://127.0.0.1:{port}/images/x", token="se-cret", unix_socket=None)
    with disk, pytest.raises(RefusedError) as refused:
        disk.read_into(0, bytearray(1))
    thread.join(10)
    assert heads
    assert all(b"\r\nAuthorization: Bearer se-cret\r\n" in head for head in heads)
    assert "se-cret" not in str(refused.value)
    with pytest.raises(ValueError, match="token"):
        Client("http://127.0.0.1/images/x", token="a\r\nb")


def test_another_server_of_the_same_path_is_not_taken_for_the_same(
    images: Images, start_mover: StartMover, room: Path
) -> None:
    """Through a tunnel the Unix socket's path is that of another server on this host: it is not used.

    A process that only passes bytes on, as an ssh tunnel does, stands for the tunnel.
    """
    mover = start_mover({"disk": images.qemu_nbd(images.pattern("disk", 1, MIB))})
    with Proxy(mover.tcp) as tunnel, Client(tunnel.url("disk")) as disk:
        assert disk.size() == MIB
        assert not disk.by_unix_socket

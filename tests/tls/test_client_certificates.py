"""Mover's own client at a server that asks for certificates: as a library, and as commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mover.client import Client, ClientError, Tls, UntrustedError, download, upload
from tests.client.conftest import make_disk, qemu_img
from tests.client.program import run
from tests.harness.certificates import Authority, Pair, tables
from tests.harness.fixtures import Images, memory_room
from tests.harness.mover import Mover
from tests.harness.patterns import MIB

pytestmark = pytest.mark.nbd

SIZE = 16 * MIB


@dataclass(frozen=True)
class Guarded:
    """A Mover with the images `source` and `empty`, for holders of certificates; whose are `good` and `foreign`."""

    mover: Mover
    authority: Authority
    good: Pair
    foreign: Pair
    source: Path
    empty: Path

    def url(self, image: str) -> str:
        """Where an image is."""
        return f"https://127.0.0.1:{self.mover.tcp[1]}/images/{image}"

    def client(self, image: str, own: Pair | None) -> Client:
        """By TCP: the Unix socket asks for no certificate."""
        shown = (own.certificate, own.key) if own else (None, None)
        tls = Tls(self.authority.certificate, *shown)
        return Client(self.url(image), tls=tls, unix_socket=None, patience_s=2)

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        """A command, with the certificate, by TCP."""
        own = (f"--cert-file={self.good.certificate}", f"--key-file={self.good.key}")
        return run(*arguments, f"--ca-file={self.authority.certificate}", *own, "--unix-socket=none", "--retry-for=2")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    """One for all tests, which leave `source` as it is."""
    with memory_room() as room, ExitStack() as stack:
        images = Images(room, stack)
        authority, clients = Authority(room), Authority(room, "clients")
        source, empty = make_disk(room / "source", SIZE), images.hole("empty", SIZE)
        servers = {"source": images.qemu_nbd(source, read_only=True), "empty": images.qemu_nbd(empty)}
        asking = {"client_ca_file": str(clients.certificate), "client_certificates": "required"}
        mover = Mover(room, servers, {"tls": tables(authority.issue("server"), **asking)})
        stack.callback(mover.close)
        good, foreign = clients.issue("good"), Authority(room, "foreign").issue("bad")
        yield Guarded(mover.start(), authority, good, foreign, source, empty)


def test_whole_jobs_show_the_certificate_on_every_connection(guarded: Guarded, room: Path) -> None:
    """Down and up by four connections each, verified."""
    with guarded.client("source", guarded.good) as disk:
        assert download(disk, room / "copy.qcow2", image_format="qcow2", verify=True).checksum is not None
    qemu_img("compare", "-f", "qcow2", "-F", "raw", room / "copy.qcow2", guarded.source)
    with guarded.client("empty", guarded.good) as disk:
        assert upload(disk, guarded.source, verify=True).flushed
    assert guarded.empty.read_bytes() == guarded.source.read_bytes()


def test_commands_show_it(guarded: Guarded, room: Path) -> None:
    """`download`, `upload`, `extents`, `checksum`, `info`; the key may stand in the certificate's file."""
    assert guarded.run("download", guarded.url("source"), room / "copy", "--verify")[0] == 0
    assert (room / "copy").read_bytes() == guarded.source.read_bytes()
    assert guarded.run("upload", room / "copy", guarded.url("empty"), "--verify")[0] == 0
    extents = json.loads(guarded.run("extents", guarded.url("source"), "--json")[1])
    assert sum(extent["length"] for extent in extents) == SIZE
    assert guarded.run("checksum", guarded.url("empty"), "--compare", guarded.source)[0] == 0
    both = room / "both.pem"
    both.write_bytes(guarded.good.certificate.read_bytes() + guarded.good.key.read_bytes())
    trusted = (f"--ca-file={guarded.authority.certificate}", "--unix-socket=none")
    assert run("info", guarded.url("source"), f"--cert-file={both}", *trusted)[0] == 0


@pytest.mark.parametrize("own", [None, "foreign"])
def test_without_a_good_one_nothing_is_had(own: str | None, guarded: Guarded, room: Path) -> None:
    """The server is as good as away, and the error says why; no file is left."""
    pair = guarded.foreign if own else None
    with guarded.client("source", pair) as disk, pytest.raises(UntrustedError) as refused:
        download(disk, room / "copy")
    assert "certificate" in str(refused.value)
    assert list(room.iterdir()) == []
    options = (f"--cert-file={pair.certificate}", f"--key-file={pair.key}") if pair else ()
    trusted = (f"--ca-file={guarded.authority.certificate}", "--unix-socket=none", "--retry-for=2")
    status, output, errors = run("info", guarded.url("source"), *options, *trusted)
    assert (status, output, errors.count("\n")) == (3, "", 1), errors
    assert "certificate" in errors


def test_files_that_are_no_certificate_are_named(guarded: Guarded, room: Path) -> None:
    """Before anything is sent."""
    (room / "none").write_text("nothing")
    for certificate, key in (
        (room / "none", guarded.good.key), (guarded.good.certificate, guarded.foreign.key), (room / "away", None)
    ):  # fmt: skip
        tls = Tls(guarded.authority.certificate, certificate, key)
        with pytest.raises((ClientError, ValueError)) as refused:
            Client(guarded.url("source"), tls=tls, unix_socket=None).options()
        assert str(certificate) in str(refused.value)

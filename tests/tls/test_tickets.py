"""Tickets over TLS: bound to a certificate's subject, and imageio's own client from the ticket to its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mover.bench.servers import find_imageio
from tests.harness.certificates import Authority
from tests.harness.fixtures import Images
from tests.harness.http import ask
from tests.harness.patterns import MIB, assert_same_file, mapped, pattern, sparse_file
from tests.harness.servers import NbdServer
from tests.harness.transfers import download
from tests.tls.conftest import SecureMover, StartSecure, run

pytestmark = pytest.mark.nbd

IMAGEIO = find_imageio()
PROGRAM = Path(__file__).parents[1] / "clients/imageio_program.py"
SIZE = 24 * MIB


def install(secure: SecureMover, ticket_id: str, server: NbdServer, **more: object) -> None:
    """Put a ticket on the ticket socket."""
    ticket = {"uuid": ticket_id, "size": SIZE, "url": server.uri(), "timeout": 300, "ops": ["read", "write"], **more}
    answer = ask(secure.mover.state_dir.parent / "tickets", "PUT", f"/tickets/{ticket_id}", json.dumps(ticket).encode())
    assert answer.status == 200, answer


def test_a_ticket_that_is_bound_to_a_certificate_is_for_nobody_else(images: Images, start_secure: StartSecure) -> None:
    """Its subject's client is served; another subject, no certificate and the Unix socket get 403, and no byte."""
    trusted = Authority(images.room, "clients")
    source = images.pattern("disk", 1, SIZE)
    server = images.qemu_nbd(source)
    secure = start_secure(
        {},
        {"serve": {"ticket_socket": str(images.room / "m1/tickets")}},
        client_ca_file=str(trusted.certificate),
        client_certificates="optional",
    )
    install(secure, "bound", server, subject="CN=appliance-7,O=Müller \\+ Söhne")
    install(secure, "free", server)
    right = secure.client(trusted.issue("right", "/O=Müller \\+ Söhne/CN=appliance-7"))
    wrong = secure.client(trusted.issue("wrong", "/O=Müller \\+ Söhne/CN=appliance-8"))
    with mapped(source) as expected:
        download(right, "/images/bound", expected)
        for address in (right, wrong, secure.address, secure.mover.unix):
            download(address, "/images/free", expected)
        for address in (wrong, secure.address, secure.mover.unix):
            for method, body in (("GET", None), ("HEAD", None), ("OPTIONS", None), ("PUT", b"x"), ("PATCH", b"{}")):
                answer = ask(address, method, "/images/bound", body)
                assert answer.status == 403
                if method != "HEAD":
                    assert answer.json() == {"error": "the ticket is bound to another client certificate"}
    assert source.read_bytes() == pattern(1, 0, SIZE)
    secure.mover.stop_clean()


@pytest.mark.skipif(IMAGEIO is None, reason="ovirt-imageio is missing: `.ci/setup imageio` installs it")
@pytest.mark.parametrize("workers", [1, 4, 8])
def test_imageio_client(workers: int, images: Images, start_secure: StartSecure) -> None:
    """Unmodified, with the authority's certificate: a disk goes up, comes down, and its extents and checksum agree."""
    assert IMAGEIO is not None
    source, disk = images.room / "source", images.room / "disk"
    sparse_file(source, SIZE)
    with source.open("r+b") as file:
        for number in range(6):
            file.seek(number * 4 * MIB + 65536)
            file.write(pattern(1, number * MIB, (number + 1) * 131072))
    sparse_file(disk, SIZE)
    secure = start_secure({"disk": images.qemu_nbd(disk)}, front_ends=2)
    secure.mover.unix.unlink()  # or the client, being on this host, would go there
    program = [IMAGEIO.parent / "python", PROGRAM, f"--cafile={secure.authority.certificate}"]
    url = f"{secure.url}/disk"
    run(*program, "upload", source, url, workers)
    assert_same_file(disk, source)
    run(*program, "download", url, images.room / "copy", "raw", workers)
    assert_same_file(images.room / "copy", source)
    extents = json.loads(run(*program, "extents", url, "zero"))
    assert extents == ask(secure.address, "GET", "/images/disk/extents").json()
    theirs = json.loads(run(*program, "checksum", source))
    assert ask(secure.address, "GET", "/images/disk/checksum").json() == theirs
    secure.mover.stop_clean()

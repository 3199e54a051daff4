"""A certificate's subject as text: what openssl prints is what a ticket may be bound to."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from mover.front.subjects import subject_of
from tests.harness.certificates import Authority


@pytest.mark.parametrize(
    "subject",
    [
        "/CN=appliance",
        "/C=DE/O=Example GmbH/OU=Backup/CN=appliance-7.example",
        "/DC=com/DC=example/CN=a+UID=7",
        "/O=Müller \\+ Söhne, Inc./CN=a\\/b",
        "/CN=#7",
        "/CN= leading and trailing ",
        "/CN= ",
        '/CN=a;b<c>"d"',
        "/emailAddress=a@example.com/serialNumber=7/title=x",
        "/CN=",
    ],
)
def test_the_subject_is_written_as_openssl_writes_it(subject: str, tmp_path: Path) -> None:
    """Whatever stands in it, in the form of RFC 4514."""
    authority = Authority(tmp_path)
    pair = authority.issue("client", subject)
    printed = subprocess.run(
        ["openssl", "x509", "-in", pair.certificate, "-noout", "-subject", "-nameopt", "RFC2253,utf8,-esc_msb"],
        check=True, capture_output=True,
    ).stdout.decode()  # fmt: skip
    context = ssl.create_default_context(cafile=str(authority.certificate))
    assert f"subject={subject_of(shown_by(context, pair.certificate, pair.key))}\n" == printed


def shown_by(context: ssl.SSLContext, certificate: Path, key: Path) -> dict[str, object]:
    """The certificate as the other side of a handshake sees it."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
    found = client.getpeercert()
    assert found
    return dict(found)

"""Bodies over TLS: every byte arrives, and what breaks is seen to be broken."""

from __future__ import annotations

import pytest

from tests.harness.fixtures import Images
from tests.harness.patterns import MIB, assert_same_file
from tests.tls.conftest import StartSecure

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

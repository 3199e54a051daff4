"""Certificates: renewed while transfers go on, asked of clients, and refused at the start where they cannot be used."""

from __future__ import annotations

import contextlib
import shutil
import signal
import ssl
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.harness.certificates import Authority, Pair
from tests.harness.fixtures import Images
from tests.harness.http import Client, Secure, connect
from tests.harness.mover import ROOT
from tests.harness.patterns import MIB, assert_same_file, mapped
from tests.harness.transfers import download, upload
from tests.harness.waiting import PATIENCE_S, wait_until
from tests.tls.conftest import SecureMover, StartSecure

pytestmark = pytest.mark.nbd

SIZE = 32 * MIB


def serial_number(address: Secure) -> str:
    """That of the certificate which a new connection is shown."""
    with contextlib.closing(connect(address)) as sock:
        return shown(sock)


def shown(sock: object) -> str:
    """The serial number of the certificate that this connection was shown."""
    assert isinstance(sock, ssl.SSLSocket)
    certificate = sock.getpeercert()
    assert certificate
    return str(certificate["serialNumber"])


def renew(secure: SecureMover, pair: Pair, says: str = "certificates renewed") -> None:
    """Put another certificate in the place of Mover's, and have it read."""
    before = len(secure.mover.log())
    shutil.copy(pair.key, secure.own.key)
    shutil.copy(pair.certificate, secure.own.certificate)
    secure.mover.signal(signal.SIGHUP)
    wait_until(f"the log says {says!r}", lambda: says in secure.mover.log()[before:])


def test_renewal_interrupts_nothing(images: Images, start_secure: StartSecure) -> None:
    """In the middle of a GET, a PUT and an idle connection: all go on, and new connections see the new certificate."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    secure = start_secure({"source": images.qemu_nbd(source), "disk": images.qemu_nbd(disk)}, front_ends=2)
    pids = secure.mover.front_end_pids()
    fresh = [secure.authority.issue(f"fresh-{n}") for n in range(2)]
    with mapped(source) as expected, Client(secure.address) as idle:
        assert idle.ask("GET", "/healthz").status == 200
        first = shown(idle.sock)
        middle = {SIZE // 2: partial(renew, secure, fresh[0])}
        download(secure.address, "/images/source", expected, middle)
        second = serial_number(secure.address)
        middle = {SIZE // 2: partial(renew, secure, fresh[1])}
        assert upload(secure.address, "/images/disk", expected, middle).status == 200
        wait_until("both front ends have it", lambda: len({serial_number(secure.address) for _ in range(8)}) == 1)
        assert len({first, second, serial_number(secure.address)}) == 3
        assert idle.ask("GET", "/healthz").status == 200
        assert shown(idle.sock) == first
    assert_same_file(disk, source)
    assert secure.mover.front_end_pids() == pids
    secure.mover.stop_clean()


def test_a_bad_renewal_leaves_the_old_certificate(images: Images, start_secure: StartSecure) -> None:
    """A key of another certificate, no certificate, nothing at all: the log says why, and clients see no change."""
    secure = start_secure({"disk": images.qemu_nbd(images.pattern("disk", 1, MIB))})
    first = serial_number(secure.address)
    one, other = secure.authority.issue("one"), secure.authority.issue("other")
    empty = images.room / "empty"
    empty.touch()
    for pair, why in (
        (Pair(one.certificate, other.key), "the key is not the certificate's"),
        (Pair(empty, one.key), "there is no PEM of what is needed"),
        (Pair(one.certificate, empty), "there is no PEM of what is needed"),
    ):
        renew(secure, pair, why)
        *_, line = (line for line in secure.mover.log().splitlines() if why in line)
        assert "certificates not renewed, the old ones stay in force" in line
        assert serial_number(secure.address) == first
    secure.own.key.unlink()
    secure.mover.signal(signal.SIGHUP)
    wait_until("the log says it", lambda: "cannot be read (no such file or directory)" in secure.mover.log())
    [pid] = secure.mover.front_end_pids()
    subprocess.run(["kill", "-9", str(pid)], check=True)
    wait_until("another front end serves", lambda: secure.mover.front_end_pids() not in ([], [pid]))
    assert serial_number(secure.address) == first
    renew(secure, one)
    assert serial_number(secure.address) != first
    secure.mover.stop_clean()


# -- certificates of clients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["optional", "required"])
def test_clients_are_asked_for_certificates(wanted: str, images: Images, start_secure: StartSecure) -> None:
    """A good one is let in, one of another authority is not, and none only where it is optional."""
    trusted, foreign = Authority(images.room, "clients"), Authority(images.room, "foreign")
    source = images.pattern("disk", 1, MIB)
    secure = start_secure(
        {"disk": images.qemu_nbd(source)}, client_ca_file=str(trusted.certificate), client_certificates=wanted
    )
    with mapped(source) as expected:
        download(secure.client(trusted.issue("good")), "/images/disk", expected)
        is_refused(secure.client(foreign.issue("bad")))
        if wanted == "required":
            is_refused(secure.address)
        else:
            download(secure.address, "/images/disk", expected)
        download(secure.mover.unix, "/images/disk", expected)
    secure.mover.stop_clean()


def is_refused(address: Secure) -> None:
    """A client there gets no answer: in TLS 1.3 it learns of the refusal with the first byte it reads."""
    with pytest.raises((ssl.SSLError, ConnectionError)), Client(address) as client:
        client.ask("GET", "/healthz")


def test_an_authority_that_is_replaced_is_trusted_no_more(images: Images, start_secure: StartSecure) -> None:
    """After SIGHUP clients of the new authority are let in, those of the old one are not."""
    old, new = Authority(images.room, "old"), Authority(images.room, "new")
    trusted = images.room / "trusted.crt"
    shutil.copy(old.certificate, trusted)
    secure = start_secure(
        {"disk": images.qemu_nbd(images.pattern("disk", 1, MIB))},
        client_ca_file=str(trusted),
        client_certificates="required",
    )
    mine, theirs = secure.client(old.issue("mine")), secure.client(new.issue("theirs"))
    assert serial_number(mine)
    is_refused(theirs)
    shutil.copy(new.certificate, trusted)
    renew(secure, secure.authority.issue("fresh"))
    is_refused(mine)
    with Client(theirs) as client:
        assert client.ask("GET", "/healthz").status == 200
    secure.mover.stop_clean()


# -- the start ---------------------------------------------------------------------------------------------------


def start(room: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Start `mover serve` with TLS, which must fail."""
    command = [sys.executable, "-m", "mover", "serve", "--config=/dev/null", "--port=0", f"--state-dir={room}/state"]
    return subprocess.run(
        [*command, "--tls-enabled", *flags],
        capture_output=True, text=True, timeout=PATIENCE_S, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_what_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """Each mistake is one line that names the file and what is wrong with it; a missing name is a wrong setting."""
    authority = Authority(tmp_path)
    one, other = authority.issue("one"), authority.issue("other")
    locked = tmp_path / "locked.key"
    lock = ["openssl", "ec", "-in", str(one.key), "-out", str(locked), "-aes256", "-passout", "pass:x"]
    subprocess.run(lock, check=True, capture_output=True)
    for certificate, key, says in (
        (one.certificate, other.key, "the key is not the certificate's"),
        (one.key, one.key, "there is no PEM of what is needed"),
        (one.certificate, one.certificate, "there is no PEM of what is needed"),
        (one.certificate, tmp_path / "nothing", f"{tmp_path}/nothing: cannot be read (no such file or directory)"),
        (tmp_path, one.key, f"{tmp_path}: cannot be read (is a directory)"),
        (one.certificate, locked, "the key has a passphrase"),
    ):
        done = start(tmp_path, f"--tls-cert-file={certificate}", f"--tls-key-file={key}")
        assert done.returncode == 3, done.stderr
        line = done.stderr.splitlines()[-1]
        assert line.startswith("mover: cannot speak TLS: "), done.stderr
        assert says in line
        assert "Traceback" not in done.stderr
    done = start(tmp_path)
    assert (done.returncode, "tls.cert_file: is missing" in done.stderr) == (2, True), done.stderr

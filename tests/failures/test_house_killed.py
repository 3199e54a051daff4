"""A front end or the supervisor is killed: what the failure model promises to everybody else is kept."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import Client
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, assert_same_file, mapped
from tests.harness.transfers import BrokenOff, Doing, download, pieces, read_compared, upload
from tests.harness.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.nbd

SIZE = 64 * MIB


def connected_to(mover: Mover, front_end: int) -> Client:
    """A connection that this front end has accepted; the kernel chooses, so it may take some tries."""
    others = []
    try:
        for _ in range(200):
            client = mover.client()
            assert client.ask("GET", "/healthz").status == 200
            if client.sock.getsockname()[1] in remote_ports(front_end):
                return client
            others.append(client)
        raise AssertionError(f"the kernel gave none of {len(others)} connections to front end {front_end}")
    finally:
        for client in others:
            client.close()


def remote_ports(pid: int) -> set[int]:
    """The ports of a process's TCP clients."""
    connections = psutil.Process(pid).net_connections("tcp4")
    return {connection.raddr.port for connection in connections if connection.status == psutil.CONN_ESTABLISHED}


def warm(mover: Mover) -> None:
    """Have every front end open its lane to the disk."""
    for pid in mover.front_end_pids():
        with connected_to(mover, pid) as client:
            assert client.ask("GET", "/images/disk", range="bytes=0-9").status == 206


def test_a_killed_front_end_takes_only_its_own_clients(images: Images, start_mover: StartMover) -> None:
    """The other one's transfers go on, new requests are answered, and it is replaced."""
    source = images.pattern("disk", 1, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(source)}, front_ends=2)
    warm(mover)
    before = mover.settled_census()
    doomed, other = mover.front_end_pids()
    with mapped(source) as expected, connected_to(mover, doomed) as its, connected_to(mover, other) as others:
        lost, kept = its.begin("GET", "/images/disk"), others.begin("GET", "/images/disk")
        read_compared(kept, expected, {SIZE // 2: lambda: os.kill(doomed, signal.SIGKILL)})
        with pytest.raises(BrokenOff):
            read_compared(lost, expected)
        for _ in range(10):
            assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    wait_until("it is replaced", lambda: doomed not in mover.front_end_pids() and len(mover.front_end_pids()) == 2)
    wait_until("the new one serves", lambda: mover.log().count("front end ready") == 3)
    warm(mover)
    mover.assert_returns_to(before)
    mover.stop_clean()


def test_front_ends_are_replaced_again_and_again(images: Images, start_mover: StartMover) -> None:
    """Writers whose front end dies send again, and at last every byte is there; no worker is restarted for it."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    mover = start_mover({"disk": images.qemu_nbd(disk)}, {"supervisor": {"backoff_s": 0.2}}, front_ends=2)
    warm(mover)

    def write(sent: memoryview) -> int:
        tries = 1
        while True:
            try:
                assert upload(mover.tcp, "/images/disk", sent).status == 200
                return tries
            except ConnectionError:
                tries += 1

    with mapped(source) as sent:
        writer = Doing(lambda: write(sent))
        for kills in range(1, 4):
            os.kill(mover.front_end_pids()[0], signal.SIGKILL)
            wait_until("another one serves", lambda: mover.log().count("front end ready") == 2 + kills)  # noqa: B023
        writer.result()
    assert_same_file(disk, source)
    assert [row["restarts"] for row in mover.workers()] == [0]
    mover.stop_clean()


def test_without_their_supervisor_front_ends_finish_and_leave(images: Images, start_mover: StartMover) -> None:
    """A GET and a PUT in flight are completed, then all processes go; a new Mover takes the same places."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    servers = {"source": images.qemu_nbd(source), "disk": images.qemu_nbd(disk)}
    mover = start_mover(servers)

    def kill() -> None:
        os.kill(mover.pid, signal.SIGKILL)
        mover.process.wait()

    with mapped(source) as expected, mover.client() as reader:
        reading = reader.begin("GET", "/images/source")
        answer = upload(mover.tcp, "/images/disk", expected, {SIZE // 2: kill})
        assert (answer.status, answer.json()["flushed"]) == (200, True)
        read_compared(reading, expected)
    assert_same_file(disk, source)
    mover.wait_for_end()
    mover.assert_log_clean()
    mover.start()
    with mapped(source) as expected:
        download(mover.unix, "/images/disk", expected)
    mover.stop_clean()


def test_sigterm_lets_a_transfer_finish(images: Images, start_mover: StartMover) -> None:
    """While it drains, a GET and a PUT go on to their end and newcomers are refused; then nothing is left."""
    source, disk = images.pattern("source", 1, SIZE), images.pattern("disk", 2, SIZE)
    mover = start_mover({"source": images.qemu_nbd(source), "disk": images.qemu_nbd(disk)}, front_ends=2)

    def refused() -> bool:
        try:
            mover.ask("GET", "/healthz")
        except ConnectionError:
            return True
        return False

    def drain() -> None:
        mover.signal(signal.SIGTERM)
        wait_until("newcomers are refused", refused)

    with mapped(source) as expected, mover.client() as reader:
        reading = reader.begin("GET", "/images/source")
        answer = upload(mover.tcp, "/images/disk", expected, {SIZE // 2: drain})
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        read_compared(reading, expected)
    assert_same_file(disk, source)
    assert mover.process.wait(PATIENCE_S) == 0
    mover.wait_for_end()
    mover.assert_log_clean()
    assert not mover.unix.exists()


@pytest.mark.parametrize("front_ends", [1, 2])
def test_a_second_sigterm_ends_at_once(front_ends: int, images: Images, start_mover: StartMover) -> None:
    """Transfers are cut off, visibly, and nothing is left: no process, no socket, no memory."""
    source = images.pattern("disk", 1, SIZE)
    patient = {"serve": {"drain_s": 3600.0}, "front": {"progress_s": 3600.0}}
    mover = start_mover({"disk": images.qemu_nbd(source)}, patient, front_ends)
    with mapped(source) as expected, mover.client() as reader:
        reading = reader.begin("GET", "/images/disk")
        mover.signal(signal.SIGTERM)
        wait_until("it drains", lambda: "stopping" in mover.log())
        mover.signal(signal.SIGTERM)
        assert mover.process.wait(PATIENCE_S) == 0
        mover.wait_for_end()
        with pytest.raises(BrokenOff):
            read_compared(reading, expected)
    assert not mover.unix.exists()


def test_a_drain_has_an_end(images: Images, start_mover: StartMover) -> None:
    """A client that never finishes is cut off when the drain's deadline is over."""
    mover = start_mover({"disk": images.qemu_nbd(images.pattern("disk", 1, SIZE))}, {"serve": {"drain_s": 0.5}})
    with mover.client() as reader, mover.client() as writer:
        reader.begin("GET", "/images/disk")
        writer.putrequest("PUT", "/images/disk")
        writer.putheader("Content-Length", str(SIZE))
        writer.endheaders(next(pieces(memoryview(bytes(MIB)))))
        assert mover.stop() == 0
        mover.wait_for_end()

"""`GET /metrics` against what clients know: bytes, requests and errors add up, whoever was killed meanwhile."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.http import connect, head
from tests.harness.mover import Mover
from tests.harness.patterns import MIB, pattern
from tests.harness.transfers import Doing, download
from tests.harness.waiting import wait_until
from tests.operation.metrics import metrics

pytestmark = pytest.mark.nbd

SIZE = 8 * MIB + 333
KIB = 1024


class Tallied:
    """A client that keeps its own accounts."""

    def __init__(self, mover: Mover) -> None:
        self._mover = mover
        self.bytes: Counter[str] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()

    def get(self, first: int, last: int, target: str = "/images/disk") -> None:
        """Read a range."""
        answer = self._mover.ask("GET", target, unix=first % 2 == 0, Range=f"bytes={first}-{last}")
        assert answer.status == 206, answer
        assert answer.body == pattern(1, first, last + 1 - first)
        self._count("GET", 206, out=len(answer.body))

    def put(self, first: int, length: int, method: str = "PUT") -> None:
        """Write what is there already."""
        body, last = pattern(1, first, length), first + length - 1
        if method == "PUT":
            answer = self._mover.ask("PUT", "/images/disk", body, Content_Range=f"bytes {first}-{last}/*")
        else:
            answer = self._mover.ask("PATCH", "/images/disk", body, Range=f"bytes={first}-{last}")
        assert answer.status == 200, answer
        self._count(method, 200, taken=length)

    def look(self, target: str, status: int) -> None:
        """Something that moves none of the image."""
        answer = self._mover.ask("GET", target)
        assert answer.status == status, answer
        self._count("GET", status)

    def _count(self, method: str, status: int, taken: int = 0, out: int = 0) -> None:
        self.bytes["in"] += taken
        self.bytes["out"] += out
        self.requests[method, str(status)] += 1

    def agrees(self) -> None:
        """The page says the same. A request is counted when its answer is written, which its client may see before."""
        wait_until("requests are counted", lambda: self._requests() == dict(self.requests))
        page = metrics(self._mover)
        shown = {way: page.value("mover_client_bytes_total", direction=way) for way in ("in", "out")}
        assert shown == dict(self.bytes)

    def _requests(self) -> dict[tuple[str, str], float]:
        page = metrics(self._mover)
        shown: Counter[tuple[str, str]] = Counter()
        for sample in page.families["mover_requests"].samples:
            if sample.labels["kind"] != "service":
                shown[sample.labels["method"], sample.labels["status"]] += int(sample.value)
        return dict(shown)


def work(client: Tallied) -> None:
    """Requests of every size, at both doors."""
    for number in range(8):
        client.get(0, SIZE - 1)
        client.get(number, number)
        client.get(number * MIB + 1, number * MIB + 4096)
        client.put(number * MIB, 300 * KIB + number)
        client.put(number * MIB + 5, 77, "PATCH")
        client.look("/images/disk/extents", 200)
        client.look("/images/nobody", 404)
        client.look("/images/disk/checksum?algorithm=rot13", 400)


def test_bytes_and_requests_add_up_whoever_is_killed(images: Images, start_mover: StartMover) -> None:
    """Over two front ends, both doors, a killed front end and a killed worker: nothing lost, nothing twice."""
    server = images.qemu_nbd(images.pattern("disk", 1, SIZE))
    mover = start_mover({"disk": server}, front_ends=2)
    client = Tallied(mover)
    work(client)
    client.agrees()
    for pid in mover.front_end_pids():
        os.kill(pid, signal.SIGKILL)
    wait_until("both are back", lambda: metrics_when_ready(mover) == 2)
    client.agrees()
    work(client)
    mover.kill_worker()
    work(client)
    client.agrees()
    page = metrics(mover)
    assert page.value("mover_front_end_restarts_total") == 2
    assert page.value("mover_worker_restarts_total") == 1
    assert page.value("mover_requests_in_flight") == 0
    assert page.value("mover_nbd_bytes_total", operation="write") >= client.bytes["in"]
    mover.stop_clean()


def metrics_when_ready(mover: Mover) -> float:
    """How many front ends serve; 0 while none answers."""
    try:
        return metrics(mover).value("mover_front_ends", state="ready")
    except (ConnectionError, AssertionError):
        return 0


def test_what_a_killed_front_end_had_moved_stays_counted(images: Images, start_mover: StartMover) -> None:
    """Bytes are counted as they move: those of a body that its front end's death broke off, too."""
    server = images.qemu_nbd(images.pattern("disk", 1, 64 * MIB))
    mover = start_mover({"disk": server})
    with connect(mover.tcp, receive_buffer=65536) as sock:
        sock.sendall(head("GET", "/images/disk"))
        received = 0
        while received < 16 * MIB:
            received += len(sock.recv(MIB))
        os.kill(mover.front_end_pids()[0], signal.SIGKILL)
    wait_until("it is back", lambda: metrics_when_ready(mover) == 1)
    # What it had given to the kernel is more than what came, by the size of buffers at most.
    moved = metrics(mover).value("mover_client_bytes_total", direction="out")
    assert received - 10 * KIB <= moved < 64 * MIB
    mover.stop_clean()


def test_a_death_of_the_worker_shows_as_replays(images: Images, start_mover: StartMover) -> None:
    """A worker that is killed with jobs in flight: they are submitted again, and counted."""
    server = images.qemu_nbd(images.pattern("disk", 1, 16 * MIB))
    mover = start_mover({"disk": server})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    source = memoryview(pattern(1, 0, 16 * MIB))
    server.pause()
    reading = Doing(lambda: download(mover.tcp, "/images/disk", source))
    wait_until("commands are in flight", lambda: metrics(mover).value("mover_nbd_in_flight") > 0)
    mover.kill_worker()
    server.resume()
    reading.result()
    page = metrics(mover)
    assert page.value("mover_job_replays_total") > 0
    assert page.value("mover_client_bytes_total", direction="out") == 16 * MIB + 10
    mover.stop_clean()


def test_errors_are_told_by_whose_fault_they_are(images: Images, start_mover: StartMover) -> None:
    """The client's, the NBD server's, its absence's, a limit's; a client that leaves is one, too."""
    broken = images.nbdkit("broken", "memory", "size=8M", "error-rate=100%", "error-pread-rate=100%", filters=["error"])
    good = images.qemu_nbd(images.pattern("disk", 1, 64 * MIB))
    settings = {"limits": {"max_readers": 1, "mode": "reject"}}
    mover = start_mover({"broken": broken, "good": good, "nowhere": "nbd://127.0.0.1:1/"}, settings)
    assert mover.ask("GET", "/images/nobody").status == 404
    assert mover.ask("GET", "/images/broken", Range="bytes=0-9").status == 500
    assert mover.ask("GET", "/images/nowhere").status == 502
    with connect(mover.tcp, receive_buffer=65536) as sock:
        sock.sendall(head("GET", "/images/good"))
        sock.recv(1)
        assert mover.ask("GET", "/images/good").status == 503
        assert metrics(mover).value("mover_requests_in_flight") == 1
    wait_until("it is seen that the client left", lambda: metrics(mover).value("mover_errors_total", kind="gone"))
    page = metrics(mover)
    kinds = {sample.labels["kind"]: sample.value for sample in page.families["mover_errors"].samples}
    assert kinds == {
        "request": 1,
        "refused": 1,
        "nbd": 1,
        "unreachable": 1,
        "lost": 0,
        "broken_off": 0,
        "gone": 1,
        "bug": 0,
    }
    assert page.value("mover_nbd_errors_total", operation="read") >= 1
    assert page.value("mover_requests_in_flight") == 0
    assert page.value("mover_requests_total", status="499") == 1
    wait_until("what was read ahead comes back", lambda: metrics(mover).value("mover_slots_used") == 0)
    mover.stop_clean()


def test_waits_show_where_they_were(images: Images, start_mover: StartMover) -> None:
    """In line for a seat, for a lane, for the client; commands and flushes by their time at the NBD server."""
    server = images.qemu_nbd(images.pattern("disk", 1, 64 * MIB))
    mover = start_mover({"disk": server}, {"limits": {"max_readers": 1}})
    with connect(mover.tcp, receive_buffer=65536) as sock:
        sock.sendall(head("GET", "/images/disk"))
        sock.recv(1)
        waiting = Doing(lambda: mover.ask("GET", "/images/disk", Range="bytes=0-9"))
        wait_until("one is in line", lambda: metrics(mover).value("mover_requests_waiting") == 1)
        received = 0
        while received < 32 * MIB:  # more than all buffers hold
            received += len(sock.recv(64 * KIB))
    assert waiting.result().status == 206
    assert mover.ask("PUT", "/images/disk", b"x" * 4096).status == 200
    page = metrics(mover)
    for stage in ("seat", "lane", "client", "job"):
        assert page.value("mover_stage_seconds_count", stage=stage) >= 1, stage
    assert page.value("mover_nbd_command_seconds_count", operation="flush") == 1
    assert page.value("mover_nbd_command_seconds_count", operation="read") >= 2
    assert page.value("mover_request_seconds_count", kind="image") == 3
    assert page.value("mover_request_seconds_bucket", kind="image", le="+Inf") == 3
    mover.stop_clean()


def test_labels_name_no_image_and_no_client(images: Images, start_mover: StartMover) -> None:
    """Nothing that a client or an image brings becomes a label, so the page does not grow with them."""
    server = images.qemu_nbd(images.pattern("secret", 1, SIZE))
    mover = start_mover({"secret-id": server})
    mover.ask("GET", "/images/secret-id", Range="bytes=0-9")

    def ask_nonsense(number: int) -> None:
        mover.ask("GET", f"/images/other-{number}")
        mover.ask(f"BREW{number}", "/images/secret-id")
        mover.ask("GET", f"/nothing/{number}")

    ask_nonsense(0)
    metrics(mover)
    before = metrics(mover).series
    for number in range(1, 50):
        ask_nonsense(number)
    page = metrics(mover)
    assert page.series == before
    assert not any("secret" in value or "127.0.0.1" in value or "BREW" in value for value in page.label_values)
    mover.stop_clean()


@pytest.mark.parametrize(("setting", "status"), [("loopback", 200), ("always", 200), ("never", 404)])
def test_tcp_shows_metrics_where_it_may(setting: str, status: int, start_mover: StartMover) -> None:
    """By setting on TCP, always on the Unix socket."""
    mover = start_mover({}, {"serve": {"metrics": setting}})
    assert mover.ask("GET", "/metrics").status == status
    assert metrics(mover).value("mover_ready") == 1
    mover.stop_clean()


def test_metrics_stay_on_this_host_by_default(start_mover: StartMover) -> None:
    """A listener on all addresses does not show them."""
    mover = start_mover({}, {"serve": {"listen": "0.0.0.0"}})
    assert mover.ask("GET", "/metrics").status == 404
    assert metrics(mover).value("mover_ready") == 1

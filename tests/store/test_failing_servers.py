"""What servers of stores may do while images come and go: nothing is active that is not whole, nothing is left, and
what clients are given is right, or visibly broken off."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.harness.http import Answer, Body
from tests.harness.mover import Mover, Value
from tests.harness.waiting import wait_until
from tests.store.library import OCTETS, Library, in_chunks
from tests.store.s3_servers import BUCKET, SECRET, Passing, S3Server, Trouble, moto, trouble_before
from tests.store.webhdfs_server import Hdfs, Node, webhdfs

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
LONG_S = 120.0
DATA = random.Random(7).randbytes(12 * MIB)
# What happens, and what the client of an upload is told.
UPLOADS = {
    "503": (503, b"does not work"),
    "507": (413, b"full"),
    "403": (503, b"its administrator must"),
    "killed": (503, b"does not work"),
    "slow": (204, b""),
}
# What becomes of a download.
READS = {
    "reads 503": "refused",
    "later 500": "broken off",
    "later killed": "broken off",
    "later cut": "broken off",
    "cut once": "whole",
    "slow": "whole",
}
# Where "later" begins: with the second block of those that are read ahead.
LATER = 4 * MIB


class Servers:
    """A server of each kind, whose `modes` say of an image's id what happens to requests for its bytes."""

    def __init__(self, s3: S3Server, trouble: Trouble, hdfs: Hdfs) -> None:
        self.s3 = s3
        self.hdfs = hdfs
        self.endpoint = trouble.endpoint
        self.modes: dict[str, str] = {}
        self.listed: list[str] = []
        self._seen: set[tuple[str, ...]] = set()
        self._lock = threading.Lock()
        self._pause = threading.Event()
        self.passed = trouble.passed
        trouble.fault = self._s3_fault
        hdfs.fault = self._hdfs_fault

    def mode(self, path: str) -> str:
        """What happens to it."""
        return next((mode for image, mode in self.modes.items() if image in path), "")

    def _s3_fault(self, passing: Passing) -> bool:
        mode, query = self.mode(passing.path), parse_qs(urlsplit(passing.path).query, keep_blank_values=True)
        if "list-type" in query and ".mover/" not in query.get("prefix", [""])[0]:
            self.listed.append(passing.path)
        if mode == "killed":
            passing.close_connection = True
            return True
        if passing.command == "GET" and mode in READS:
            return self._read_fault(passing, mode, passing.headers["Range"])
        of_bytes = "partNumber" in query
        if not mode or not of_bytes:
            return False
        if mode == "slow":
            self._pause.wait(0.3)
            return False
        return passing.answer(int(mode), {"507": "XMinioStorageFull", "403": "AccessDenied"}.get(mode, "InternalError"))

    def _hdfs_fault(self, node: Node, operation: str) -> bool:
        mode = self.mode(node.path)
        if operation.startswith("LIST") and ".mover" not in node.path:
            self.listed.append(node.path)
        if mode == "killed":
            return True
        if mode == "lost" and operation in ("CREATE", "CONCAT", "RENAME"):
            node.is_mute = self._is_first(node.command, node.path)
            return False
        if operation == "OPEN" and mode in READS:
            offset = parse_qs(urlsplit(node.path).query)["offset"][0]
            return node.path.startswith("/data/") and self._read_fault(node, mode, f"bytes={offset}-")
        if not mode or operation != "CREATE" or ".segments" not in node.path:
            return False
        if mode == "slow":
            self._pause.wait(0.3)
            return False
        return node.fail(int(mode))

    def _is_first(self, *request: str) -> bool:
        """Whether it comes for the first time."""
        with self._lock:
            known = request in self._seen
            self._seen.add(request)
        return not known

    def _read_fault(self, request: Passing | Node, mode: str, span: str) -> bool:
        """`span` is what a Range asks for."""
        offset = int(span.removeprefix("bytes=").partition("-")[0])
        if mode == "slow":
            self._pause.wait(0.3)
        elif mode == "cut once" and self._is_first(request.path, span):
            request.cut_at = MIB // 3
        elif mode == "later cut" and offset >= LATER:
            request.cut_at = 0
        elif mode == "later killed" and offset >= LATER:
            request.close_connection = True
            return True
        elif mode == "reads 503" or (mode == "later 500" and offset >= LATER):
            status = int(mode[-3:])
            return request.fail(status) if isinstance(request, Node) else request.answer(status, "InternalError")
        return False

    def left(self) -> list[str]:
        """Everything that lies anywhere."""
        return [*self.s3.names(), *self.hdfs.names("/mover"), *["an upload"] * self.s3.unfinished()]


@pytest.fixture(scope="module")
def servers(module_room: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        s3 = stack.enter_context(moto(module_room))
        yield Servers(s3, stack.enter_context(trouble_before(s3, keep_alive=False)), stack.enter_context(webhdfs()))


@pytest.fixture(scope="module")
def library(servers: Servers, module_room: Path) -> Iterator[Library]:
    s3: dict[str, Value] = {
        "type": "s3",
        "id": "s3",
        "endpoint": servers.endpoint,
        "bucket": BUCKET,
        "part_bytes": 5 * MIB,
        "credentials_file": str(servers.s3.credentials()),
    }
    hdfs: dict[str, Value] = {
        "type": "webhdfs",
        "id": "webhdfs",
        "endpoint": servers.hdfs.endpoint,
        "directory": "/mover",
        "part_bytes": MIB,
    }
    mover = Mover(module_room, {}, {"store": [s3, hdfs], "worker": {"idle_s": 1.0}}, 2).start()
    try:
        yield Library(mover)
        stop(mover)
    finally:
        mover.close()


def ask(library: Library, method: str, image: str, data: Body = None, store: str = "") -> Answer:
    """As any request for an image's data, by a client that waits for all that Mover tries again."""
    headers = {"Content-Type": OCTETS, "X-Image-Meta-Store": store} if store else {}
    with library.mover.client() as client:
        client.connect()
        client.sock.settimeout(LONG_S)
        return client.ask(method, f"/v2/images/{image}/file", data, headers)


def stop(mover: Mover) -> None:
    """Not `stop_clean`: a worker may still try again what nobody waits for any more."""
    assert mover.stop() == 0
    mover.wait_for_end()
    assert "Traceback" not in mover.log()


@pytest.fixture(autouse=True)
def _no_trouble_stays(servers: Servers) -> Iterator[None]:
    yield
    servers.modes.clear()


def test_an_upload_into_a_server_that_fails_is_refused_with_the_reason_and_leaves_nothing(
    library: Library, servers: Servers
) -> None:
    """All kinds of trouble at once, each with its own image, from the moment when a part has come."""

    def one(store: str, mode: str) -> str:
        image = library.create()

        def pieces() -> Iterator[bytes]:
            yield DATA[: 6 * MIB]
            servers.modes[image] = mode
            yield from in_chunks(DATA[6 * MIB :], MIB)

        status, text = UPLOADS[mode]
        try:
            answer = ask(library, "PUT", image, pieces(), store)
            assert answer.status == status, (store, mode, answer)
            assert text in answer.body, (store, mode, answer)
        except ConnectionError:
            assert status != 204  # the answer came before all of the body
        servers.modes.pop(image)
        library.wait_for("active" if status == 204 else "queued", image)
        if status == 204:
            assert library.get(image).body == DATA
            assert library.delete(image).status == 204
        return image

    cases = [*(("s3", mode) for mode in UPLOADS), ("webhdfs", "503"), ("webhdfs", "507"), ("webhdfs", "slow")]
    with ThreadPoolExecutor(len(cases)) as clients:
        images = list(clients.map(lambda case: one(*case), cases))
    # What nobody could remove, since the server was away, goes with the first use after a start.
    stop(library.mover)
    library.mover.start()
    assert {
        library.show(image)["status"] for image, (_, mode) in zip(images, cases, strict=True) if mode != "slow"
    } == {"queued"}
    wait_until("nothing is left", lambda: servers.left() == [], 60)
    assert SECRET not in library.mover.log()


def test_what_hdfs_does_though_its_answer_is_lost_is_not_done_twice(library: Library, servers: Servers) -> None:
    """Each write of a segment, each joining and the renaming is done, and its first answer never comes."""
    image = library.create()
    servers.modes[image] = "lost"
    assert ask(library, "PUT", image, DATA, "webhdfs").status == 204
    assert len([line for line in servers.hdfs.requests if "CONCAT" in line]) >= 1
    assert ask(library, "GET", image).body == DATA
    assert library.delete(image).status == 204
    assert servers.hdfs.names("/mover") == []


def test_a_download_is_right_or_visibly_broken_off_and_the_next_one_after_an_outage_is_right(
    library: Library, servers: Servers
) -> None:
    """All at once, each with its own image; and of each failing one a second reader, who comes while it still fails."""
    cases = [*(("s3", mode) for mode in READS), ("webhdfs", "later 500"), ("webhdfs", "cut once")]

    def upload(store: str) -> str:
        image = library.create()
        assert ask(library, "PUT", image, DATA, store).status == 204
        return image

    def read(image: str) -> str:
        try:
            answer = ask(library, "GET", image)
        except http.client.IncompleteRead as error:
            assert DATA.startswith(error.partial)
            return "broken off"
        except ConnectionError:
            return "broken off"
        assert answer.status in (200, 503), answer
        assert answer.status == 503 or answer.body == DATA
        return "whole" if answer.status == 200 else "refused"

    with ThreadPoolExecutor(2 * len(cases)) as clients:
        images = list(clients.map(upload, [store for store, _ in cases]))
        servers.modes |= {image: mode for image, (_, mode) in zip(images, cases, strict=True)}
        first = [clients.submit(read, image) for image in images]
        second = [clients.submit(read, image) for image in images]
        found = [one.result() for one in first]
        servers.modes.clear()
        again = list(clients.map(read, images))
        for one in second:
            one.result()
    assert found == [READS[mode] for _, mode in cases]
    assert again == ["whole"] * len(cases)
    for image in images:
        assert library.delete(image).status == 204
    wait_until("nothing is left", lambda: servers.left() == [])


def test_who_leaves_while_a_server_fails_leaves_nothing_behind(library: Library, servers: Servers) -> None:
    """A worker may still try again, for nobody, when its lane is closed; it ends then, and its slots with it."""
    image = library.create()
    assert ask(library, "PUT", image, DATA[: 6 * MIB], "s3").status == 204
    servers.modes[image] = "reads 503"

    def reading() -> list[dict[str, Any]]:
        return [
            row for row in library.mover.workers() if row["export"].startswith("object:") and image in row["export"]
        ]

    with library.mover.client() as client:
        client.putrequest("GET", f"/v2/images/{image}/file")
        client.endheaders()
        wait_until("it is asked for", lambda: any(row["in_flight"] for row in reading()))
    wait_until("nothing of it is under way", lambda: not any(row["pid"] for row in reading()), LONG_S)
    servers.modes.clear()
    assert ask(library, "GET", image).body == DATA[: 6 * MIB]
    assert library.delete(image).status == 204


def test_what_is_asked_of_a_server_does_not_depend_on_how_much_it_has(library: Library, servers: Servers) -> None:
    """Nobody lists a bucket's images; and an image costs as many requests beside two hundred others as by itself."""

    def requests() -> tuple[int, int]:
        before = len(servers.passed), len(servers.hdfs.requests)
        for store in ("s3", "webhdfs"):
            image = library.create()
            assert library.put(image, DATA[: 6 * MIB], X_Image_Meta_Store=store).status == 204
            assert library.get(image).body == DATA[: 6 * MIB]
            assert library.delete(image).status == 204
        return len(servers.passed) - before[0], len(servers.hdfs.requests) - before[1]

    requests()  # which sweeps first
    swept = len(servers.passed)
    alone = requests()
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(lambda number: servers.s3.ask("PUT", f"other-{number}"), range(200)))
    servers.hdfs.files |= {f"/mover/other-{number}": bytearray() for number in range(200)}
    assert requests() == alone
    assert servers.listed == []
    assert [line for line in servers.passed[swept:] if "list-type" in line] == []
    servers.s3.clear()
    servers.hdfs.files.clear()

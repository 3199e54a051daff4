"""Both dialects, row by row of their table: the same requests to the same disk, by a ticket of each side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.house import KIB, MIB, servers
from tests.contract.wire import Answer, Wire, request
from tests.control.agent import Agent
from tests.harness.http import Address
from tests.harness.mover import Mover
from tests.harness.patterns import pattern

pytestmark = pytest.mark.nbd

SIZE = 3 * MIB
FILE_BYTES = 1 * MIB + 77
NEEDED = ("scratch", "dirty", "read-only")


@dataclass(frozen=True)
class Peers:
    """One Mover; each of its images has an id `imageio-NAME` and one `cloudstack-NAME`."""

    mover: Mover
    agent: Agent
    room: Path


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    """The images of the house in both dialects, and a file: a block device to the one, whole to the other."""
    room = tmp_path_factory.mktemp("peers")
    (room / "disk.raw").write_bytes(pattern(4, 0, FILE_BYTES))
    with ExitStack() as stack:
        nbd = {name: server for name, server in servers(room).items() if name in NEEDED}
        for server in nbd.values():
            stack.callback(server.close)
            server.start()
        urls = {f"imageio-{name}": server.uri() for name, server in nbd.items()}
        urls["imageio-dirty"] += "&bitmap=since"
        urls["imageio-bare"] = nbd["dirty"].uri()
        urls["imageio-file"] = f"file://{room}/disk.raw"
        mover = Mover(room, urls, {"serve": {"control_socket": str(room / "control")}})
        stack.callback(mover.close)
        mover.start()
        agent = Agent(room / "control")
        for name, server in nbd.items():
            bitmap = {"export_bitmap": "since"} if name == "dirty" else {}
            assert agent.register(f"cloudstack-{name}", server, **bitmap)["status"] == "ok"
        assert agent.register("cloudstack-bare", nbd["dirty"])["status"] == "ok"
        file = {"backend": "file", "file": str(room / "disk.raw")}
        assert agent.ask("register", transfer_id="cloudstack-file", config=file)["status"] == "ok"
        yield Peers(mover, agent, room)


@pytest.fixture(params=["tcp", "unix"])
def address(peers: Peers, request: pytest.FixtureRequest) -> Address:
    """Each of Mover's addresses in turn."""
    return peers.mover.address(unix=request.param == "unix")


@dataclass(frozen=True)
class Said:
    """What one side is answered: a status, parts of the JSON or the bytes, and whether the connection ends."""

    status: int
    body: dict[str, Any] | bytes | None = None
    error: str = ""
    closes: bool = False


@dataclass(frozen=True)
class Point:
    """One row: a request to the image `of`, and what each side is answered."""

    says: str
    of: str
    method: str
    imageio: Said
    cloudstack: Said
    more: str = ""
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.says.replace(" ", "-")

    def ask(self, address: Address, side: str) -> tuple[Answer, bool]:
        """The answer that a side gets, and whether the connection goes on."""
        named = {name.replace("-", "_"): value for name, value in self.headers}
        with Wire(address) as wire:
            answer = wire.ask(request(self.method, f"/images/{side}-{self.of}{self.more}", self.body, **named))
            if answer.headers["connection"] == "close":
                assert wire.rest() == b"", "the request was answered twice"
                return answer, False
            return answer, wire.goes_on()


def put(flushed: bool) -> Said:
    """A PUT of a byte, or a PATCH of none."""
    return Said(200, {"bytes_written": 1, "flushed": flushed})


def zeroed(count: int) -> Said:
    """A PATCH that zeroed so much."""
    return Said(200, {"bytes_written": count})


def patch(**values: object) -> bytes:
    """JSON of a zero."""
    return json.dumps({"op": "zero", **values}).encode()


def bad_range(header: str) -> tuple[tuple[str, str], ...]:
    """A Range header."""
    return (("Range", header),)


WHOLE = pattern(4, 0, FILE_BYTES)
REFUSED = Said(416, error="image size")

POINTS = [
    Point("PUT flushes by itself", "scratch", "PUT", put(True), put(False), body=b"x"),
    Point("PUT flushes when told", "scratch", "PUT", put(True), put(True), "?flush=y", b"x"),
    Point("PUT does not flush when told so", "scratch", "PUT", put(False), put(False), "?flush=n", b"x"),
    *(
        Point(f"Range {header!r}", "scratch", "GET", REFUSED, Said(400, error="image size"), headers=bad_range(header))
        for header in ("bytes=0-1,3-4", "items=0-1", "bytes=a-b", "bytes=-0", "bytes", "bytes=-", "bytes=1", "0-1")
    ),
    *(
        Point(f"Range {header!r}", "scratch", "GET", REFUSED, REFUSED, headers=bad_range(header))
        for header in ("bytes=5-4", f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE}")
    ),
    Point(
        "Content-Range whose end contradicts the length", "scratch", "PUT", Said(400, error="contradicts"), put(False),
        body=b"x", headers=(("Content-Range", "bytes 0-99/*"),),
    ),
    Point(
        "Content-Range whose end is before its start", "scratch", "PUT", Said(400, error="contradicts"), put(False),
        body=b"x", headers=(("Content-Range", "bytes 9-3/*"),),
    ),
    Point(
        "Content-Range out of the image", "scratch", "PUT", REFUSED, REFUSED, body=b"x",
        headers=(("Content-Range", f"bytes {SIZE}-{SIZE}/*"),),
    ),
    Point(
        "zero beyond the end", "scratch", "PATCH", Said(416, error="ends after the image"), zeroed(10),
        body=patch(offset=SIZE - 10, size=4096),
    ),
    Point(
        "zero at the end", "scratch", "PATCH", Said(416, error="ends after the image"), Said(400, error="at or after"),
        body=patch(offset=SIZE, size=1),
    ),
    Point(
        "zero of nothing at the end", "scratch", "PATCH", zeroed(0), Said(400, error="at or after"),
        body=patch(offset=SIZE, size=0),
    ),
    Point("numbers as text", "scratch", "PATCH", Said(400, error="bad JSON"), zeroed(512),
          body=patch(offset="4096", size="512")),
    Point("text that is no number", "scratch", "PATCH", Said(400, error="bad JSON"), Said(400, error="bad JSON"),
          body=patch(size="many")),
    Point("text of a negative number", "scratch", "PATCH", Said(400, error="bad JSON"), Said(400, error="bad JSON"),
          body=patch(size="-1")),
    Point(
        "close", "scratch", "PUT", Said(200, closes=True), Said(200), "?close=y", b"x",
    ),
    Point("close, of an error", "scratch", "GET", Said(416, closes=True), Said(416), "?close=y",
          headers=bad_range("bytes=5-4")),
    Point("close no", "scratch", "OPTIONS", Said(200), Said(200), "?close=n"),
    Point("close of what is neither", "scratch", "GET", Said(400, error="close="), Said(206), "?close=maybe",
          headers=bad_range("bytes=0-0")),
    Point("dirty without a bitmap", "bare", "GET", Said(404, error="names no bitmap"), Said(200),
          "/extents?context=dirty"),
    Point("OPTIONS of a file", "file", "OPTIONS",
          Said(200, {"features": ["checksum", "extents", "flush", "zero"]}), Said(200, {"features": ["flush"]})),
    Point("a file", "file", "GET", Said(200, WHOLE), Said(200, WHOLE)),
    Point("a part of a file", "file", "GET", Said(206, WHOLE[100:-1]), Said(206, WHOLE[100:-1]),
          headers=bad_range(f"bytes=100-{FILE_BYTES - 2}")),
    Point("the end of a file", "file", "GET", Said(206, WHOLE[-5:]), Said(206, WHOLE[-5:]),
          headers=bad_range("bytes=-5")),
    Point("after a file", "file", "GET", REFUSED, REFUSED, headers=bad_range(f"bytes={FILE_BYTES}-")),
    Point("a file's extents", "file", "GET", Said(200), Said(400, error="whole file"), "/extents"),
    Point("a file's checksum", "file", "GET", Said(200), Said(400, error="whole file"), "/checksum"),
    Point("flush of a file", "file", "POST", Said(200, {"flushed": True}), Said(200, {"flushed": True}), "/flush"),
    Point("zero in a file", "file", "PATCH", zeroed(0), Said(400, error="whole file"), body=patch(size=0)),
    Point("flush of a file by PATCH", "file", "PATCH", Said(200), Said(400, error="whole file"),
          body=b'{"op":"flush"}'),
    Point("a range into a file", "file", "PUT", put(True), Said(400, error="whole file"), body=WHOLE[:1],
          headers=(("Content-Range", "bytes 0-0/*"),)),
]  # fmt: skip


@pytest.mark.parametrize("side", ["imageio", "cloudstack"])
@pytest.mark.parametrize("point", POINTS, ids=str)
def test_point(point: Point, side: str, address: Address) -> None:
    """Where the contract's sides disagree, each gets its own answer; where they do not, the same."""
    said: Said = getattr(point, side)
    answer, goes_on = point.ask(address, side)
    assert answer.status == said.status, answer
    assert goes_on != said.closes
    if said.error:
        assert said.error in answer.error
    if isinstance(said.body, bytes):
        assert answer.body == said.body
    elif said.body is not None:
        assert answer.json().items() >= said.body.items()


def test_extents_have_the_keys_of_their_side(address: Address) -> None:
    """CloudStack's have no `hole`, and neighbours that differ in nothing else are one."""
    ours = [extents(address, side, "bare") for side in ("imageio", "cloudstack")]
    assert {tuple(one) for one in ours[0]} == {("start", "length", "zero", "hole")}
    assert {tuple(one) for one in ours[1]} == {("start", "length", "zero")}
    assert all(one["zero"] != next_one["zero"] for one, next_one in zip(ours[1], ours[1][1:], strict=False))


def test_dirty_extents_are_the_same_for_both_sides(address: Address) -> None:
    """Where there is a bitmap, there is no difference."""
    ours = [extents(address, side, "dirty", "?context=dirty") for side in ("imageio", "cloudstack")]
    assert ours[0] == ours[1]
    assert any(one["dirty"] for one in ours[0])


def test_everything_is_dirty_for_cloudstack_without_a_bitmap(peers: Peers, address: Address) -> None:
    """Its users copy everything then; the log warns."""
    found = extents(address, "cloudstack", "bare", "?context=dirty")
    zeros = extents(address, "cloudstack", "bare")
    assert found == [
        {"start": one["start"], "length": one["length"], "dirty": True, "zero": one["zero"]} for one in zeros
    ]
    assert "all is dirty" in peers.mover.log()


def extents(address: Address, side: str, image: str, more: str = "") -> list[dict[str, Any]]:
    """The extents of an image, by a ticket of a side."""
    with Wire(address) as wire:
        answer = wire.ask(request("GET", f"/images/{side}-{image}/extents{more}"))
    assert answer.status == 200, answer
    found: list[dict[str, Any]] = answer.json()
    return found


def test_a_whole_file_is_replaced(peers: Peers, address: Address) -> None:
    """PUT makes another file of the path, of any size, with the old one's mode; imageio's ticket sees a new disk."""
    path = peers.room / "other.qcow2"
    path.write_bytes(b"old" * 1000)
    path.chmod(0o640)
    assert peers.agent.ask(
        "register", transfer_id="replaced", config={"backend": "file", "file": str(path)}
    )["status"] == "ok"  # fmt: skip
    with Wire(address) as wire:
        for body in (pattern(5, 0, 3 * MIB + 5), b"", b"short"):
            answer = wire.ask(request("PUT", "/images/replaced", body))
            assert (answer.status, answer.json()["bytes_written"]) == (200, len(body))
            assert path.read_bytes() == body
            assert wire.ask(request("GET", "/images/replaced")).body == body
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(name.name for name in peers.room.glob("*other.qcow2*")) == ["other.qcow2"]


def test_a_whole_file_that_does_not_come_whole_leaves_the_old_one(peers: Peers, address: Address) -> None:
    """A client that leaves in the middle changes nothing, and leaves nothing behind."""
    path = peers.room / "kept.raw"
    path.write_bytes(b"old")
    assert peers.agent.ask(
        "register", transfer_id="kept", config={"backend": "file", "file": str(path)}
    )["status"] == "ok"  # fmt: skip
    with Wire(address) as wire:
        wire.send(request("PUT", "/images/kept", b"half" * 100_000, Content_Length=4 * MIB))
    # Unregistering waits for what is in flight, so the upload has ended when it answers.
    assert peers.agent.unregister("kept")["status"] == "ok"
    assert path.read_bytes() == b"old"


def test_an_id_that_was_removed_is_answered_in_its_dialect(peers: Peers, address: Address) -> None:
    """CloudStack's agent is told 404 of a transfer that is over."""
    assert peers.agent.ask(
        "register", transfer_id="over", config={"socket": str(peers.room / "scratch.nbd")}
    )["status"] == "ok"  # fmt: skip
    with Wire(address) as wire:
        assert wire.ask(request("GET", "/images/over", Range="bytes=0-0")).status == 206
        peers.agent.unregister("over")
        answer = wire.ask(request("GET", "/images/over", Range="bytes=0-0"))
        assert (answer.status, answer.error) == (404, "unknown image_id")
        assert wire.goes_on()


@pytest.mark.parametrize(("unknown_id", "status"), [("cloudstack", 404), ("imageio", 403)])
def test_an_unknown_id_is_answered_as_the_setting_says(unknown_id: str, status: int, tmp_path: Path) -> None:
    """404 and the connection goes on, or imageio's 403 and it ends."""
    mover = Mover(tmp_path, {}, {"front": {"unknown_id": unknown_id}})
    try:
        mover.start()
        with Wire(mover.tcp) as wire:
            answer = wire.ask(request("GET", "/images/nobody"))
            assert answer.status == status
            assert (answer.headers["connection"] == "close") == (status == 403)
    finally:
        mover.close()


def test_zeros_of_cloudstack_may_become_holes(peers: Peers, address: Address) -> None:
    """imageio's ticket keeps the space allocated, CloudStack's gives it up."""
    path = peers.room / "scratch.raw"
    allocated = {}
    for side in ("imageio", "cloudstack"):
        path.write_bytes(pattern(2, 0, SIZE))
        with Wire(address) as wire:
            answer = wire.ask(request("PATCH", f"/images/{side}-scratch", patch(size=2 * MIB, flush=True)))
            assert answer.status == 200, answer
        allocated[side] = path.stat().st_blocks * 512
    assert allocated["imageio"] >= SIZE
    assert allocated["cloudstack"] <= SIZE - 2 * MIB + 64 * KIB

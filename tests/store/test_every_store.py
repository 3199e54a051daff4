"""What holds for every store, by whatever API an image comes and goes; Swift is real, WebHDFS a double.

Of what a URL names, which is only read, the same holds for who reads it.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.harness.fixtures import StartMover
from tests.harness.http import Client
from tests.harness.mover import Mover, Value
from tests.harness.waiting import wait_until
from tests.store.grounds import KINDS, READ_KINDS, Ground, Grounds, grounds
from tests.store.library import OCTETS, Library, in_chunks
from tests.store.s3_servers import KEY as S3_KEY
from tests.store.s3_servers import SECRET
from tests.store.swift import KEY

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
EVERY = pytest.mark.parametrize("ground", READ_KINDS, indirect=True)
WRITTEN = pytest.mark.parametrize("ground", KINDS, indirect=True)


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.fixture(scope="module")
def all_grounds(module_room: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    with grounds(module_room, tmp_path_factory.mktemp("swift")) as made:
        yield made


@pytest.fixture(scope="module")
def library(all_grounds: Grounds, module_room: Path) -> Iterator[Library]:
    """One Mover with every store, each a second time for reading only, and a `walrus` as VISOR knows them."""
    tables = [ground.table for ground in all_grounds.by_kind.values()]
    written = [ground.table for ground in all_grounds.written]
    read_only: list[dict[str, Value]] = [table | {"id": f"{table['id']}-ro", "read_only": True} for table in written]
    urls: dict[str, Value] = {"url_ports": [all_grounds.web.port], "url_allow": ["127.0.0.1"]}
    walrus: dict[str, Value] = all_grounds.by_kind["s3"].table | {"id": "walrus", "prefix": "walrus/"}
    del walrus["credentials_file"]
    mover = Mover(module_room, {}, {"store": [*tables, *read_only, walrus], "worker": {"idle_s": 2.0}, "library": urls})
    mover.environ = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "ST_USER": KEY, "ST_KEY": SECRET}
    mover.start()
    try:
        yield Library(mover)
        mover.stop_clean()
    finally:
        mover.close()


@pytest.fixture
def ground(all_grounds: Grounds, request: pytest.FixtureRequest) -> Ground:
    """Where one store's images are."""
    return all_grounds.by_kind[request.param]


def rows_of(library: Library, ground: Ground, image: str) -> list[dict[str, Any]]:
    """The rows of `/workers` that are the image's, of what a URL names of all such."""
    word = image if ground.writes else "/image-"
    return [row for row in library.mover.workers() if word in row["export"] and row["pid"]]


def put(library: Library, image: str, data: bytes, ground: Ground, **headers: str) -> int:
    """The status of an upload to the ground's store."""
    return library.put(image, data, X_Image_Meta_Store=str(ground.table["id"]), **headers).status


@EVERY
def test_an_image_of_any_size_is_there_as_it_was_whole_and_in_ranges_and_goes_without_a_trace(
    library: Library, ground: Ground
) -> None:
    part = ground.part_bytes
    for length in (0, 1, part - 1, part, 2 * part + 17):
        data = noise(length, length)
        image = brought(library, data, ground) if ground.writes else ground.have(library, data)
        seen = library.show(image)
        assert (seen["status"], seen["size"]) == ("active", length)
        assert library.get(image).body == data
        for first, last in ((0, 0), (part - 3, min(part + 70_000, length - 1)), (length - 1, length - 1)):
            if 0 <= first <= last < length:
                answer = library.get(image, Range=f"bytes={first}-{last}")
                assert (answer.status, answer.body) == (206, data[first : last + 1])
        if length:
            answer = library.get(image, Range=f"bytes=-{part}")
            assert (answer.status, answer.body) == (206, data[-part:])
            assert library.get(image, Range=f"bytes={length}-").status == 416
        assert library.delete(image).status == 204
        assert ground.left() == []


def brought(library: Library, data: bytes, ground: Ground) -> str:
    """An image that came in pieces without an announced size; its digests are those of the bytes."""
    image = library.create()
    answer = library.put(image, in_chunks(data, 70_001), X_Image_Meta_Store=str(ground.table["id"]))
    assert answer.status == 204, answer
    seen = library.show(image)
    assert seen["virtual_size"] == len(data)
    assert (seen["checksum"], seen["os_hash_value"]) == (
        hashlib.md5(data).hexdigest(),
        hashlib.sha512(data).hexdigest(),
    )
    return image


@EVERY
def test_an_image_is_read_at_random_by_many_and_by_ticket(library: Library, ground: Ground) -> None:
    """Ranges of any length anywhere, several at a time; long holes are read as zeros."""
    data = noise(3 * MIB + 5) + bytes(5 * MIB) + noise(2 * MIB, 2)
    image, anywhere = ground.have(library, data), random.Random(3)
    opened = library.mover.ask("POST", f"/v2/images/{image}/transfers", b'{"direction": "download"}')
    assert opened.status == 201, opened
    paths = [f"/v2/images/{image}/file", f"/images/{opened.json()['ticket']}"]

    def one(number: int) -> None:
        first = anywhere.randrange(len(data))
        last = min(first + anywhere.choice((1, 4096, 70_000, 3 * MIB)), len(data)) - 1
        answer = library.mover.ask("GET", paths[number % 2], Range=f"bytes={first}-{last}")
        assert (answer.status, answer.body) == (206, data[first : last + 1]), (first, last, answer.status)

    with ThreadPoolExecutor(4) as readers:
        list(readers.map(one, range(24)))
    assert library.delete(image).status == 204
    assert ground.left() == []


@EVERY
def test_who_reads_does_not_notice_that_the_worker_is_killed_and_who_leaves_leaves_nothing(
    library: Library, ground: Ground
) -> None:
    data = noise(12 * MIB)
    image = ground.have(library, data)
    with library.mover.client() as reader, library.mover.client() as leaver:
        leaver.begin("GET", f"/v2/images/{image}/file").read(10)
        response = reader.begin("GET", f"/v2/images/{image}/file")
        start = response.read(MIB)
        killed = rows_of(library, ground, image)
        assert killed
        for row in killed:
            os.kill(row["pid"], signal.SIGKILL)
        leaver.close()
        assert start + response.read() == data

    def slots() -> int:
        return sum(lane["slots_used"] for row in rows_of(library, ground, image) for lane in row["lanes"])

    wait_until("no slot is held", lambda: not slots())
    assert library.delete(image).status == 204
    assert ground.left() == []


@EVERY
def test_what_is_not_as_it_was_any_more_is_never_sent_as_if_it_were(library: Library, ground: Ground) -> None:
    """Somebody has cut what is in the store, or taken it away: that is said, and the image can be deleted."""
    data = noise(2 * MIB)
    for instead in (data[:MIB], None):
        image = ground.have(library, data)
        ground.spoil(instead)
        answer = library.get(image)
        assert answer.status == 404, answer
        assert instead is None or b"the store has 1048576 bytes" in answer.body, answer
        assert library.delete(image).status == 204
        assert ground.left() == []


@WRITTEN
def test_v1_and_visor_keep_images_there_too_and_duplicates_are_refused(library: Library, ground: Ground) -> None:
    data, mover = noise(ground.part_bytes + 5), library.mover
    words = {"name": "x", "store": str(ground.table["id"]), "disk_format": "raw", "container_format": "bare"}
    sent = {f"x-image-meta-{word}": value for word, value in words.items()}
    with mover.client() as client:
        made = client.ask("POST", "/v1/images", data, {"Content-Type": OCTETS, **sent})
        assert made.status == 201, made
        image = made.json()["image"]["id"]
        assert client.ask("GET", f"/v1/images/{image}").body == data
        again = client.ask("POST", "/v1/images", data, {"Content-Type": OCTETS, "x-image-meta-id": image, **sent})
        assert again.status == 409
        assert put(library, image, b"other", ground) == 409
        assert client.ask("GET", f"/v1/images/{image}").body == data
        assert client.ask("DELETE", f"/v1/images/{image}").status == 200

        words = {"name": "x", "architecture": "x86_64", "store": str(ground.table["id"])}
        sent = {f"x-image-meta-{word}": value for word, value in words.items()}
        made = client.ask("POST", "/visor/images", data, {"Content-Type": OCTETS, **sent})
        assert made.status == 200, made
        image = made.json()["image"]["_id"]
        assert client.ask("GET", f"/visor/images/{image}").body == data
        assert client.ask("DELETE", f"/visor/images/{image}").status == 200
    assert ground.left() == []


@EVERY
def test_several_images_come_and_are_read_at_once(library: Library, ground: Ground) -> None:
    def one(number: int) -> None:
        data = noise(3 * MIB + number, number)
        image = ground.have(library, data)
        with ThreadPoolExecutor(3) as readers:
            spans = [(at, min(at + MIB, len(data)) - 1) for at in range(0, len(data), MIB)]
            found = readers.map(lambda span: library.get(image, Range=f"bytes={span[0]}-{span[1]}").body, spans)
            assert b"".join(found) == data
        assert library.delete(image).status == 204

    with ThreadPoolExecutor(3) as clients:
        list(clients.map(one, range(3)))
    assert ground.left() == []


@WRITTEN
def test_what_is_not_what_was_announced_is_refused_and_leaves_nothing(library: Library, ground: Ground) -> None:
    data, store = noise(ground.part_bytes + MIB), str(ground.table["id"])
    sent = {"x-image-meta-store": store, "x-image-meta-disk_format": "raw", "x-image-meta-container_format": "bare"}
    with library.mover.client() as client:
        wrong = {"x-image-meta-checksum": "0" * 32, "x-image-meta-name": "wrong", "Content-Type": OCTETS}
        answer = client.ask("POST", "/v1/images", data, sent | wrong)
        assert answer.status == 400, answer
        assert b"MD5" in answer.body
    image = library.create()
    for size in (len(data) - 1, len(data) + 1):
        answer = library.put(image, in_chunks(data, MIB), X_Image_Meta_Store=store, X_Openstack_Image_Size=str(size))
        assert answer.status in (400, 413), answer
        assert library.show(image)["status"] == "queued"
    assert ground.left() == []
    assert put(library, image, data, ground) == 204
    assert library.delete(image).status == 204
    assert ground.left() == []


@EVERY
def test_a_store_that_is_only_read_takes_nothing(library: Library, ground: Ground) -> None:
    store = f"{ground.table['id']}-ro" if ground.writes else str(ground.table["id"])
    answer = library.put(library.create(), b"data", X_Image_Meta_Store=store)
    assert (answer.status, b"takes no new images" in answer.body) == (410, True), answer
    assert ground.left() == []


@WRITTEN
def test_a_client_that_leaves_leaves_nothing(library: Library, ground: Ground) -> None:
    image = library.create()
    with Client(library.mover.address()) as client:
        client.putrequest("PUT", f"/v2/images/{image}/file")
        client.putheader("Content-Type", OCTETS)
        client.putheader("X-Image-Meta-Store", str(ground.table["id"]))
        client.putheader("Content-Length", str(16 * MIB))
        client.endheaders(noise(7 * MIB))
        wait_until("something of it is there", ground.left)
    library.wait_for("queued", image)
    wait_until("nothing is left", lambda: ground.left() == [])


@EVERY
def test_the_memory_of_a_worker_does_not_grow_with_the_image(library: Library, ground: Ground) -> None:
    """When its bytes come; those at a URL come when they are read."""
    image, piece, peak = library.create(), noise(MIB), 0

    def look(number: int) -> None:
        nonlocal peak
        if number % 16 == 15:
            peak = max(peak, *(_anonymous(row["pid"]) for row in rows_of(library, ground, image)))

    def pieces() -> Iterator[bytes]:
        for number in range(96):
            look(number)
            yield piece

    if ground.serve is None:
        assert library.put(image, pieces(), X_Image_Meta_Store=str(ground.table["id"])).status == 204
    else:
        image = library.refer(ground.serve(piece * 96))
        with library.mover.client() as client:
            response = client.begin("GET", f"/v2/images/{image}/file")
            for number in range(96):
                assert response.read(MIB) == piece
                look(number)
        ground.spoil(None)
    assert 0 < peak < 96 * MIB
    assert library.show(image)["size"] == 96 * MIB
    assert library.delete(image).status == 204


def _anonymous(pid: int) -> int:
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(found[1]) * 1024 if found else 0


def test_what_killed_workers_have_left_is_swept_and_nothing_of_it_was_ever_active(
    library: Library, all_grounds: Grounds
) -> None:
    """One upload into each store at a time, and kill -9 of all their workers."""
    data = noise(12 * MIB)

    def one(ground: Ground) -> str:
        image = library.create()

        def pieces() -> Iterator[bytes]:
            for at in range(0, len(data), MIB):
                if at == 8 * MIB:
                    wait_until("parts are there", ground.left)
                    for row in library.mover.workers():
                        if image in row["export"] and row["pid"]:
                            os.kill(row["pid"], signal.SIGKILL)
                yield data[at : at + MIB]

        try:
            answer = library.put(image, pieces(), X_Image_Meta_Store=str(ground.table["id"]))
            assert answer.status == 503, answer
        except ConnectionError:
            pass  # the answer came before all of the body
        library.wait_for("queued", image)
        return image

    with ThreadPoolExecutor(4) as clients:
        images = list(clients.map(one, all_grounds.written))
    library.mover.stop_clean()
    library.mover.start()
    assert {library.show(image)["status"] for image in images} == {"queued"}
    nothing: dict[str, list[str]] = {kind: [] for kind in READ_KINDS}
    wait_until("all is swept", lambda: all_grounds.left() == nothing, 120)
    for image, ground in zip(images, all_grounds.written, strict=True):
        assert put(library, image, data, ground) == 204
        assert library.get(image).body == data
        assert library.delete(image).status == 204
    assert all_grounds.left() == nothing


def test_stores_are_chosen_by_id_and_by_scheme_and_say_what_they_can(library: Library, all_grounds: Grounds) -> None:
    answer = library.mover.ask("GET", "/v2/info/stores/detail")
    assert answer.status == 200
    stores = {store["id"]: store for store in answer.json()["stores"]}
    both = ["read", "read-at-random", "write", "delete"]
    assert stores["a-swift"] == {
        "id": "a-swift",
        "type": "swift",
        "weight": 0,
        "capabilities": both,
        "properties": {"container": "disks", "large_object_chunk_size": MIB},
    }
    assert (stores["a-file"]["default"], stores["a-file"]["capabilities"]) == ("true", [*both, "resume"])
    assert stores["a-http"]["capabilities"] == both[:2]
    assert (stores["a-s3-ro"]["read-only"], stores["a-s3-ro"]["capabilities"]) == ("true", both[:2])
    listed = library.mover.ask("GET", "/v2/info/stores").json()["stores"]
    assert [store["id"] for store in listed] == list(stores)
    assert not any("properties" in store for store in listed)
    for name, kind in (("file", "file"), ("s3", "s3"), ("swift", "swift"), ("webhdfs", "webhdfs"), ("hdfs", "webhdfs")):
        image = library.create()
        assert library.put(image, b"data", X_Image_Meta_Store=name).status == 204
        assert len(all_grounds.by_kind[kind].left()) == 1
        assert library.delete(image).status == 204
    sent = {"name": "w", "architecture": "i386", "store": "walrus"}
    headers = {f"x-image-meta-{word}": value for word, value in sent.items()}
    with library.mover.client() as client:
        made = client.ask("POST", "/visor/images", b"of VISOR", {"Content-Type": OCTETS, **headers})
    assert made.json()["image"]["store"] == "walrus"
    [name] = all_grounds.by_kind["s3"].left()
    assert name.startswith("walrus/")
    assert library.delete(made.json()["image"]["_id"]).status == 204
    assert library.put(library.create(), b"data", X_Image_Meta_Store="tape").status == 400


def test_a_token_that_has_ended_is_replaced_while_an_image_comes(library: Library, all_grounds: Grounds) -> None:
    """Swift's tokens live in memcached: without it every token is unknown, and Mover asks for another."""
    image, data, account = library.create(), noise(6 * MIB), all_grounds.account

    def pieces() -> Iterator[bytes]:
        yield data[: 3 * MIB]
        wait_until("segments are there", lambda: any(".segments/" in name for name in account.names()))
        all_grounds.forget_tokens()
        yield data[3 * MIB :]

    assert library.put(image, pieces(), X_Image_Meta_Store="swift").status == 204
    all_grounds.forget_tokens()
    assert library.get(image).body == data
    assert library.delete(image).status == 204
    assert account.names() == []


# In a process of its own, which OpenDAL's connections end with.
NESTED = """
import sys
from config.store_settings import SwiftStore
from workers.store.objects import swift
swift.MANIFEST_MOST = 3
auth_url, container = sys.argv[1:]
objects = swift.SwiftObjects(SwiftStore("s", auth_url, container, auth="v1", part_bytes=1 << 20))
data = bytes(range(256)) * (7 * 4096) + b"tail"
writer = objects.begin("nested", None)
writer.write(data)
writer.close()
assert objects.size("nested") == len(data)
assert objects.read_bytes("nested", 0, len(data)) == data
assert objects.read_bytes("nested", (3 << 20) - 2, 5) == data[(3 << 20) - 2 :][:5]
print(len(objects.names(objects.segments_of("nested"))))
objects.end("nested")
"""


def test_more_segments_than_a_manifest_may_have_are_manifests_of_manifests(all_grounds: Grounds) -> None:
    command = [sys.executable, "-c", NESTED, all_grounds.account.auth_url, "disks"]
    environ = os.environ | {"ST_USER": KEY, "ST_KEY": SECRET}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("11\n", 0), done.stderr
    assert all_grounds.account.names() == []


def test_a_container_s_quota_is_a_full_store_and_leaves_nothing(library: Library, all_grounds: Grounds) -> None:
    account, image = all_grounds.account, library.create()
    account.ask("POST", X_Container_Meta_Quota_Bytes=str(MIB // 2))
    try:
        answer = library.put(image, noise(6 * MIB), X_Image_Meta_Store="swift")
        assert answer.status == 413, answer
        assert b"full" in answer.body
    finally:
        account.ask("POST", X_Container_Meta_Quota_Bytes="")
    assert library.show(image)["status"] == "queued"
    assert account.names() == []


def test_credentials_that_are_wrong_are_said_to_be_with_what_to_do(
    all_grounds: Grounds, start_mover: StartMover, tmp_path: Path
) -> None:
    """By servers that check them, Swift's two APIs."""
    wrong = tmp_path / "wrong"
    wrong.write_text(
        f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = wrong\nuser = {KEY}\nkey = wrong\n"
    )
    given = {"credentials_file": str(wrong)}
    tables = [all_grounds.by_kind[kind].table | given for kind in ("s3", "swift")]
    library = Library(start_mover({}, {"store": tables}))
    for kind in ("s3", "swift"):
        answer = library.put(library.create(), b"data", X_Image_Meta_Store=kind)
        assert answer.status == 503, answer
        assert b"refuses Mover's credentials" in answer.body.replace(b"&#x27;", b"'").replace(b"&#39;", b"'")
        assert b"its administrator must correct its credentials_file" in answer.body
        assert KEY.encode() not in answer.body
    wrong.write_text(wrong.read_text().replace("wrong", SECRET))
    for kind in ("s3", "swift"):
        image = library.create()
        assert library.put(image, b"data", X_Image_Meta_Store=kind).status == 204
        assert library.delete(image).status == 204
    library.mover.stop_clean()


def test_nothing_that_mover_says_or_keeps_has_a_secret_in_it(library: Library, all_grounds: Grounds) -> None:
    """Its log, metrics, answers, and the registry's own file, after all that the tests above have done."""
    mover = library.mover
    said = [mover.log().encode(), *(path.read_bytes() for path in mover.state_dir.glob("library.sqlite*"))]
    said += [mover.ask("GET", path).body for path in ("/metrics", "/v2/info/stores/detail", "/v2/images", "/status")]
    token = all_grounds.account.token.encode()
    for one in said:
        assert SECRET.encode() not in one
        assert S3_KEY.encode() not in one
        assert token not in one
        assert b"AUTH_tk" not in one


def test_stores_that_are_down_at_the_start_are_said_to_be_and_hold_up_no_other(
    start_mover: StartMover, tmp_path: Path
) -> None:
    left = tmp_path / ".6f1a4c1e-8f0e-4b53-9c6c-0d5a5f3a1e11.mover-part"
    left.write_bytes(b"of an upload that nobody goes on with")
    secrets = tmp_path / "secrets"
    secrets.write_text(
        f"[default]\naws_access_key_id = A\naws_secret_access_key = {SECRET}\nuser = u\nkey = {SECRET}\n"
    )
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        tables: list[dict[str, Value]] = [
            {"type": "s3", "id": "s3", "endpoint": away, "bucket": "images", "credentials_file": str(secrets)},
            {"type": "swift", "id": "swift", "auth_url": f"{away}/auth/v1.0", "auth": "v1", "container": "c",
                "credentials_file": str(secrets)},
            {"type": "webhdfs", "id": "webhdfs", "endpoint": away, "directory": "/x"},
            {"type": "file", "id": "file", "directories": [str(tmp_path)]},
        ]  # fmt: skip
        library = Library(start_mover({}, {"store": tables}))
        image = library.create()

        def answer(store: str) -> bytes:
            answer = library.put(library.create(), b"data", X_Image_Meta_Store=store)
            assert answer.status == 503, answer
            return answer.body

        with ThreadPoolExecutor(3) as clients:
            said = list(clients.map(answer, ("s3", "swift", "webhdfs")))
        assert all(b"cannot be reached" in one for one in said), said
        wait_until("the directory is swept", lambda: not left.exists(), 120)
        assert library.put(image, b"data", X_Image_Meta_Store="file").status == 204
        assert library.get(image).body == b"data"
        assert SECRET not in library.mover.log()

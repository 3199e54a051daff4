"""Library images whose data stay at a URL, through the whole house: made, read, refused, deleted."""

from __future__ import annotations

import http.client
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.http import Answer
from tests.harness.mover import Mover
from tests.harness.sources import Asked, Sources, sources
from tests.harness.waiting import wait_until
from tests.library.service import Service
from tests.library.visor import NEW

MIB = 1024 * 1024
DATA = random.Random(3).randbytes(12 * MIB + 5)
META = "x_image_meta_"
FORMATS = {"disk_format": "raw", "container_format": "bare"}


class Place(NamedTuple):
    """A service; a server that it may read, and one on another address of this host, where nobody must be asked."""

    service: Service
    server: Sources
    inside: Sources
    closed_port: int


@pytest.fixture(scope="module")
def one_place(module_room: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        server = stack.enter_context(sources())
        inside = stack.enter_context(sources(host="127.0.0.2"))
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))  # and never listens
        port = closed.getsockname()[1]
        allowed = {"url_ports": [server.port, inside.port, port], "url_allow": ["127.0.0.1"]}
        mover = Mover(module_room, {}, {"library": allowed})
        stack.callback(mover.close)
        yield Place(Service(mover.start()), server, inside, port)
        assert inside.connections == 0
        assert "secret" not in mover.log()
        mover.assert_log_clean()


@pytest.fixture
def place(one_place: Place) -> Place:
    one_place.server.fault = lambda asked: False
    one_place.server.seen.clear()
    return one_place


def send(place: Place, method: str, path: str, data: bytes | None = None, /, **meta: str) -> Answer:
    headers = {META + name: value for name, value in meta.items()}
    return place.service.ask(method, path, data, **headers)


def made(place: Place, url: str, **meta: str) -> str:
    answer = send(place, "POST", "/v1/images", **FORMATS, location=url, **meta)
    assert answer.status == 201, answer
    image: str = answer.json()["image"]["id"]
    return image


def get(place: Place, image: str, method: str = "GET", **headers: str) -> Answer:
    return place.service.ask(method, f"/v2/images/{image}/file", None, **headers)


def test_an_image_by_location_is_active_and_read_from_where_it_is_and_never_removed_there(place: Place) -> None:
    url = place.server.put("/disk.raw?signature=secret", DATA, etag='"e-1"')
    answer = send(place, "POST", "/v1/images", **FORMATS, location=url, checksum="d" * 32, name="far")
    assert answer.status == 201
    image = answer.json()["image"]
    assert (image["status"], image["size"], image["checksum"]) == ("active", len(DATA), None)
    shown = place.service.show(image["id"])
    assert (shown["status"], shown["size"], shown["checksum"]) == ("active", len(DATA), None)
    for path in (f"/v1/images/{image['id']}", "/v1/images/detail", "/v2/images", "/visor/images/detail"):
        whole = place.service.ask("HEAD" if path.count("/") == 3 and "v1" in path else "GET", path)
        assert "signature" not in str(whole)
    assert place.service.ask("GET", f"/v1/images/{image['id']}").body == DATA
    assert get(place, image["id"]).body == DATA
    part = get(place, image["id"], Range=f"bytes={MIB - 1}-{9 * MIB}")
    assert (part.status, part.body) == (206, DATA[MIB - 1 : 9 * MIB + 1])
    head = get(place, image["id"], "HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(DATA)))
    asked = len(place.server.seen)
    assert place.service.ask("DELETE", f"/v2/images/{image['id']}").status == 204
    assert get(place, image["id"]).status == 404
    assert len(place.server.seen) == asked
    assert {line.split()[0] for line in place.server.seen} == {"GET"}


def test_a_reservation_takes_a_location_once(place: Place) -> None:
    url = place.server.put("/a b.raw".replace(" ", "%20"), DATA[:MIB])
    image = send(place, "POST", "/v1/images", size=str(MIB)).json()["image"]["id"]
    assert send(place, "PUT", f"/v1/images/{image}", location=url).status == 400  # without formats
    answer = send(place, "PUT", f"/v1/images/{image}", **FORMATS, location=url, property_os="linux")
    assert answer.status == 200
    assert (answer.json()["image"]["status"], answer.json()["image"]["properties"]) == ("active", {"os": "linux"})
    assert get(place, image).body == DATA[:MIB]
    again = send(place, "PUT", f"/v1/images/{image}", **FORMATS, location=url)
    assert (again.status, b"location" in again.body) == (400, True)
    other = send(place, "POST", "/v1/images", size="7").json()["image"]["id"]
    assert send(place, "PUT", f"/v1/images/{other}", **FORMATS, location=url).status == 409
    assert place.service.show(other)["status"] == "queued"


def redirects(asked: Asked) -> bool:
    """/to/WHERE redirects there, /round without end."""
    if asked.path.startswith("/to/"):
        return asked.redirect(asked.path.removeprefix("/to/"))
    if asked.path.startswith("/round"):
        return asked.redirect(asked.path + "x")
    return asked.path == "/502" and asked.answer(502, Retry_After="0")


REFUSED: dict[str, tuple[str, int, str]] = {
    "another address of this host": ("http://127.0.0.2:{inside}/x", 400, "this host"),
    "a redirect to another address": ("{here}/to/http://127.0.0.2:{inside}/x", 400, "redirects, and"),
    "a redirect to IPv6 loopback": ("{here}/to/http://[::1]:{inside}/x", 400, "redirects, and"),
    "a redirect in decimal": ("{here}/to/http://2130706434:{inside}/x", 400, "four decimal numbers"),
    "a redirect to another port": ("{here}/to/http://127.0.0.1:22/x", 400, "port 22 is not allowed"),
    "a redirect to a file": ("{here}/to/file:///etc/passwd", 400, "only http and https"),
    "a redirect by two hops": ("{here}/to/{here}/to/http://127.0.0.2:{inside}/x", 400, "redirects, and"),
    "redirects without end": ("{here}/round", 400, "more than 5 times"),
    "a name that leads to this host": ("http://localhost.localdomain.invalid:{inside}/x", 400, "its name is not known"),
    "a password": ("http://me:secret@127.0.0.1:{port}/x", 400, "user or a password"),
    "a file": ("file:///etc/passwd", 400, "only http and https"),
    "an object of a store": ("s3://bucket/others-image", 400, "only http and https"),
    "swift": ("swift+config://ref/container/object", 400, "only http and https"),
    "a port that nobody listens on": ("http://127.0.0.1:{closed}/x", 400, "cannot be read"),
    "nothing there": ("{here}/none", 404, "nothing at the URL"),
    "a server in trouble": ("{here}/502", 400, "status 502"),
    "no size": ("{here}/chunked", 400, "how large"),
    "another size": ("{here}/small", 409, "17 were announced"),
}


@pytest.mark.parametrize("attack", REFUSED)
def test_locations_that_are_refused_leave_nothing_and_ask_nobody_inside(place: Place, attack: str) -> None:
    server = place.server
    server.fault = redirects
    server.put("/small", b"data")
    server.put("/chunked", b"data", ranges=False, chunked=True)
    template, status, why = REFUSED[attack]
    names = {"inside": place.inside.port, "port": server.port, "closed": place.closed_port, "here": server.url("")}
    before = place.service.listed("?limit=1000")
    answer = send(place, "POST", "/v1/images", **FORMATS, location=template.format(**names), size="17")
    assert answer.status == status, answer
    if "{" not in why:
        assert why in answer.body.decode(), answer
    assert "secret" not in answer.body.decode()
    assert place.service.listed("?limit=1000") == before


def test_a_source_that_changes_or_goes_is_said_and_never_mixed(place: Place) -> None:
    url = place.server.put("/changing", DATA)
    image = made(place, url)
    place.server.put("/changing", DATA[::-1], etag='"2"')
    answer = get(place, image)
    assert (answer.status, b"has changed" in answer.body) == (409, True), answer
    place.server.put("/changing", DATA)
    assert get(place, image).body == DATA

    def changes_in_the_middle(asked: Asked) -> bool:
        if "Range" in asked.headers and asked.headers["Range"].startswith(f"bytes={10 * MIB}"):
            place.server.put("/changing", DATA[::-1], etag='"2"')
        return False

    place.server.fault = changes_in_the_middle
    with place.service.mover.client() as client:
        response = client.begin("GET", f"/v2/images/{image}/file")
        assert response.status == 200
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
    place.server.fault = lambda asked: False
    del place.server.sources["/changing"]
    wait_until("it is missing", lambda: get(place, image).status == 404)


def test_servers_without_ranges_are_read_from_the_beginning_by_several_at_once(place: Place) -> None:
    image = made(place, place.server.put("/plain", DATA, ranges=False))
    with place.service.mover.client() as one, place.service.mover.client() as other:
        first = one.begin("GET", f"/v2/images/{image}/file")
        start = first.read(3 * MIB)
        assert other.ask("GET", f"/v2/images/{image}/file").body == DATA
        assert start + first.read() == DATA
    answer = get(place, image, Range="bytes=100-199")
    assert (answer.status, b"no ranges" in answer.body) == (416, True), answer
    assert get(place, image, Range="bytes=0-99").body == DATA[:100]


def test_a_ticket_on_an_image_at_a_url_takes_a_server_with_ranges(place: Place) -> None:
    """It is read in any order; where that cannot be, it is said before there is a ticket."""
    image = made(place, place.server.put("/ranged", DATA[: 3 * MIB]))
    opened = place.service.json("POST", f"/v2/images/{image}/transfers", {"direction": "download"})
    assert opened.status == 201, opened
    ticket = place.service.ask("GET", f"/images/{opened.json()['ticket']}", Range=f"bytes={MIB}-{2 * MIB}")
    assert ticket.body == DATA[MIB : 2 * MIB + 1]
    plain = made(place, place.server.put("/plain", DATA[: 3 * MIB], ranges=False))
    refused = place.service.json("POST", f"/v2/images/{plain}/transfers", {"direction": "download"})
    assert (refused.status, b"sends no ranges" in refused.body) == (400, True), refused
    assert place.service.ask("GET", f"/v2/images/{plain}/transfers").json() == {"transfers": []}
    for one in (image, plain):
        assert place.service.ask("DELETE", f"/v2/images/{one}").status == 204


def test_what_drops_at_half_goes_on_for_who_reads_the_image(place: Place) -> None:
    image = made(place, place.server.put("/dropping", DATA))

    def fault(asked: Asked) -> bool:
        asked.cut_at = 600_000
        return False

    place.server.fault = fault
    assert get(place, image).body == DATA


def test_visor_s_location(place: Place) -> None:
    url = place.server.put("/visor.iso", DATA[:MIB], etag='"tag"')
    visor = {"name": NEW["name"], "architecture": NEW["architecture"], "format": "iso"}
    answer = send(place, "POST", "/visor/images", **visor, location=url, store="http")
    assert answer.status == 200, answer
    image = answer.json()["image"]
    assert (image["status"], image["size"], image["store"], image["checksum"]) == ("available", MIB, "http", "tag")
    assert "location" not in image
    assert place.service.ask("GET", f"/visor/images/{image['_id']}").body == DATA[:MIB]
    locked = send(place, "POST", "/visor/images", **visor).json()["image"]["_id"]
    put = send(place, "PUT", f"/visor/images/{locked}", location=url)
    assert (put.status, put.json()["image"]["status"]) == (200, "available")
    assert send(place, "PUT", f"/visor/images/{locked}", location=url).status == 409
    for meta in ({"store": "file"}, {"location": "http://127.0.0.2/x"}, {"location": "file:///etc/passwd"}):
        assert send(place, "POST", "/visor/images", **{**visor, "location": url, **meta}).status == 400
    assert send(place, "POST", "/visor/images", **visor, store="http").status == 400
    assert place.service.ask("DELETE", f"/visor/images/{image['_id']}").status == 200
    assert place.server.sources["/visor.iso"].data == DATA[:MIB]


def test_the_store_is_listed_and_takes_nothing(place: Place) -> None:
    file, web = place.service.ask("GET", "/v2/info/stores").json()["stores"]
    assert (file["id"], file["default"], web["id"], web["read-only"]) == ("file", "true", "http", "true")
    image = place.service.create()
    assert place.service.upload(image["id"], b"data", X_Image_Meta_Store="http").status == 410

"""Names that lead to an allowed address when they are judged, and to this host's inside when they are used again.

The whole service has a hosts file of its own, which the system's resolver reads anew for each question: the server
changes it in the middle of what is asked of it.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from config import volumes
from tests.harness.mover import Mover
from tests.harness.sources import Asked, Sources, sources
from tests.harness.waiting import wait_until
from tests.jobs.jobs import Jobs, tables

MIB = 1024 * 1024
DATA = random.Random(11).randbytes(6 * MIB + 3)
NAME, ALLOWED, INSIDE = "disks.example.test", "127.0.0.1", "127.0.0.2"
# What becomes the service has this file in the place of the system's.
WITH_HOSTS = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')


class Place(Jobs):
    """A service, and a server on all addresses of this host; `hosts` is what the name means to the service, which
    changes at a `turn`.
    """

    hosts: Path
    web: Sources
    turn: str

    def means(self, *addresses: str) -> None:
        """Have the name mean these from now on."""
        self.hosts.write_text("".join(f"{address} {NAME}\n" for address in addresses))

    def url(self, path: str, host: str = NAME) -> str:
        return f"http://{host}:{self.web.port}{path}"


@pytest.fixture(scope="module")
def one_place(module_room: Path) -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("a hosts file of one's own takes root")
    own, hosts = module_room / "mover", module_room / "hosts"
    own.mkdir()
    hosts.touch()
    with ExitStack() as stack:
        web = stack.enter_context(sources(host="0.0.0.0", keep_alive=False))
        settings = tables(module_room, url_ports=[web.port], url_allow=[ALLOWED])
        program = (*WITH_HOSTS, str(hosts), sys.executable, "-m", "mover")
        mover = Mover(own, {}, settings, program=program)
        stack.callback(mover.close)
        place = Place(mover.start(), module_room)
        place.hosts, place.web = hosts, web
        web.put("/disk", DATA)
        yield place
        mover.stop_clean()


@pytest.fixture
def place(one_place: Place) -> Iterator[Place]:
    """The name means what is allowed. In the end nobody was asked inside, and nothing is left of any image."""
    inside: list[str] = []

    def fault(asked: Asked) -> bool:
        address = asked.connection.getsockname()[0]
        if address != ALLOWED:
            inside.append(f"{address} {asked.path}")
        return TURNS[one_place.turn](one_place, asked)

    one_place.means(ALLOWED)
    one_place.turn = "never"
    one_place.web.fault = fault
    yield one_place
    assert inside == []
    names = {path.name for store in ("near", "far") for path in (one_place.room / store).iterdir()}
    assert names <= {volumes.FILE}


def at_once(place: Place, asked: Asked) -> bool:
    """It is judged, looked at by one process, and read by another one."""
    place.means(INSIDE)
    return False


def in_the_middle(place: Place, asked: Asked) -> bool:
    """The connection breaks off, and the rest is asked for by another one."""
    if first_of(asked) > len(DATA) // 2:
        asked.cut_at = 70_000
        place.means(INSIDE)
    return False


def with_another(place: Place, asked: Asked) -> bool:
    """It means both, and which is connected to would be anybody's guess."""
    place.means(ALLOWED, INSIDE)
    return False


def by_redirects(place: Place, asked: Asked) -> bool:
    """A host that is allowed redirects to the name; what it redirects to the second time, leads inside."""
    if asked.path != "/moved":
        return False
    asked.redirect(place.url("/disk"))
    if first_of(asked) or sum(line.startswith("GET /moved") for line in place.web.seen) > 1:
        place.means(INSIDE)
    return True


TURNS: dict[str, Callable[[Place, Asked], bool]] = {
    "never": lambda place, asked: False,
    "at once": at_once,
    "in the middle": in_the_middle,
    "with another": with_another,
    "by redirects": by_redirects,
}
ATTACKS = [turn for turn in TURNS if turn != "never"]


def first_of(asked: Asked) -> int:
    """Where the range begins that is asked for."""
    return int(asked.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_import_reads_nothing_from_where_a_name_leads_the_second_time(place: Place, attack: str) -> None:
    """v2's import fails and says which address it was, v1's copy-from leaves its image killed."""
    place.turn = attack
    url = place.url("/moved", ALLOWED) if attack == "by redirects" else place.url("/disk?secret=1")
    image = place.create()["id"]
    task = place.ended(place.begun(image, "web-download", uri=url))
    assert (task["state"], place.show(image)["status"]) == ("failed", "queued"), task
    assert f"{INSIDE}, is not read: it is this host" in task["message"], task
    assert task["message"].endswith("name another one, or allow it in the settings"), task
    assert "secret" not in json.dumps(task)
    place.means(ALLOWED)
    place.web.seen.clear()
    words = {"disk_format": "raw", "container_format": "bare"}
    sent = {f"x_image_meta_{word}": value for word, value in words.items()} | {"x_glance_api_copy_from": url}
    answer = place.ask("POST", "/v1/images", None, **sent)
    assert answer.status == 201, answer
    killed = answer.json()["image"]["id"]
    wait_until("it is killed", lambda: place.show(killed)["status"] == "killed")
    for one in (image, killed):
        assert place.ask("DELETE", f"/v2/images/{one}").status == 204


@pytest.mark.parametrize("attack", ["at once", "with another"])
def test_an_image_at_a_url_is_not_read_where_its_name_leads_later(place: Place, attack: str) -> None:
    """It is said; and when the name means again what it did, the image is read again."""
    words = {"disk_format": "raw", "container_format": "bare", "location": place.url("/disk")}
    sent = {f"x_image_meta_{word}": value for word, value in words.items()}
    answer = place.ask("POST", "/v1/images", None, **sent)
    assert answer.status == 201, answer
    image = answer.json()["image"]["id"]
    place.means(*{"at once": [INSIDE], "with another": [ALLOWED, INSIDE]}[attack])
    answer = place.ask("GET", f"/v2/images/{image}/file")
    assert (answer.status, INSIDE.encode() in answer.body) == (404, True), answer
    place.means(ALLOWED)
    assert place.ask("GET", f"/v2/images/{image}/file").body == DATA
    assert place.ask("DELETE", f"/v2/images/{image}").status == 204

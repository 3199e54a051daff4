"""Two hosts that share a registry and a bucket: what one does the other sees, and of two at once one does it."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.harness.http import Answer, Client
from tests.harness.transfers import Doing
from tests.harness.waiting import wait_until
from tests.library.service import OCTETS
from tests.scale.conftest import PART_BYTES, Site
from tests.scale.hosts import Host


def noise(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


def at_once(*what: Callable[[], int]) -> list[int]:
    """All of these together; the status that each was answered with."""
    start = threading.Barrier(len(what))

    def begin(one: Callable[[], int]) -> int:
        start.wait()
        return one()

    doing = [Doing(partial(begin, one)) for one in what]
    return [one.result() for one in doing]


def put(host: Host, image_id: str, data: bytes, store: str = "nfs") -> int:
    return host.upload(image_id, data, X_Image_Meta_Store=store).status


def delete(host: Host, image_id: str) -> int:
    return host.ask("DELETE", f"/v2/images/{image_id}").status


@pytest.mark.parametrize("store", ["cellar", "nfs"])
def test_what_one_host_does_the_other_sees(site: Site, store: str) -> None:
    """An upload through one is listed and read through the other at once, whole and in ranges, and so is its end."""
    data = noise(PART_BYTES + 12345, 1)
    for here, there in ((site.first, site.second), (site.second, site.first)):
        image_id = here.create(name="seen")["id"]
        assert there.show(image_id)["status"] == "queued"
        assert put(here, image_id, data, store) == 204
        assert [one["status"] for one in there.listed("?name=seen")] == ["active"]
        assert there.read(image_id) == data
        for first, last in ((0, 0), (PART_BYTES - 1, PART_BYTES + 4096), (len(data) - 7, len(data) - 1)):
            part = there.ask("GET", f"/v2/images/{image_id}/file", Range=f"bytes={first}-{last}")
            assert (part.status, part.body) == (206, data[first : last + 1])
        assert there.patch(image_id, {"op": "replace", "path": "/name", "value": "renamed"}).status == 200
        assert here.show(image_id)["name"] == "renamed"
        assert delete(there, image_id) == 204
        assert here.ask("GET", f"/v2/images/{image_id}").status == 404
        assert here.ask("GET", f"/v2/images/{image_id}/file").status == 404
    assert site.left() == []


@pytest.mark.parametrize(("store", "rounds"), [("cellar", 4), ("nfs", 20)])
def test_two_hosts_race_for_one_image(site: Site, store: str, rounds: int) -> None:
    """Of two uploads one wins, the other is told 409; the bytes are the winner's on both, and no others are left."""
    hosts = (site.first, site.second)
    for number in range(rounds):
        image_id = site.first.create()["id"]
        bodies = [noise(20_000, number), noise(20_000, -1 - number)]
        statuses = at_once(
            *(partial(put, host, image_id, body, store) for host, body in zip(hosts, bodies, strict=True))
        )
        assert sorted(statuses) == [204, 409]
        won = bodies[statuses.index(204)]
        assert [host.read(image_id) for host in hosts] == [won, won]
        assert sorted(at_once(*(partial(delete, host, image_id) for host in hosts))) == [204, 404]
    assert site.left() == []


def test_deletes_that_meet_uploads_and_changes(site: Site) -> None:
    """An upload that loses its image is told so and leaves nothing; an image is changed, or gone, never both."""
    public = {"op": "replace", "path": "/visibility", "value": "public"}
    for number in range(10):
        image_id = site.first.create()["id"]
        uploaded, deleted, published = at_once(
            partial(put, site.first, image_id, noise(20_000, number)),
            partial(delete, site.second, image_id),
            partial(publish, site.first, image_id, public),
        )
        assert deleted in (204, 409)
        if deleted == 409:  # it was changed all the time
            assert delete(site.second, image_id) == 204
        assert uploaded in (204, 404, 409, 410)
        assert published in (200, 404)
        assert [host.ask("GET", f"/v2/images/{image_id}").status for host in (site.first, site.second)] == [404, 404]
    assert site.left() == []


def publish(host: Host, image_id: str, step: object) -> int:
    return host.patch(image_id, step).status


def test_what_is_listed_as_active_can_be_read(site: Site) -> None:
    """While images come and go through both hosts, whoever lists one as active reads it, or it was deleted since."""
    stop = threading.Event()

    def churn(host: Host) -> int:
        rounds = 0
        while not stop.is_set():
            image_id = host.create(name="churn")["id"]
            assert put(host, image_id, image_id.encode() * 100) == 204
            rounds += 1
            assert delete(host, image_id) == 204
        return rounds

    churning = [Doing(partial(churn, host)) for host in (site.first, site.second)]
    read = 0
    try:
        while read < 10:
            for host in (site.first, site.second):
                for image in host.listed("?name=churn&status=active"):
                    answer = host.ask("GET", f"/v2/images/{image['id']}/file")
                    if answer.status == 200:
                        assert answer.body == image["id"].encode() * 100
                        read += 1
                    else:
                        assert answer.status == 404, answer
                        assert host.ask("GET", f"/v2/images/{image['id']}").status == 404
    finally:
        stop.set()
    assert all(one.result() for one in churning)


def test_an_image_in_another_hosts_own_directory(site: Site) -> None:
    """Stores of the same name and path, on two disks: the other host says whose it is, and deleting works."""
    data, image_id = noise(100_000, 5), site.first.create()["id"]
    assert put(site.first, image_id, data, "disk") == 204
    assert site.first.read(image_id) == data
    refused = site.second.ask("GET", f"/v2/images/{image_id}/file", Accept="application/json")
    assert refused.status == 503
    assert "it is on kvm1" in refused.json()["message"]
    assert site.first.stored(image_id)
    assert delete(site.second, image_id) == 204
    assert site.second.ask("GET", f"/v2/images/{image_id}").status == 404
    wait_until("the host that has the bytes removes them", lambda: not site.first.stored(image_id), 40)


@contextmanager
def half_an_upload(host: Host, image_id: str, data: bytes) -> Iterator[Client]:
    """A client of a host that has sent half of an image, some of which is in the bucket."""
    with Client(host.mover.address()) as client:
        client.putrequest("PUT", f"/v2/images/{image_id}/file")
        client.putheader("Content-Type", OCTETS)
        client.putheader("Content-Length", str(len(data)))
        client.endheaders()
        client.send(data[: len(data) // 2])
        yield client


def finish(client: Client, data: bytes) -> int:
    """Send the other half; what it is answered with, 0 if with nothing."""
    try:
        client.send(data[len(data) // 2 :])
        return client.read_answer(client.getresponse()).status
    except (ConnectionError, http.client.HTTPException):
        return 0


@pytest.mark.parametrize("fate", ["frozen", "cut off", "killed"])
def test_a_host_that_is_lost_in_an_upload(site: Site, fate: str) -> None:
    """The other may send its image again and delete another one; the lost one never makes its own active, also when it
    comes back and goes on, and what it has left in the bucket is removed.
    """
    lost, other = site.first, site.second
    data, again = noise(6 * PART_BYTES, 7), noise(50_000, 8)
    image_id, doomed = lost.create()["id"], lost.create()["id"]
    with half_an_upload(lost, image_id, data) as client, half_an_upload(lost, doomed, data) as second:
        wait_until("some of both is in the bucket", lambda: site.s3.unfinished() == 2)
        {"frozen": lost.freeze, "cut off": lost.cabled.pull, "killed": lost.kill}[fate]()
        assert other.show(image_id)["status"] == "saving"
        assert put(other, image_id, again, "cellar") == 409
        assert delete(other, doomed) == 204
        wait_until("its host counts as dead", lambda: other.show(image_id)["status"] == "queued", 60)
        assert put(other, image_id, again, "cellar") == 204
        if fate == "killed":
            lost.mover.start()
        else:
            {"frozen": lost.thaw, "cut off": lost.cabled.plug}[fate]()
            assert finish(client, data) in (0, 409, 410, 503)
            assert finish(second, data) in (0, 409, 410, 503)
    assert other.read(image_id) == again
    wait_until("the lost host is back", lambda: lost.ask("GET", f"/v2/images/{image_id}").status == 200)
    assert lost.read(image_id) == again
    wait_until("what it has left is removed", lambda: len(site.s3.names()) == 1 and not site.s3.unfinished(), 60)
    assert delete(lost, image_id) == 204
    assert site.left() == []


def test_a_database_that_goes_away_and_comes_back(site: Site) -> None:
    """Under load clients get 503 with Retry-After while it is away, or the right answer; then all goes on by itself,
    and what was being uploaded is active with its bytes, or queued without.
    """
    image_id = site.first.create()["id"]
    data = noise(PART_BYTES, 9)
    assert put(site.first, image_id, data) == 204
    stop, answers = threading.Event(), list[Answer]()

    def load(host: Host) -> None:
        while not stop.is_set():
            answer = host.ask("GET", f"/v2/images/{image_id}")
            assert answer.status in (200, 503), answer
            assert answer.status == 503 or answer.json()["id"] == image_id
            answers.append(answer)

    loading = [Doing(partial(load, host)) for host in (site.first, site.second)]
    late = site.second.create()["id"]
    with half_an_upload(site.second, late, data) as client:
        wait_until("the upload is under way", lambda: site.second.show(late)["status"] == "saving")
        site.postgres.stop()
        away = len(answers)
        wait_until("both are told that it is away", lambda: len(answers) > away + 4)
        rest = Doing(partial(finish, client, data))
        site.postgres.start()
        assert rest.result() == 204
    back = len(answers)
    wait_until("both are answered again", lambda: [one.status for one in answers[back:]].count(200) > 4)
    stop.set()
    for one in loading:
        one.result()
    refused = [one for one in answers if one.status == 503]
    assert refused
    assert all(one.headers["retry-after"] for one in refused)
    for image in (image_id, late):
        assert site.first.read(image) == data
        assert delete(site.first, image) == 204
    assert site.left() == []


def test_a_database_that_hangs(site: Site) -> None:
    """It takes connections and answers nothing: more requests than there are connections get 503 with Retry-After, and
    when it goes on, so does all.
    """
    image_id, hosts = site.first.create()["id"], (site.first, site.second)
    site.postgres.freeze()
    try:
        asked = [Doing(partial(host.ask, "GET", f"/v2/images/{image_id}")) for host in hosts for _ in range(20)]
        answers = [one.result() for one in asked]
    finally:
        site.postgres.thaw()
    assert {one.status for one in answers} == {503}
    assert all(one.headers["retry-after"] for one in answers)
    for host in hosts:
        wait_until("it is answered again", lambda: host.ask("GET", f"/v2/images/{image_id}").status == 200)  # noqa: B023
    assert delete(site.first, image_id) == 204

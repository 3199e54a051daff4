"""VISOR's API where bytes and others get into its way; with the tests' carrier and with the real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from mover.library.records import NewImage, Visibility
from mover.library.registry import migrate
from mover.library.registry.registry import Registry
from tests.harness.http import Client
from tests.harness.mover import Mover
from tests.harness.transfers import Doing
from tests.harness.waiting import wait_until
from tests.library.conftest import FAKE
from tests.library.service import OCTETS, Service, some_id
from tests.library.visor import Visor, image_of, xml_of

DATA = bytes(range(256)) * 4000


def files(service: Service, image_id: str) -> list[Path]:
    """The files of an image, anywhere under the state directory."""
    return [path for path in service.mover.state_dir.rglob(f"*{image_id}*") if path.is_file()]


def test_bytes_in_all_views(either: Service) -> None:
    """Sent through any of them, read through each, whole."""
    visor = Visor(either)
    mine, glances = visor.made(DATA)["_id"], either.active(DATA)["id"]
    for image_id in (mine, glances):
        for path in (f"/visor/images/{image_id}", f"/v1/images/{image_id}", f"/v2/images/{image_id}/file"):
            assert either.ask("GET", path).body == DATA, path
    reserved = either.create()["id"]
    assert visor.put(reserved, DATA).status == 200
    assert either.ask("GET", f"/v2/images/{reserved}/file").body == DATA


def test_a_store_that_is_named(either: Service) -> None:
    """With the reservation or with the data; it is shown before and after."""
    visor = Visor(either)
    store = visor.made(DATA)["store"]
    reserved = visor.made(store=store)
    assert (reserved["store"], visor.listed(f"?store={store}&_id={reserved['_id']}")) == (store, [reserved])
    assert image_of(visor.put(reserved["_id"], DATA))["store"] == store


def test_data_goes_when_the_image_goes(either: Service) -> None:
    """DELETE takes the files, too."""
    visor = Visor(either)
    image = visor.made(DATA)
    assert files(either, image["_id"])
    assert visor.ask("DELETE", f"/images/{image['_id']}").status == 200
    wait_until("the file is gone", lambda: not files(either, image["_id"]))
    assert either.ask("GET", f"/v2/images/{image['_id']}").status == 404


def test_of_many_uploads_one_wins(either: Service) -> None:
    """The others get 409; also of an image whose upload had failed before."""
    visor = Visor(either)
    for image_id in (visor.made()["_id"], failed(visor)):
        bodies = [bytes([number]) * 5000 for number in range(6)]
        done = [Doing(lambda body=body: visor.put(image_id, body).status) for body in bodies]  # type: ignore[misc] # noqa: B023
        statuses = [one.result() for one in done]
        assert sorted(statuses) == [200, *[409] * 5]
        assert visor.ask("GET", f"/images/{image_id}").body == bodies[statuses.index(200)]


def failed(visor: Visor) -> str:
    """The id of an image whose data was refused."""
    image_id: str = visor.made(checksum="d" * 32)["_id"]
    assert visor.put(image_id, DATA).status == 400
    assert visor.seen(image_id)["status"] == "error"
    return image_id


def test_an_upload_under_way(either: Service) -> None:
    """Is uploading, and may be left or deleted: the client that sends is told, and nothing stays behind."""
    visor = Visor(either)
    for leaves in (True, False):
        image = visor.made()
        with Client(either.mover.address()) as client:
            client.putrequest("PUT", f"/visor/images/{image['_id']}")
            client.putheader("Content-Type", OCTETS)
            client.putheader("Content-Length", str(len(DATA)))
            client.endheaders()
            client.send(DATA[:5000])
            wait_until("it is uploading", lambda: visor.seen(image["_id"])["status"] == "uploading")  # noqa: B023
            assert visor.put(image["_id"], b"other").status == 409
            assert visor.ask("GET", f"/images/{image['_id']}").body == b""
            if not leaves:
                assert visor.ask("DELETE", f"/images/{image['_id']}").status == 200
                client.send(DATA[5000:])
                assert client.read_answer(client.getresponse()).status == 404
        if leaves:
            wait_until("it has failed", lambda: visor.seen(image["_id"])["status"] == "error")  # noqa: B023
        wait_until("its bytes are gone", lambda: not files(either, image["_id"]))  # noqa: B023
        if leaves:
            assert visor.put(image["_id"], DATA).status == 200


def test_changes_that_race(either: Service) -> None:
    """Each is made to what the others have left: none is lost."""
    visor = Visor(either)
    image = visor.made()
    done = [Doing(lambda key=key: visor.put(image["_id"], **{key: "x"}).status) for key in "abcdef"]  # type: ignore[misc]
    assert [one.result() for one in done] == [200] * 6
    assert set("abcdef") <= visor.seen(image["_id"]).keys()


COUNT = 1005


@pytest.fixture
def alone(module_room: Path) -> Iterator[Service]:
    """A library that nobody else uses, of more images than a page has."""
    database = f"sqlite:///{module_room}/library.sqlite"
    migrate.upgrade(database)
    with closing(Registry(database)) as registry:
        for _ in range(COUNT):
            registry.create(NewImage(id=some_id(), visibility=Visibility.PUBLIC, facts={"owner": "any"}))
    with ExitStack() as stack:
        settings = {"library": {"visor_prefix": "/cloud/visor", "database": database}}
        mover = Mover(module_room, {}, settings, program=FAKE)
        stack.callback(mover.close)
        yield Service(mover.start())
        mover.assert_log_clean()


def test_all_of_a_library(alone: Service) -> None:
    """DELETE of all leaves what is protected; lists have all there is, page after page; the prefix is a setting."""
    kept = alone.create(protected=True, visibility="public")["id"]
    with Client(alone.mover.address()) as client:
        listed = client.ask("GET", "/cloud/visor/images?dir=desc")
        ids = [image["_id"] for image in listed.json()["images"]]
        assert (len(set(ids)), ids) == (COUNT + 1, sorted(ids, reverse=True))
        assert listed.headers["transfer-encoding"] == "chunked"
        found = xml_of(client.ask("GET", "/cloud/visor/images/detail?format=xml")).findall("images/item/_id")
        assert [one.text for one in found] == ids[::-1]
        client.sock.settimeout(120)  # a thousand deletes, one after the other
        answer = client.ask("DELETE", "/cloud/visor/all")
        assert (answer.status, answer.body) == (200, b"")
        assert [image["_id"] for image in client.ask("GET", "/cloud/visor/images").json()["images"]] == [kept]
        assert client.ask("GET", "/visor/images").status == 404

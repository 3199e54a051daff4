"""What goes wrong in a job: each time a message that says what to do, an image that is as it was, and nothing left."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.harness import servers
from tests.harness.http import ask
from tests.harness.mover import Mover
from tests.harness.servers import NbdServer
from tests.harness.sources import Asked, Sources, sources
from tests.harness.waiting import wait_until
from tests.jobs.jobs import Jobs, tables
from tests.jobs.test_imports import DATA, MIB, assert_whole, served

pytestmark = pytest.mark.nbd


REDIRECTS = {"/inside": "http://[::1]:{}/x", "/here": "http://10.1.2.3:{}/x", "/file": "file:///etc/passwd#{}"}


class WebJobs(Jobs):
    """Jobs beside an HTTP server: /whole has DATA, /cut ends in its middle, /chunked has neither ranges nor a size."""

    def __init__(self, mover: Mover, room: Path, web: Sources) -> None:
        super().__init__(mover, room)
        self.web = web


def trouble(asked: Asked) -> bool:
    """REDIRECTS lead elsewhere; the body of /cut ends in the middle of the data, /cut-chunked before the last chunk."""
    if asked.path in REDIRECTS:
        return asked.redirect(REDIRECTS[asked.path].format(asked.server_of.port))
    if asked.path == "/cut":
        asked.cut_at = max(0, len(DATA) // 2 - first_of(asked))
    if asked.path == "/cut-chunked":
        asked.cut_at = len(DATA)
    return False


def first_of(asked: Asked) -> int:
    """Where the range begins that is asked for."""
    return int(asked.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


@pytest.fixture(scope="module")
def jobs(module_room: Path) -> Iterator[WebJobs]:
    """With URLs of this host allowed, and a socket for tickets."""
    own = module_room / "mover"
    own.mkdir()
    with ExitStack() as stack:
        web = stack.enter_context(sources())
        for path in ("/whole", "/cut"):
            web.put(path, DATA)
        for path in ("/chunked", "/cut-chunked"):
            web.put(path, DATA, etag="", ranges=False, chunked=True)
        web.fault = trouble
        ours = tables(module_room, url_allow=["127.0.0.0/8"])
        library = {**dict(cast(Mapping[str, Any], ours["library"])), "url_ports": [web.port]}
        serve = {"ticket_socket": str(module_room / "tickets")}
        mover = Mover(own, {}, {**ours, "library": library, "serve": serve}, front_ends=2)
        stack.callback(mover.close)
        yield WebJobs(mover.start(), module_room, web)


@contextmanager
def slow(jobs: Jobs, name: str, rate: str = "16M") -> Iterator[NbdServer]:
    """A disk that takes some seconds to read."""
    (jobs.room / name).write_bytes(DATA[: 3 * MIB] * 4)
    server = servers.nbdkit(jobs.room, name, "file", str(jobs.room / name), f"rate={rate}", filters=["rate"])
    try:
        yield server.start()
    finally:
        server.close()


def assert_failed(jobs: Jobs, job: str, image: str, *words: str, status: str = "queued") -> None:
    """It says why, and the image may be made in another way: nothing is left of this one."""
    task = jobs.ended(job)
    assert task["state"] == "failed", task
    for word in words:
        assert word in task["message"], task["message"]
    assert jobs.show(image)["status"] == status
    jobs.wait_for_files(image)


def test_web_download_and_copy_from(jobs: WebJobs) -> None:
    """v2's import and v1's copy-from have the bytes of a URL; its query is not shown."""
    url = jobs.web.url("/whole?secret=1")
    image = jobs.create()["id"]
    job = jobs.begun(image, "web-download", uri=url)
    assert "secret" not in json.dumps(jobs.task(job))
    assert jobs.ended(job)["state"] == "done"
    assert_whole(jobs, image, DATA, "near")
    headers = {
        "x_image_meta_disk_format": "raw", "x_image_meta_container_format": "bare", "x_glance_api_copy_from": url,
    }  # fmt: skip
    answer = jobs.ask("POST", "/v1/images", None, **headers)
    assert (answer.status, answer.json()["image"]["status"]) == (201, "queued"), answer
    copied = answer.json()["image"]["id"]
    wait_until("it is active", lambda: jobs.show(copied)["status"] == "active")
    assert_whole(jobs, copied, DATA, "near")
    assert "secret=1" not in jobs.mover.log()


def test_urls_that_fail(jobs: WebJobs) -> None:
    """One that is not there, one that is cut, one that no rule allows, one with a password."""
    for path, word in (("missing", "404"), ("cut", "begin again")):
        image = jobs.create()["id"]
        job = jobs.begun(image, "web-download", uri=jobs.web.url(f"/{path}"))
        assert_failed(jobs, job, image, word)
    image = jobs.create()["id"]
    for inside in (f"http://10.1.2.3:{jobs.web.port}/x", "http://169.254.169.254/latest", "http://127.0.0.1:1/x"):
        answer = jobs.begin(image, "web-download", uri=inside)  # its text tells: nobody waits for a job to fail
        assert (answer.status, b"Nothing is imported from there" in answer.body) == (400, True), answer
    assert jobs.begin(image, "web-download", uri="http://u:p@127.0.0.1/x").status == 400
    assert jobs.begin(image, "web-download", uri="file:///etc/passwd").status == 400
    assert jobs.begin(image, "web-download").status == 400
    url = jobs.web.url("/missing")
    headers = {
        "x_image_meta_disk_format": "raw", "x_image_meta_container_format": "bare", "x_glance_api_copy_from": url,
    }  # fmt: skip
    killed = jobs.ask("POST", "/v1/images", None, **headers).json()["image"]["id"]
    wait_until("it is killed", lambda: jobs.show(killed)["status"] == "killed")


def test_what_will_not_change_fails_at_once(jobs: WebJobs) -> None:
    """A URL that is not there, or that leads where nothing may be read: each is asked once, and never again."""
    for path, word in (("/gone", "404"), ("/inside", "::1"), ("/here", "10.1.2.3"), ("/file", "redirect")):
        image = jobs.create()["id"]
        assert_failed(jobs, jobs.begun(image, "web-download", uri=jobs.web.url(path)), image, word)
        assert sum(line.split()[1] == path for line in jobs.web.seen) == 1


def test_a_source_without_a_size_is_read_to_its_end(jobs: WebJobs) -> None:
    """Into both stores; one that breaks off before its last chunk is none."""
    image = jobs.create()["id"]
    job = jobs.begun(image, "web-download", uri=jobs.web.url("/chunked"), stores=["near", "far"])
    task = jobs.ended(job)
    assert (task["state"], task["bytes_done"], task["bytes_total"]) == ("done", 2 * len(DATA), 2 * len(DATA)), task
    assert_whole(jobs, image, DATA, "near", "far")
    image = jobs.create()["id"]
    assert_failed(jobs, jobs.begun(image, "web-download", uri=jobs.web.url("/cut-chunked")), image, "begin again")


def test_wrong_sources(jobs: Jobs, endings: ExitStack) -> None:
    """Not a disk, not allowed, not there, another format than was said: failed, and queued as before."""
    cases = {
        "nbd+unix:///?socket=/etc/none.nbd": "allow.nbd_sockets",
        f"nbd+unix:///?socket={jobs.room}/none.nbd": "begin again",
        "nosuchticket": "no such ticket",
        "nbd+unix:///?sock=/x": "sock",
    }
    for source, word in cases.items():
        image = jobs.create()["id"]
        assert_failed(jobs, jobs.begun(image, "disk", source=source), image, word)
    image = jobs.create(disk_format="qcow2")["id"]
    raw = served(jobs.room, "raw", DATA, endings, read_only=True)
    assert_failed(jobs, jobs.begun(image, "disk", source=raw.uri()), image, "disk_format")
    assert jobs.begin(image, "nothing").status == 400
    assert jobs.begin(image, "disk").status == 400
    assert jobs.begin(image, "disk", source=raw.uri(), stores=["no"]).status == 400
    assert jobs.json("POST", f"/v2/images/{image}/import", []).status == 400
    assert jobs.export(image, raw.uri()).status == 409


def test_no_disk_lies_in_a_store(jobs: Jobs) -> None:
    """Whatever [allow] says: an image never changes, and what is read as a disk might be another one's image."""
    images = [jobs.active(data)["id"] for data in (b"a" * 1024, b"b" * 1024)]
    (jobs.room / "link").symlink_to(jobs.file("near", images[1]))
    for name in (jobs.file("near", images[1]), jobs.room / "link"):
        job = jobs.export(images[0], f"file://{name}").headers["location"].rpartition("/")[2]
        task = jobs.ended(job)
        assert (task["state"], "store of library images" in task["message"]) == ("failed", True), task
        image = jobs.create()["id"]
        assert_failed(jobs, jobs.begun(image, "disk", source=f"file://{name}"), image, "store of library images")
    assert jobs.ask("GET", f"/v2/images/{images[1]}/file").body == b"b" * 1024


def test_a_source_that_drops_and_stays_away(jobs: Jobs) -> None:
    """The job fails and says so; when the source is back, the same import goes on where it was."""
    image = jobs.create()["id"]
    with slow(jobs, "drops") as source:
        job = jobs.begun(image, "disk", source=source.uri())
        assert jobs.begin(image, "disk", source=source.uri()).status == 409
        jobs.moved(job)
        source.kill()
        task = jobs.ended(job)
        assert (task["state"], jobs.show(image)["status"]) == ("failed", "queued"), task
        assert "begin again" in task["message"]
        assert int(jobs.ask("HEAD", f"/v2/images/{image}/file").headers["upload-offset"])
        source.start()
        assert jobs.ended(jobs.begun(image, "disk", source=source.uri(), resume=True))["state"] == "done"
    assert_whole(jobs, image, DATA[: 3 * MIB] * 4, "near")


def test_a_job_that_is_cancelled_and_one_whose_image_is_deleted(jobs: Jobs) -> None:
    """Both end at once, and leave the image queued, or nothing."""
    # A disk each: of two readers of one server, one may get all that its rate allows.
    with slow(jobs, "cancelled", "4M") as one, slow(jobs, "deleted", "4M") as other:
        kept, gone = (jobs.create()["id"] for _ in range(2))
        first = jobs.begun(kept, "disk", source=one.uri(), stores=["far"])
        second = jobs.begun(gone, "disk", source=other.uri(), stores=["far"])
        jobs.moved(first)
        # By this, as Glance's own programs do, clients see that an import is under way, and its end.
        assert jobs.show(kept)["os_glance_import_task"] == first
        assert jobs.cancel(first).status == 202
        assert jobs.ask("DELETE", f"/v2/images/{gone}").status == 204
        assert jobs.ended(first)["state"] == "cancelled"
        assert jobs.cancel(first).status == 409
        left = jobs.show(kept)
        assert (left["status"], "os_glance_import_task" in left) == ("queued", False)
        assert jobs.ended(second)["state"] == "cancelled"
        jobs.wait_for_files(gone)
        assert jobs.ask("DELETE", f"/v2/images/{kept}").status == 204
        jobs.wait_for_files(kept)


def test_an_export_that_is_cancelled_says_what_the_disk_has(jobs: Jobs) -> None:
    """How much was written, and what to do; the disk begins as the image does."""
    data = bytes(reversed(DATA[: 3 * MIB])) * 4
    image = jobs.active(data)["id"]
    with slow(jobs, "target", "4M") as target:
        job = jobs.export(image, target.uri()).headers["location"].rpartition("/")[2]
        jobs.moved(job)
        assert jobs.cancel(job).status == 202
        task = jobs.ended(job)
        said = re.fullmatch(
            r"cancelled; the target has a part of the image \((\d+) of (\d+) bytes were written, perhaps not durably\)"
            ": export again before it is used",
            task["message"],
        )
        assert task["state"] == "cancelled" and said, task
        assert 0 < int(said[1]) <= int(said[2]) == len(data)
        assert (jobs.room / "target").read_bytes()[:65536] == data[:65536]
    assert jobs.ask("DELETE", f"/v2/images/{image}").status == 204


def test_a_ticket_that_is_cancelled(jobs: Jobs) -> None:
    """A job by a ticket ends with it."""
    ticket = str(uuid.UUID(int=7))
    socket = jobs.room / "tickets"
    with slow(jobs, "ticketed") as source:
        body = {"uuid": ticket, "size": 12 * MIB, "url": f"nbd:unix:{source.socket}", "timeout": 300, "ops": ["read"]}
        assert ask(socket, "PUT", f"/tickets/{ticket}", json.dumps(body).encode()).status == 200
        image = jobs.create()["id"]
        job = jobs.begun(image, "disk", source=ticket)
        assert ticket not in json.dumps(jobs.moved(job))
        assert ask(socket, "DELETE", f"/tickets/{ticket}").status == 204
        task = jobs.ended(job)
        assert (task["state"], jobs.show(image)["status"]) == ("failed", "queued"), task
        assert "ticket" in task["message"], task


def test_one_store_of_two_fails(jobs: Jobs) -> None:
    """Where all must succeed nothing is there; else the image is, and says which store failed."""
    (jobs.room / "far").rename(jobs.room / "away")
    try:
        strict, lax = (jobs.create()["id"] for _ in range(2))
        for image, must in ((strict, True), (lax, False)):
            assert jobs.stage(image, DATA).status == 204
            asked = {"stores": ["near", "far"], "all_stores_must_succeed": must}
            job = jobs.begun(image, "glance-direct", **asked)
            assert jobs.ended(job)["state"] == ("failed" if must else "done")
    finally:
        (jobs.room / "away").rename(jobs.room / "far")
    assert jobs.show(strict)["status"] == "queued"
    jobs.wait_for_files(strict)
    assert_whole(jobs, lax, DATA, "near")
    assert jobs.show(lax)["os_glance_failed_import"] == "far"


def test_who_may(jobs: Jobs) -> None:
    """Nobody but jobs sets what they show; a task that is not there is 404."""
    image = jobs.create()["id"]
    assert jobs.patch(image, {"op": "add", "path": "/os_glance_failed_import", "value": "x"}).status == 403
    assert jobs.ask("GET", f"/v2/tasks/{uuid.UUID(int=1)}").status == 404
    assert jobs.ask("DELETE", f"/v2/tasks/{uuid.UUID(int=1)}").status == 404
    assert jobs.ask("GET", "/v2/tasks?limit=1").json()["tasks"]

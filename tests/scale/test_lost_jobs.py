"""Jobs of hosts that share a library: who has the bytes does them, and what a lost host ran is run by another."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.sources import Asked
from tests.harness.waiting import PATIENCE_S, wait_until
from tests.jobs.jobs import Jobs
from tests.scale.conftest import Site
from tests.scale.hosts import Host

DATA = random.Random(21).randbytes(300_000)


def jobs_of(host: Host) -> Jobs:
    return Jobs(host.mover, host.mover.state_dir)


def state(jobs: Jobs, image_id: str) -> str:
    return str(jobs.show(image_id)["status"])


@contextmanager
def silent_disk(path: Path) -> Iterator[str]:
    """An NBD URL whose server takes connections and never says a word."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield f"nbd+unix:///?socket={path}"


def test_a_copy_is_made_by_the_host_that_has_the_bytes(site: Site) -> None:
    """Asked of the other, whose directory of the same path has none of them; then every host reads it."""
    asked = jobs_of(site.second)
    image = site.first.create()["id"]
    assert site.first.upload(image, DATA, X_Image_Meta_Store="disk").status == 204
    assert asked.ask("GET", f"/v2/images/{image}/file").status == 503
    task = asked.ended(asked.begun(image, "copy-image", stores=["cellar"]))
    assert (task["state"], task["message"]) == ("done", ""), task
    assert site.second.read(image) == DATA
    assert asked.ask("DELETE", f"/v2/images/{image}").status == 204
    wait_until("its host removes its bytes", lambda: not site.first.stored(image), 40)
    assert site.left() == []


def test_jobs_of_a_host_that_is_lost(site: Site) -> None:
    """What any host can do is done by the other. What needs the lost one says that it waits for it, and can be
    cancelled.
    """
    lost, other = jobs_of(site.first), jobs_of(site.second)
    asked, answers = threading.Event(), threading.Event()

    def hold(one: Asked) -> bool:
        asked.set()
        answers.wait(60)
        return False

    site.sources.fault = hold
    url = site.sources.put("/held", DATA)
    with silent_disk(site.room / "silent") as disk:
        image, bound = lost.create()["id"], lost.create()["id"]
        moves, waits = (
            lost.begun(image, "web-download", uri=url, stores=["cellar"]),
            lost.begun(bound, "disk", source=disk),
        )
        assert asked.wait(PATIENCE_S)
        wait_until("both are under way", lambda: all(lost.task(job)["state"] == "running" for job in (moves, waits)))
        site.first.kill()
        answers.set()
        assert other.ended(moves)["state"] == "done"
        assert site.second.read(image) == DATA
        wait_until("it is said who is waited for", lambda: "waits for host kvm1" in other.task(waits)["message"])
        assert (other.task(waits)["state"], state(other, bound)) == ("pending", "importing")
        assert other.cancel(waits).status == 202
        assert other.ended(waits)["state"] == "cancelled"
        assert state(other, bound) == "queued"
    site.first.mover.start()
    assert site.first.read(image) == DATA
    for one in (image, bound):
        assert other.ask("DELETE", f"/v2/images/{one}").status == 204
    wait_until("nothing is left", lambda: site.left() == [])

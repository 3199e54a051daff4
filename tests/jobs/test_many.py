"""Many jobs at once, over a restart, and several who want the same image."""

from __future__ import annotations

import select
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.harness.fixtures import StartMover
from tests.harness.sources import sources
from tests.harness.waiting import wait_until
from tests.jobs.jobs import Jobs, tables
from tests.jobs.test_imports import DATA, assert_whole

JOBS, AT_ONCE = 30, 4


def test_thirty_jobs_that_wait_over_a_restart_are_all_done_and_each_image_has_one(
    start_mover: StartMover, room: Path
) -> None:
    """Three clients begin each import at once, and one of them does; never do more run than are to."""
    with sources() as web:
        url = web.put("/small", DATA[: 64 * 1024 + 7])
        settings = tables(room, jobs=AT_ONCE, url_ports=[web.port], url_allow=["127.0.0.1"])
        jobs = Jobs(start_mover({}, settings, front_ends=2), room)
        images = [jobs.create()["id"] for _ in range(JOBS)]
        with ThreadPoolExecutor(6) as clients:
            answers = clients.map(lambda image: jobs.begin(image, "web-download", uri=url), images * 3)
            statuses = [answer.status for answer in answers]
        assert (statuses.count(202), statuses.count(409)) == (JOBS, 2 * JOBS)
        assert jobs.mover.stop() == 0
        jobs.mover.wait_for_end()
        jobs.mover.start()

        def states() -> list[str]:
            return [task["state"] for task in jobs.ask("GET", "/v2/tasks?limit=1000").json()["tasks"]]

        def all_done() -> bool:
            select.select([], [], [], 0.5)  # each look is a page of all of them
            found = states()
            assert found.count("running") <= AT_ONCE, found
            assert "failed" not in found, found
            return found.count("done") == JOBS

        wait_until("all are done", all_done, 120)
        for image in images:
            assert_whole(jobs, image, DATA[: 64 * 1024 + 7], "near")
        assert sorted(path.name for path in (room / "near").iterdir() if not path.name.startswith(".")) == sorted(
            images
        )

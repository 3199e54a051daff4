"""A library with jobs, as a client of both Glance APIs asks for them."""

from __future__ import annotations

import select
from pathlib import Path
from typing import Any

from tests.harness.http import Answer
from tests.harness.mover import Mover, Tables
from tests.harness.waiting import wait_until
from tests.library.service import OCTETS, Service

ENDED = ("done", "failed", "cancelled")
PATIENCE_S = 60.0
# Between two looks at a job, each of which is a request.
PAUSE_S = 0.1


def tables(room: Path, **library: Any) -> Tables:
    """Settings of two file stores, and quick ends of what is lost."""
    stores = [{"type": "file", "id": name, "directories": [str(room / name)]} for name in ("near", "far")]
    worker = {"connect_s": 2.0, "reconnect_s": 0.5, "idle_s": 1.0}
    return {
        "library": {"jobs": 4, "job_tries": 2, **library},
        "worker": worker,
        "supervisor": {"backoff_s": 0.2},
        "allow": {"files": [str(room)], "nbd_sockets": [str(room)]},
        "store": stores,
    }


class Jobs(Service):
    """Requests to a Mover whose stores are directories of `room`."""

    def __init__(self, mover: Mover, room: Path, token: str | None = None) -> None:
        super().__init__(mover, token)
        self.room = room

    def begin(self, image_id: str, method: str, /, *, stores: list[str] | None = None, **asked: Any) -> Answer:
        """POST of an import; `must_all` is all_stores_must_succeed."""
        body: dict[str, Any] = {"method": {"name": method}}
        for name, value in asked.items():
            if name in ("all_stores", "all_stores_must_succeed"):
                body[name] = value
            else:
                body["method"][name] = value
        if stores is not None:
            body["stores"] = stores
        return self.json("POST", f"/v2/images/{image_id}/import", body)

    def begun(self, image_id: str, method: str, /, **asked: Any) -> str:
        """The id of the job."""
        answer = self.begin(image_id, method, **asked)
        assert answer.status == 202, answer
        return answer.headers["location"].rpartition("/")[2]

    def export(self, image_id: str, target: str) -> Answer:
        return self.json("POST", f"/v2/images/{image_id}/export", {"target": target})

    def stage(self, image_id: str, data: bytes) -> Answer:
        return self.ask("PUT", f"/v2/images/{image_id}/stage", data, Content_Type=OCTETS)

    def task(self, job: str) -> dict[str, Any]:
        return self.done(200, self.ask("GET", f"/v2/tasks/{job}"))

    def ended(self, job: str) -> dict[str, Any]:
        """The task, when it has ended."""

        def look() -> dict[str, Any] | None:
            select.select([], [], [], PAUSE_S)
            try:
                task = self.task(job)
            except OSError:
                return None  # who answered has been killed
            return task if task["state"] in ENDED else None

        return wait_until(f"job {job} ends", look, PATIENCE_S)

    def moved(self, job: str) -> dict[str, Any]:
        """The task, when some of its bytes have moved, and before it ends."""

        def look() -> dict[str, Any] | None:
            select.select([], [], [], PAUSE_S)
            task = self.task(job)
            assert task["state"] not in ENDED, task
            return task if task["bytes_done"] else None

        return wait_until(f"job {job} moves bytes", look, PATIENCE_S)

    def cancel(self, job: str) -> Answer:
        return self.ask("DELETE", f"/v2/tasks/{job}")

    def file(self, store: str, image_id: str) -> Path:
        return self.room / store / image_id

    def files(self, image_id: str) -> list[str]:
        """What any store has of an image, records of a moment aside."""
        names = [path for store in ("near", "far") for path in (self.room / store).glob(f"*{image_id}*")]
        return sorted(f"{path.parent.name}/{path.name}" for path in names if not path.name.endswith("record"))

    def wait_for_files(self, image_id: str, *names: str) -> None:
        wait_until(f"there is {names}: {self.files(image_id)}", lambda: self.files(image_id) == sorted(names))

"""The row `stores`, its disks: a disk into the library and an image onto a disk, worker to worker, beside nbdcopy.

Mover's seconds are a job's, from its POST until it is seen to be done. All that is compared is durable at the end. Each
image and copy is removed before the next one, outside of what is timed.
"""

from __future__ import annotations

import contextlib
import json
import time
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

from mover.bench import clients, servers
from mover.bench.contest import Contender, Contest, as_rate
from mover.bench.errors import ClientError
from mover.bench.exports import qemu_nbd
from mover.bench.md5 import md5_seconds
from mover.bench.row import Bench
from mover.bench.servers import HttpServer, Image

# How often a job is asked for; a hundredth of what 1 GiB takes.
POLL_S = 0.005
JOB_S = 600.0


class Jobs:
    """Jobs of one Mover's library, on the disks `source` and `target` of its configuration."""

    def __init__(self, http: HttpServer) -> None:
        self._http = http

    def _ask(self, method: str, path: str, body: object = None) -> tuple[dict[str, str], str]:
        """The JSON of an answer, and its Location."""
        data = None if body is None else json.dumps(body).encode()
        asked = Request(self._http.base_url + path, data, {"Content-Type": "application/json"}, method=method)
        with urlopen(asked) as answer:
            text = answer.read()
            return json.loads(text) if text else {}, answer.headers.get("Location", "")

    def new_image(self) -> str:
        """A queued image."""
        return self._ask("POST", "/v2/images", {"disk_format": "raw", "container_format": "bare"})[0]["id"]

    def delete(self, image: str) -> None:
        """Remove an image."""
        self._ask("DELETE", f"/v2/images/{image}")

    def bring(self, image: str, digests: bool) -> float:
        """The seconds that the disk takes to become the image."""
        method = {"name": "disk", "source": "source", "digests": digests}
        return self._run(f"/v2/images/{image}/import", {"method": method})

    def deliver(self, image: str) -> float:
        """The seconds that the image takes onto the other disk."""
        return self._run(f"/v2/images/{image}/export", {"target": "target"})

    def _run(self, path: str, body: object) -> float:
        began = time.perf_counter()
        _, location = self._ask("POST", path, body)
        task = location.rpartition("/")[2]
        while time.perf_counter() < began + JOB_S:
            found, _ = self._ask("GET", f"/v2/tasks/{task}")
            if found["state"] == "done":
                return time.perf_counter() - began
            if found["state"] in ("failed", "cancelled"):
                raise ClientError(["POST", path], found.get("message", found["state"]))
            time.sleep(POLL_S)
        raise ClientError(["POST", path], f"the job has not ended within {JOB_S:g} s")


def hauls(bench: Bench) -> list[Contest]:
    """The disk in with digests and without, and the image out."""
    source = bench.enter(qemu_nbd(bench.directory, bench.data, read_only=True))
    blank, copy = bench.directory / "blank", bench.directory / "copy"
    with blank.open("wb") as file:
        file.truncate(bench.size_bytes)
    bench.stack.callback(blank.unlink)
    target = bench.enter(qemu_nbd(bench.directory, blank))
    disks = [Image("source", source, bench.size_bytes), Image("target", target, bench.size_bytes)]
    jobs = Jobs(bench.enter(servers.mover(bench.directory, disks)))
    image = jobs.new_image()
    jobs.bring(image, digests=False)

    def brought(digests: bool) -> float:
        fresh = jobs.new_image()
        try:
            return jobs.bring(fresh, digests)
        finally:
            jobs.delete(fresh)

    rate = partial(as_rate, moved_bytes=bench.size_bytes)
    command = "POST /v2/images/ID/import"
    return [
        Contest(
            "disk into the file store, MD5 and SHA-512",
            "MB/s",
            [
                rate(Contender("mover", command, lambda: brought(True))),
                rate(Contender("md5", "hashlib.md5, in memory", partial(md5_seconds, bench.size_bytes))),
            ],
        ),
        Contest(
            "disk into the file store, no digests",
            "MB/s",
            [
                rate(Contender("mover", command, lambda: brought(False))),
                rate(Contender("nbdcopy", "nbdcopy --flush NBD FILE", lambda: _copied(source.uri(), copy))),
            ],
        ),
        Contest(
            "image onto a disk",
            "MB/s",
            [
                rate(Contender("mover", "POST /v2/images/ID/export", lambda: jobs.deliver(image))),
                rate(
                    Contender(
                        "nbdcopy",
                        "nbdcopy --flush FILE NBD",
                        lambda: clients.timed(["nbdcopy", "--flush", str(bench.data), target.uri()])[0],
                    )
                ),
            ],
        ),
    ]


def _copied(source: str, copy: Path) -> float:
    """The seconds that nbdcopy takes to a new file."""
    try:
        return clients.timed(["nbdcopy", "--flush", source, str(copy)])[0]
    finally:
        with contextlib.suppress(FileNotFoundError):
            copy.unlink()

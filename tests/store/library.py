"""The library as a client of its data sees it, and the directory that its images lie in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from config import volumes
from tests.harness.http import Answer, Body, ask
from tests.harness.mover import Mover
from tests.harness.waiting import wait_until

OCTETS = "application/octet-stream"


class Library:
    """One Mover's library, whose store is one directory."""

    def __init__(self, mover: Mover, directory: Path | None = None) -> None:
        self.mover = mover
        self.directory = directory or mover.state_dir / "images"

    def create(self, **fields: Any) -> str:
        """A queued image's id."""
        body = msgspec.json.encode({"disk_format": "raw", "container_format": "bare", **fields})
        answer = self.mover.ask("POST", "/v2/images", body, Content_Type="application/json")
        assert answer.status == 201, answer
        created: str = answer.json()["id"]
        return created

    def refer(self, url: str) -> str:
        """An active image whose data stay at a URL."""
        words = {"disk_format": "raw", "container_format": "bare", "location": url}
        sent = {f"x_image_meta_{word}": value for word, value in words.items()}
        answer = ask(self.mover.address(), "POST", "/v1/images", None, None, **sent)
        assert answer.status == 201, answer
        made: str = answer.json()["image"]["id"]
        return made

    def put(self, image: str, data: Body, **headers: str) -> Answer:
        return ask(self.mover.address(), "PUT", f"/v2/images/{image}/file", data, None, Content_Type=OCTETS, **headers)

    def get(self, image: str, **headers: str) -> Answer:
        return ask(self.mover.address(), "GET", f"/v2/images/{image}/file", None, None, **headers)

    def show(self, image: str) -> dict[str, Any]:
        answer = self.mover.ask("GET", f"/v2/images/{image}")
        assert answer.status == 200, answer
        shown: dict[str, Any] = answer.json()
        return shown

    def kept(self, image: str) -> int:
        """Where an interrupted upload goes on."""
        answer = self.mover.ask("HEAD", f"/v2/images/{image}/file")
        assert answer.status == 204, answer
        return int(answer.headers.get("upload-offset", 0))

    def delete(self, image: str) -> Answer:
        return self.mover.ask("DELETE", f"/v2/images/{image}")

    def clear(self) -> None:
        """Delete all images, and wait until none of their bytes is there."""
        for image in self.mover.ask("GET", "/v2/images?limit=1000").json()["images"]:
            assert self.delete(image["id"]).status == 204
        self.wait_for_files()

    def listing(self) -> list[str]:
        """Everything in the directory, hidden or not, but its own name."""
        return sorted(path.name for path in self.directory.iterdir() if path.name != volumes.FILE)

    def wait_for(self, status: str, image: str) -> None:
        wait_until(f"the image is {status}", lambda: self.show(image)["status"] == status)

    def wait_for_files(self, *names: str) -> None:
        """Until these and no others are there; a session that nobody waits for ends in its own time."""
        wait_until(f"there is {names}, not {self.listing()}", lambda: self.listing() == sorted(names))

    def assert_whole(self, image: str, data: bytes) -> None:
        """It is active, its bytes are these on the disk and over HTTP, and what is said of them is true."""
        shown = self.show(image)
        assert shown["status"] == "active"
        assert shown["size"] == len(data)
        assert shown["checksum"] == hashlib.md5(data).hexdigest()
        assert shown["os_hash_value"] == hashlib.new(shown["os_hash_algo"], data).hexdigest()
        assert (self.directory / image).read_bytes() == data
        answer = self.get(image)
        assert (answer.status, answer.body) == (200, data)


def in_chunks(data: bytes, length: int) -> Iterable[bytes]:
    """A body of unknown length, which http.client sends chunked."""
    return (data[at : at + length] for at in range(0, len(data), length))

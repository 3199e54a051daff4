"""The library's service as tests ask it."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest

from tests.harness.http import Answer, Body, ask
from tests.harness.mover import Mover

OCTETS = "application/octet-stream"
PATCH_21 = "application/openstack-images-v2.1-json-patch"
PATCH_20 = "application/openstack-images-v2.0-json-patch"

# For tables of what is refused before the database is asked, and of the forms of answers.
over_sqlite = pytest.mark.parametrize("service", ["sqlite"], indirect=True)


class Service:
    """Requests to one Mover, with a token or without."""

    def __init__(self, mover: Mover, token: str | None = None) -> None:
        self.mover = mover
        self._token = token

    def as_(self, token: str | None) -> Service:
        """The same service, asked by the holder of another token."""
        return Service(self.mover, token)

    def ask(self, method: str, target: str, body: Body = None, **headers: str) -> Answer:
        """One request; `content_type="…"` is a header."""
        if self._token is not None:
            headers = {"X_Auth_Token": self._token, **headers}
        return ask(self.mover.address(), method, target, body, None, **headers)

    def json(self, method: str, target: str, body: object, **headers: str) -> Answer:
        """One request with a JSON body."""
        return self.ask(method, target, msgspec.json.encode(body), **{"Content_Type": "application/json", **headers})

    # -- v2 ----------------------------------------------------------------------------------------------------

    def create(self, **fields: Any) -> dict[str, Any]:
        """A new image, queued."""
        body = {"disk_format": "raw", "container_format": "bare", **fields}
        return self.done(201, self.json("POST", "/v2/images", body))

    def upload(self, image_id: str, data: Body, **headers: str) -> Answer:
        """PUT of an image's data."""
        return self.ask("PUT", f"/v2/images/{image_id}/file", data, **{"Content_Type": OCTETS, **headers})

    def active(self, data: bytes = b"data", **fields: Any) -> dict[str, Any]:
        """A new image with data."""
        image = self.create(**fields)
        answer = self.upload(image["id"], data)
        assert answer.status == 204, answer
        return self.show(image["id"])

    def show(self, image_id: str) -> dict[str, Any]:
        """An image as v2 shows it."""
        return self.done(200, self.ask("GET", f"/v2/images/{image_id}"))

    def patch(self, image_id: str, *steps: object, media: str = PATCH_21) -> Answer:
        """PATCH of an image."""
        return self.json("PATCH", f"/v2/images/{image_id}", steps, Content_Type=media)

    def listed(self, query: str = "") -> list[dict[str, Any]]:
        """The images of one page of a v2 list."""
        found: list[dict[str, Any]] = self.done(200, self.ask("GET", f"/v2/images{query}"))["images"]
        return found

    def done(self, status: int, answer: Answer) -> dict[str, Any]:
        """The JSON of an answer of this status."""
        assert answer.status == status, answer
        found: dict[str, Any] = answer.json()
        return found


# Nobody has this one either; it is the same in every process, as the names of tests must be.
NOBODYS_ID = "5a4ad05e-5cde-4f2f-9d35-3f0c0a1b7a35"


def some_id() -> str:
    """An id that nobody has."""
    return str(uuid.uuid4())

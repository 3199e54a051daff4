"""VISOR's API as tests ask it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from tests.harness.http import Answer, Body, ask
from tests.library.service import OCTETS, Service

META = "x-image-meta-"
NEW = {"name": "n", "architecture": "x86_64"}


class Visor:
    """Requests to one Mover's VISOR view, signed by a user or not."""

    def __init__(self, service: Service, access_key: str | None = None, secret: str = "") -> None:
        self.service = service
        self._access_key = access_key
        self._secret = secret

    def ask(self, method: str, path: str, data: Body = None, /, headers: dict[str, str] | None = None) -> Answer:
        """One request; `path` is without the prefix."""
        sent = dict(headers or {})
        target = "/visor" + path
        if self._access_key is not None:
            sent = {"Date": formatdate(usegmt=True), **sent}
            sent.setdefault("Authorization", self.signed(method, urlsplit(target).path, sent))
        return ask(self.service.mover.address(), method, target, data, sent)

    def signed(self, method: str, path: str, headers: dict[str, str]) -> str:
        """The Authorization of a request."""
        return authorization(self._access_key or "", self._secret, method, path, headers)

    def send(self, method: str, path: str, data: Body = None, /, **meta: str) -> Answer:
        """A request with metadata: `name="x"` is a header x-image-meta-name, `_Content_Type` one of that name."""
        headers = {} if data is None else {"Content-Type": OCTETS}
        for name, value in meta.items():
            header = name[1:].replace("_", "-") if name.startswith("_") and name != "_id" else META + name
            headers[header] = value
        return self.ask(method, path, data, headers)

    def post(self, data: Body = None, /, **meta: str) -> Answer:
        """POST of an image that has what it must."""
        return self.send("POST", "/images", data, **{**NEW, **meta})

    def made(self, data: Body = None, /, **meta: str) -> dict[str, Any]:
        """A new image."""
        return image_of(self.post(data, **meta))

    def put(self, image_id: str, data: Body = None, /, **meta: str) -> Answer:
        """PUT of an image."""
        return self.send("PUT", f"/images/{image_id}", data, **meta)

    def seen(self, image_id: str) -> dict[str, str]:
        """The metadata that HEAD shows."""
        answer = self.ask("HEAD", f"/images/{image_id}")
        assert answer.status == 200, answer
        return {name.removeprefix(META): value for name, value in answer.headers.items() if name.startswith(META)}

    def listed(self, query: str = "", path: str = "/images/detail") -> list[dict[str, Any]]:
        """The images of a list; VISOR says 404 for none."""
        answer = self.ask("GET", path + query)
        if answer.status == 404:
            return []
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json()["images"]
        return found


def authorization(access_key: str, secret: str, method: str, path: str, headers: dict[str, str]) -> str:
    """As VISOR's documents say it, written again for the tests."""
    lower = {name.lower(): value for name, value in headers.items()}
    chosen = {name: lower.get(name, "") for name in ("content-md5", "content-type")}
    chosen |= {name: value for name, value in lower.items() if name == "date" or name.startswith(META)}
    text = method + "\n"
    for name in sorted(chosen):
        text += f"{name}:{chosen[name]}\n" if name.startswith(META) else f"{chosen[name]}\n"
    digest = hmac.new(secret.encode(), (text + path).encode("latin-1"), hashlib.sha1).digest()
    return f"VISOR {access_key}:{base64.b64encode(digest).decode()}"


def image_of(answer: Answer) -> dict[str, Any]:
    """The image of an answer that says 200."""
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json()["image"]
    return found


def xml_of(answer: Answer) -> ElementTree.Element:
    """The XML of an answer."""
    assert answer.headers["content-type"].startswith("application/xml"), answer
    return ElementTree.fromstring(answer.body)

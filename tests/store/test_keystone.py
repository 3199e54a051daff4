"""Swift's tokens from Keystone: a double of it, which answers as the Identity API's documents say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from config.store_settings import SwiftStore
from workers.store.backing import Refusal
from workers.store.objects.credentials import read_credentials
from workers.store.objects.swift_auth import authenticate

ENVIRON = {"OS_USERNAME": "mover", "OS_PASSWORD": "its-secret-is-never-shown", "OS_PROJECT_NAME": "images"}


TOKEN = {
    "token": {
        "methods": ["password"],
        "user": {"id": "u", "name": "mover", "domain": {"id": "default", "name": "Default"}},
        "issued_at": "2026-01-01T00:00:00.000000Z",
        "expires_at": "2126-01-01T00:00:00.000000Z",
        "catalog": [
            {
                "id": "s",
                "type": "object-store",
                "name": "swift",
                "endpoints": [
                    {
                        "id": region,
                        "interface": "public",
                        "region": region,
                        "region_id": region,
                        "url": f"http://{region}.example.org/v1/AUTH_images",
                    }
                    for region in ("north", "south")
                ],
            }
        ],
    }
}


class Keystone(BaseHTTPRequestHandler):
    """POST /v3/auth/tokens, with a catalogue of two regions."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        """A token, to who has the password."""
        identity = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["auth"]
        self.asked.append(identity)
        right = identity["identity"]["password"]["user"]["password"] == ENVIRON["OS_PASSWORD"]
        refusal = {"error": {"code": 401, "message": "no", "title": "Unauthorized"}}
        body = json.dumps(TOKEN if right else refusal).encode()
        self.send_response(201 if right else 401)
        self.send_header("X-Subject-Token", "a-token")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@contextmanager
def keystone() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its URL, and what it was asked."""

    Keystone.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Keystone) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v3", Keystone.asked
        finally:
            server.shutdown()
            thread.join()


def test_a_token_and_the_account_s_url_come_from_keystone_by_region() -> None:
    with keystone() as (url, asked):
        store = SwiftStore("s", url, "images", region="south")
        token = authenticate(store, read_credentials(store, ENVIRON))
        assert token == ("http://south.example.org/v1/AUTH_images", "a-token")
        assert "a-token" not in repr(token)
        [identity] = asked
        assert identity["scope"] == {"project": {"name": "images", "domain": {"name": "Default"}}}


def test_what_keystone_refuses_and_what_is_missing_is_said_without_secrets() -> None:
    with keystone() as (url, _):
        store = SwiftStore("s", url, "images")
        wrong = read_credentials(store, ENVIRON | {"OS_PASSWORD": "wrong-one"})
        assert "wrong-one" not in repr(wrong)
        with pytest.raises(PermissionError, match="gives no token") as refused:
            authenticate(store, wrong)
        assert "wrong-one" not in str(refused.value)
        nowhere = SwiftStore("s", url, "images", region="west")
        with pytest.raises(OSError, match="knows no object store in west"):
            authenticate(nowhere, read_credentials(nowhere, ENVIRON))
    with pytest.raises(OSError, match="gives no token"):
        authenticate(store, read_credentials(store, ENVIRON))  # which is away now
    with pytest.raises(Refusal, match="the environment has no OS_PASSWORD and no OS_PROJECT_NAME"):
        read_credentials(store, {"OS_USERNAME": "mover"})

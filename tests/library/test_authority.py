"""Without a table of tokens: who is answered, and who is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.harness.http import Client
from tests.harness.mover import Mover
from tests.library.conftest import FAKE
from tests.library.service import Service


def other_address() -> str | None:
    """An address of this host that is not loopback."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family == socket.AF_INET and not one.address.startswith("127."):
                return str(one.address)
    return None


@pytest.fixture(scope="module")
def open_service(module_room: Path) -> Iterator[Service]:
    """A service on every address, with nothing configured for the library."""
    with ExitStack() as stack:
        mover = Mover(module_room, {}, {"serve": {"listen": "0.0.0.0"}}, program=FAKE)
        stack.callback(mover.close)
        yield Service(mover.start())


def test_it_says_so_at_start(open_service: Service) -> None:
    """Whoever starts it can read who is let in."""
    log = open_service.mover.log()
    assert "the library answers clients on this host only" in log
    assert "tenant=default role=admin" in log


@pytest.mark.parametrize("token", [None, "any", ""])
def test_clients_on_this_host_are_the_default_tenant(open_service: Service, token: str | None) -> None:
    """Over loopback and the Unix socket, with any token and with none: an admin of one tenant."""
    assert open_service.as_(token).create()["owner"] == "default"
    headers = {} if token is None else {"X-Auth-Token": token}
    with open_service.mover.client(unix=True) as client:
        assert client.ask("GET", "/v2/images", None, headers).status == 200


def test_clients_elsewhere_are_refused(open_service: Service) -> None:
    """401 for every path but discovery, whatever token they send."""
    address = other_address()
    if address is None:
        pytest.skip("this host has no address but loopback")
    port = open_service.mover.tcp[1]
    for path in ("/v1/images", "/v2/images", "/v2/schemas/image", "/v2/unknown-but-ours/file"):
        with Client((address, port)) as client:
            answer = client.ask("GET", path, x_auth_token="any")
            assert answer.status == (404 if "unknown" in path else 401), path
    with Client((address, port)) as client:
        assert client.ask("POST", "/v1/images", b"x" * 100).status == 401
        assert client.ask("GET", "/versions").status == 200


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "Via: 1.1 proxy", "Origin: https://evil.example"],
)
def test_what_came_by_a_proxy_or_a_browser_is_refused(open_service: Service, header: str) -> None:
    """The connection is from this host; who sent the request is not."""
    name, _, value = header.partition(": ")
    assert open_service.ask("GET", "/v2/images", None, **{name: value}).status == 401

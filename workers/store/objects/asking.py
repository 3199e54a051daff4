"""A request of our own to a store's server, for what OpenDAL's binding has no call for; none of an image's bytes."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

TIMEOUT_S = 15.0
PAUSES_S = (0.1, 0.3, 1.0)
ANSWER_BYTES = 16 * 1024 * 1024


class Answer(NamedTuple):
    """Headers' names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Request(NamedTuple):
    """`url` is whole, its query too; the server has `timeout_s` to begin to answer, and for each piece of it."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""
    timeout_s: float = TIMEOUT_S


def ask(request: Request) -> Answer:
    """One request. Raises OSError."""
    address = urlsplit(request.url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.netloc, timeout=request.timeout_s)
    target = f"{address.path or '/'}?{address.query}" if address.query else address.path or "/"
    try:
        connection.request(request.method, target, request.body or None, dict(request.headers))
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read(ANSWER_BYTES))
    except http.client.HTTPException as error:
        raise OSError(0, f"the server does not speak HTTP: {type(error).__name__}") from None
    finally:
        connection.close()


def ask_again(request: Request) -> Answer:
    """As `ask`, tried again while the server says that it is for a moment."""
    for pause_s in PAUSES_S:
        try:
            answer = ask(request)
            if answer.status < http.client.INTERNAL_SERVER_ERROR:
                return answer
        except OSError:
            pass
        time.sleep(pause_s)
    return ask(request)

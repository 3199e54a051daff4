"""imageio's ticket service: what its JSON says, and what it answers. Rules, no I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec

from config.errors import shown
from config.export_url import ExportUrlError, parse_export
from config.images import id_fault
from config.rules import RATE_LEAST
from mover.control.config import DAY_S, LONGEST_S
from mover.control.entries import Info, State
from mover.control.store import Kept, Op
from mover.serve.messages import Token

# What imageio says, and Mover does (front.progress_s), where a ticket says nothing.
DEFAULT_INACTIVITY_S = 60
SIZE_MOST = 2**63 - 1
FILENAME_MOST = 1024
SUBJECT_MOST = 4096
SALT_BYTES = 16
# Mover's own keys, for the limits of a ticket.
RATE, REQUESTS = "bytes_per_second", "requests_most"
RATE_MOST, REQUESTS_MOST = 2**40, 4096
# A shorter token could be guessed. The longest one fits a request's head.
TOKEN_LEAST, TOKEN_MOST = 16, 1024

Values = Mapping[str, object]
ValueT = TypeVar("ValueT")


class BadTicket(Exception):
    """JSON that is no ticket, or no change of one; the text names the key."""


def ticket_of(body: bytes, ticket_id: str) -> Kept:
    """The ticket that the body of `PUT /tickets/{id}` describes; unknown keys are ignored. Raises BadTicket."""
    values = _object(body, "Ticket is not in a json format", "Invalid ticket")
    uuid = _uuid(values, ticket_id)
    url = _required(values, "url", str)
    try:
        export = parse_export(url)
    except ExportUrlError as error:
        raise _invalid("url", url, str(error)) from error
    return Kept(
        id=uuid,
        export=export,
        timeout_s=_number(values, "timeout", 0, LONGEST_S),
        url=url,
        ops=_ops(values),
        size_bytes=_number(values, "size", 0, SIZE_MOST),
        # As imageio makes it for clients that give none; half an id is no capability.
        transfer_id=_optional(values, "transfer_id", str, f"(ticket/{uuid[:18]})"),
        filename=_text(values, "filename", FILENAME_MOST),
        sparse=_optional(values, "sparse", bool, False),
        dirty=_optional(values, "dirty", bool, False),
        inactivity_s=_number(values, "inactivity_timeout", 1, DAY_S) if "inactivity_timeout" in values else None,
        token=_token(values),
        subject=_text(values, "subject", SUBJECT_MOST),
        bytes_s=_rate(values),
        requests_most=_requests_most(values),
    )


class Change(NamedTuple):
    """What PATCH changes: the timeout in seconds, if it is not None, and the limits that `limits` names."""

    timeout_s: int | None
    limits: dict[str, int | None]


def change_of(body: bytes) -> Change:
    """What the body of PATCH asks for. Raises BadTicket."""
    values = _object(body, "Invalid patch", "Invalid patch")
    limits: dict[str, int | None] = {}
    if RATE in values:
        limits["bytes_s"] = _rate(values)
    if REQUESTS in values:
        limits["requests_most"] = _requests_most(values)
    if "timeout" not in values and not limits:
        raise BadTicket("Missing required value for 'timeout'")
    return Change(_timeout(values["timeout"]) if "timeout" in values else None, limits)


def _timeout(timeout: object) -> int:
    if not isinstance(timeout, int) or isinstance(timeout, bool):
        raise BadTicket(f"Integer required for 'timeout': {shown(timeout)}")
    if timeout < 0:
        raise BadTicket(f"Invalid value for 'timeout': {timeout} < 0")
    return min(timeout, LONGEST_S)


def answer_of(info: Info) -> dict[str, object]:
    """The answer to `GET /tickets/{id}`: imageio's keys, and what Mover adds."""
    kept = info.kept
    optional = {
        "transfer_id": kept.transfer_id,
        "filename": kept.filename,
        "transferred": info.moved_bytes if kept.measured else None,
        "subject": kept.subject,
        RATE: kept.bytes_s,
        REQUESTS: kept.requests_most,
    }
    return {
        "active": info.requests > 0,
        "canceled": info.state is State.CANCELED,
        "connections": info.connections,
        "expires": int(os.times().elapsed + info.left_s),
        "idle_time": int(info.idle_s),
        "inactivity_timeout": kept.inactivity_s or DEFAULT_INACTIVITY_S,
        "ops": kept.ops,
        "size": kept.size_bytes,
        "sparse": kept.sparse,
        "dirty": kept.dirty,
        "timeout": kept.timeout_s,
        "url": kept.url or kept.export.key,
        "uuid": kept.id,
        **{key: value for key, value in optional.items() if value is not None},
        "dialect": kept.dialect,
        "expired": info.state is State.EXPIRED,
        "requests": info.requests,
        "token": kept.token is not None,
    }


def _object(body: bytes, no_json: str, no_object: str) -> Values:
    try:
        values = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadTicket(f"{no_json}: {error}") from error
    if not isinstance(values, dict):
        raise BadTicket(f"{no_object}: {shown(values)}, expecting an object")
    return values


def _required(values: Values, key: str, kind: type[ValueT]) -> ValueT:
    if key not in values:
        raise BadTicket(f"Invalid ticket: Required ticket parameter is missing: {key}")
    return _typed(values, key, kind)


def _optional(values: Values, key: str, kind: type[ValueT], default: ValueT) -> ValueT:
    return _typed(values, key, kind) if key in values else default


def _typed(values: Values, key: str, kind: type[ValueT]) -> ValueT:
    value = values[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _invalid(key, value, f"expecting a {kind.__name__} value")
    return value


def _number(values: Values, key: str, least: int, most: int) -> int:
    """A required number; one that is too large to be meant is taken for the largest."""
    number = _required(values, key, int)
    if number < least:
        raise _invalid(key, number, f"must be at least {least}")
    return min(number, most)


def _uuid(values: Values, ticket_id: str) -> str:
    """It is not quoted in errors: a ticket's id is a secret."""
    uuid = _required(values, "uuid", str)
    why = id_fault(uuid) or (None if uuid == ticket_id else "is not the id in the path")
    if why is not None:
        raise BadTicket(f"Invalid ticket: Invalid value for 'uuid': {why}")
    return uuid


def _ops(values: Values) -> tuple[Op, ...]:
    ops: list[object] = _required(values, "ops", list)
    found: list[Op] = []
    for op in ops:
        if op == "read" or op == "write":
            found.append(op)
        else:
            raise _invalid("ops", op, "expecting 'read' and 'write'")
    return tuple(dict.fromkeys(found))


def _rate(values: Values) -> int | None:
    """Bytes a second; 0 is no limit, null what the settings say."""
    if values.get(RATE) is None:
        return None
    rate = _number(values, RATE, 0, RATE_MOST)
    if 0 < rate < RATE_LEAST:
        raise _invalid(RATE, rate, f"must be 0, which is no limit, or at least {RATE_LEAST}")
    return rate


def _requests_most(values: Values) -> int | None:
    """The same of requests at once."""
    return None if values.get(REQUESTS) is None else _number(values, REQUESTS, 0, REQUESTS_MOST)


def _text(values: Values, key: str, most: int) -> str | None:
    if key not in values:
        return None
    text = _typed(values, key, str)
    if len(text) > most:
        raise _invalid(key, text, f"must have at most {most} characters")
    return text


def _token(values: Values) -> Token | None:
    if "token" not in values:
        return None
    token = _typed(values, "token", str)
    if not TOKEN_LEAST <= len(token) <= TOKEN_MOST or not token.isascii() or not token.isprintable() or " " in token:
        what = f"must have {TOKEN_LEAST} to {TOKEN_MOST} visible ASCII characters"
        raise BadTicket(f"Invalid ticket: Invalid value for 'token': {what}")
    salt = os.urandom(SALT_BYTES)
    return Token(salt, sha256(salt + token.encode()).digest())


def _invalid(key: str, value: object, why: str) -> BadTicket:
    return BadTicket(f"Invalid ticket: Invalid value for '{key}': {shown(value)}: {why}")

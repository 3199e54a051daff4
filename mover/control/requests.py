"""The requests of CloudStack's control socket, read from their JSON. Rules, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from config.export import Export
from config.images import id_fault
from mover.control.config import BadTransfer, export_of, idle_s


class Refused(Exception):
    """A request that gets an error for its answer; `message` is its text."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Status:
    """How many transfers are there."""


@dataclass(frozen=True)
class Register:
    """Put a transfer in force, in place of an older one of its id."""

    id: str
    export: Export
    idle_s: int


@dataclass(frozen=True)
class Unregister:
    """Take a transfer out of force, if it is there."""

    id: str


Request = Status | Register | Unregister


def parse(body: bytes) -> Request:
    """What a request asks for. Raises Refused."""
    request = _object(body)
    match request.get("action"):
        case "status":
            return Status()
        case "register":
            return _register(request)
        case "unregister":
            return Unregister(_id(request.get("transfer_id"), "missing transfer_id"))
        case other:
            raise Refused(f"unknown action: {other}")


def _object(body: bytes) -> dict[str, object]:
    try:
        request = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"bad JSON: {error}") from error
    if not isinstance(request, dict):
        raise Refused("the request must be a JSON object")
    return request


def _register(request: dict[str, object]) -> Register:
    missing = "missing transfer_id or config"
    config = request.get("config")
    if not isinstance(config, dict) or not request.get("transfer_id"):
        raise Refused(missing)
    try:
        seconds = idle_s(config)
        export = export_of(config)
    except BadTransfer as error:
        raise Refused(error.message) from error
    return Register(_id(request.get("transfer_id"), missing), export, seconds)


def _id(given: object, missing: str) -> str:
    if not given:
        raise Refused(missing)
    if not isinstance(given, str) or id_fault(given) is not None:
        raise Refused("invalid transfer_id")
    return given

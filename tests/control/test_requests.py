"""What the control socket's requests mean, and what is said of those that mean nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.export import Export
from mover.control.config import DAY_S, BadTransfer, export_of
from mover.control.requests import Refused, Register, Status, Unregister, parse

SOCKET = {"socket": "/run/disk.sock"}


def register(config: object, transfer_id: object = "one") -> dict[str, Any]:
    return {"action": "register", "transfer_id": transfer_id, "config": config}


def parsed(request: object) -> Status | Register | Unregister:
    return parse(json.dumps(request).encode())


def test_status_and_unregister_are_what_they_say() -> None:
    """Unknown keys are ignored."""
    assert parsed({"action": "status", "more": [1]}) == Status()
    assert parsed({"action": "unregister", "transfer_id": "one", "config": 5}) == Unregister("one")


@pytest.mark.parametrize(
    ("config", "export"),
    [
        (SOCKET, Export(transport="unix", socket="/run/disk.sock")),
        ({"socket": "  /run/disk.sock\n", "backend": None}, Export(transport="unix", socket="/run/disk.sock")),
        ({**SOCKET, "backend": "NBD", "export": None}, Export(transport="unix", socket="/run/disk.sock")),
        ({**SOCKET, "export": "a/b c%20?ü"}, Export(transport="unix", socket="/run/disk.sock", name="a/b c%20?ü")),
        ({**SOCKET, "export_bitmap": ""}, Export(transport="unix", socket="/run/disk.sock")),
        (
            {"socket": "/run/a b&c?.sock", "export": "e", "export_bitmap": "b&1"},
            Export(transport="unix", socket="/run/a b&c?.sock", name="e", bitmap="b&1"),
        ),
        ({**SOCKET, "unknown": {"deep": []}, "host": "ignored"}, Export(transport="unix", socket="/run/disk.sock")),
        ({"backend": "File", "file": " /disks/a b%.raw "}, Export(transport="file", path="/disks/a b%.raw")),
        ({"backend": "file", "file": "/d.raw", "socket": 5}, Export(transport="file", path="/d.raw")),
    ],
)
def test_register_names_its_export(config: dict[str, Any], export: Export) -> None:
    """Whatever the strings hold, they arrive as they are; the transfer's idle time is ten minutes."""
    assert parsed(register(config)) == Register("one", export, 600)


@pytest.mark.parametrize(("given", "seconds"), [(1, 1), (86401, 86401), (0, DAY_S), (-5, DAY_S)])
def test_an_idle_time_below_a_second_is_a_day(given: int, seconds: int) -> None:
    """Anything above is taken as it is."""
    request = parsed(register({**SOCKET, "idle_timeout_seconds": given}))
    assert isinstance(request, Register)
    assert request.idle_s == seconds


NO_SOCKET = "missing/invalid socket path for nbd backend"
NO_FILE = "missing/invalid file path for file backend"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "unknown action: None"),
        ({"action": "restart"}, "unknown action: restart"),
        ({"action": ["status"]}, "unknown action: ['status']"),
        ({"action": "register"}, "missing transfer_id or config"),
        (register(SOCKET, ""), "missing transfer_id or config"),
        (register(SOCKET, None), "missing transfer_id or config"),
        (register(None), "missing transfer_id or config"),
        (register([SOCKET]), "missing transfer_id or config"),
        ({"action": "unregister"}, "missing transfer_id"),
        ({"action": "unregister", "transfer_id": ""}, "missing transfer_id"),
        ({"action": "unregister", "transfer_id": "../one"}, "invalid transfer_id"),
        *[(register(SOCKET, bad), "invalid transfer_id") for bad in ("a/b", "..", ".", "a\\b", "a\0", "x" * 256, 5)],
        (register({**SOCKET, "backend": "iscsi"}), "unsupported backend: iscsi"),
        (register({**SOCKET, "backend": ""}), "unsupported backend: "),
        (register({**SOCKET, "backend": 5}), "invalid backend type"),
        (register({"backend": "file"}), NO_FILE),
        (register({"backend": "file", "file": " "}), NO_FILE),
        (register({"backend": "file", "file": 5}), NO_FILE),
        (register({"backend": "file", "file": "disk.raw"}), NO_FILE),
        (register({"backend": "file", "file": "/a\0"}), NO_FILE),
        (register({}), NO_SOCKET),
        (register({"socket": ""}), NO_SOCKET),
        (register({"socket": 5}), NO_SOCKET),
        (register({"socket": "disk.sock"}), NO_SOCKET),
        (register({"socket": "/" + "x" * 107}), NO_SOCKET),
        (register({"host": "127.0.0.1", "port": 10809}), NO_SOCKET),
        (register({**SOCKET, "export": ""}), "invalid export name"),
        (register({**SOCKET, "export": 5}), "invalid export name"),
        (register({**SOCKET, "export": "x" * 4097}), "invalid export name"),
        (register({**SOCKET, "export_bitmap": 5}), "invalid export_bitmap"),
        (register({**SOCKET, "export_bitmap": "x" * 4096}), "invalid export_bitmap"),
        *[
            (register({**SOCKET, "idle_timeout_seconds": bad}), "idle_timeout_seconds must be an integer")
            for bad in ("600", 1.5, None, True, [600])
        ],
    ],
)
def test_what_is_wrong_is_told_in_cloudstack_s_words(request_: object, message: str) -> None:
    """Each mistake has its message; one that CloudStack's server does not look for has one like them."""
    with pytest.raises(Refused) as refused:
        parsed(request_)
    assert refused.value.message == message


# -- the oldest form, in files only ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "export"),
    [
        ({"host": "Node1.example", "port": 10810, "export": "vda"}, Export(
            transport="tcp", host="node1.example", port=10810, name="vda")),
        ({"host": "127.0.0.1", "port": "10809"}, Export(transport="tcp", host="127.0.0.1", port=10809)),
        ({"host": "::1", "port": 1, "export_bitmap": "b"}, Export(transport="tcp", host="::1", port=1, bitmap="b")),
        ({"host": "[fe80::2]", "port": 65535}, Export(transport="tcp", host="fe80::2", port=65535)),
    ],
)  # fmt: skip
def test_files_may_name_a_host_and_a_port(config: dict[str, Any], export: Export) -> None:
    """An address may be a name or a number, a port a number or its text."""
    assert export_of(config, tcp=True) == export


@pytest.mark.parametrize(
    "config",
    [
        {"host": ""},
        {"host": "h"},
        {"host": "h", "port": 0},
        {"host": "h", "port": 65536},
        {"host": "h", "port": 1.5},
        {"host": "h", "port": True},
        {"host": "h/x?socket=/run/other.sock", "port": 1},
        {"host": "user@h", "port": 1},
        {"host": "{}", "port": 1},
        {"host": 5, "port": 1},
    ],
)
def test_an_address_that_is_none_is_refused(config: dict[str, Any]) -> None:
    """Nothing of it can become another part of a URL."""
    with pytest.raises(BadTransfer, match="missing/invalid host or port"):
        export_of(config, tcp=True)

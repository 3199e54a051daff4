"""How `mover status` and `mover top` look in terminals of several widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mover.cli.house import Look, Row
from mover.cli.house_view import screen

EXPORT = "nbd+unix:///?socket=/run/vms/a-machine-with-a-name.sock"
RATES: Row = {"out_rate": 10.5 * 2**20, "in_rate": 0, "read_rate": 10.5 * 2**20, "written_rate": 0}
STATUS: Row = {
    **RATES, "faults": [], "version": "1", "uptime_s": 5, "pid": 100, "addresses": "http://127.0.0.1:54322",
    "tickets": 1, "workers": 1, "front_end_restarts": 0, "worker_restarts": 0,
    "front_ends": [
        {"number": 1, "pid": 101, "state": "ready", "connections": 2, "in_flight": 2, "waiting": 0, "lanes": 1}
    ],
    "transfers": [{**RATES, "transfer": 1, "id": "3110fb…", "in_flight": 2, "requests": 15, "bytes_out": 151 * 2**20,
                   "bytes_in": 0, "export": EXPORT}],
}  # fmt: skip
WORKER: Row = {
    **RATES, "pid": 102, "state": "ready", "connections": 2, "in_flight": 8, "restarts": 0, "uss_bytes": 13 * 2**20,
    "export": EXPORT,
}  # fmt: skip


@pytest.mark.parametrize("width", [90, 200])
def test_a_narrow_terminal_cuts_exports_and_nothing_else(width: int) -> None:
    """The heads and numbers of all other columns are whole in 90 columns; the exports are where there is room."""
    shown = Console(file=io.StringIO(), width=width)
    shown.print(screen(Look(STATUS, [WORKER], 0)))
    assert isinstance(shown.file, io.StringIO)
    text = shown.file.getvalue()
    words = ("connections", "requests", "in flight", "out/s", "in/s", "read/s", "memory", "10.5 MiB/s", "13.0 MiB")
    assert [word for word in words if f" {word} " not in text] == []
    assert (EXPORT in text) == (width == 200)

"""How a look at the service is shown: a few lines and three tables, of rich."""

from __future__ import annotations

from rich import box
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from mover.cli.client_options import shown_size
from mover.cli.house import Look, Row
from mover.cli.status import visible
from mover.cli.tables import cell


def screen(look: Look, rows_most: int | None = None) -> RenderableType:
    """One screen; the busiest transfers and workers first, at most so many of each."""
    status = look.status
    transfers = sorted(status["transfers"], key=lambda row: -(row["in_rate"] + row["out_rate"]))[:rows_most]
    workers = sorted(look.workers, key=lambda row: -(row["read_rate"] + row["written_rate"]))[:rows_most]
    return Group(
        *_head(status),
        _front_ends(status["front_ends"]),
        _transfers(transfers) if transfers else Text("no transfers"),
        _workers(workers) if workers else Text("no workers"),
    )


def _head(status: Row) -> list[Text]:
    faults = status["faults"]
    ready = Text("ready", "green") if not faults else Text(visible(f"not ready: {'; '.join(faults)}"), "red")
    return [
        Text.assemble(
            f"mover {status['version']}, ", ready, f", up {_shown_time(status['uptime_s'])}, pid {status['pid']}"
        ),
        Text(status["addresses"]),
        Text(
            f"{status['tickets']} tickets, {status['workers']} workers; "
            f"out {_rate(status['out_rate'])}, in {_rate(status['in_rate'])}; "
            f"{status['front_end_restarts']} front ends and {status['worker_restarts']} workers were restarted"
        ),
        Text(),
    ]


def _front_ends(rows: list[Row]) -> Table:
    table = _table("front end", "pid", "state", "connections", "in flight", "waiting", "lanes")
    for row in rows:
        counts = (row["connections"], row["in_flight"], row["waiting"], row["lanes"])
        table.add_row(str(row["number"]), str(row["pid"]), row["state"], *map(_count, counts))
    return table


def _transfers(rows: list[Row]) -> Table:
    table = _table("transfer", "id", "in flight", "requests", "out", "out/s", "in", "in/s", "export")
    for row in rows:
        moved = shown_size(row["bytes_out"]), _rate(row["out_rate"]), shown_size(row["bytes_in"]), _rate(row["in_rate"])
        table.add_row(
            str(row["transfer"]),
            cell(row["id"]),
            str(row["in_flight"]),
            str(row["requests"]),
            *moved,
            cell(row["export"]),
        )
    return table


def _workers(rows: list[Row]) -> Table:
    table = _table("worker", "state", "connections", "in flight", "read/s", "written/s", "restarts", "memory", "export")
    for row in rows:
        counts = (row["connections"], row["in_flight"])
        memory = "-" if row["uss_bytes"] is None else shown_size(row["uss_bytes"])
        rates = _rate(row["read_rate"]), _rate(row["written_rate"])
        table.add_row(
            _count(row["pid"]),
            row["state"],
            *map(_count, counts),
            *rates,
            str(row["restarts"]),
            memory,
            cell(row["export"]),
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        # In a narrow terminal the export is what gives way: half a number says nothing.
        justify: JustifyMethod = "left" if name in ("state", "id", "export") else "right"
        table.add_column(name, justify=justify, overflow="ellipsis", no_wrap=name != "export")
    return table


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _rate(bytes_per_s: int) -> str:
    return f"{shown_size(bytes_per_s)}/s"


def _shown_time(seconds: float) -> str:
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds) % 60} s" if minutes else f"{seconds:.0f} s"

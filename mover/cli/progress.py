"""What is seen of a job while it runs: a bar on a terminal, a line now and then elsewhere, or JSON for machines."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from mover.cli.client_options import shown_size
from mover.cli.status import emit, one_line

if TYPE_CHECKING:
    from rich.progress import TaskID

    from mover.client import OnProgress, Progress, Report

LINE_EVERY_S = 5.0
EVENT_EVERY_S = 0.5


@contextlib.contextmanager
def shown(job: str, *, as_json: bool, events: TextIO) -> Iterator[OnProgress]:
    """What to give a job for its progress. Bar and lines go to standard error, JSON to `events`."""
    if as_json:
        yield _Events(job, events)
    elif sys.stderr.isatty():
        with _Bar(job) as bar:
            yield bar
    else:
        yield _Lines(job)


def report_done(report: Report, what: str, *, as_json: bool, events: TextIO) -> None:
    """The end of a job that went well."""
    if as_json:
        emit({"event": "done", **asdict_report(report)}, events)
        return
    rate = (report.data - report.resumed) / report.seconds if report.seconds else 0.0
    facts = [
        f"{shown_size(report.size)}, {shown_size(report.data)} of it data",
        f"{report.seconds:.1f} s, {shown_size(rate)}/s",
    ]
    if report.flushed or report.job == "upload":
        facts.append("flushed" if report.flushed else "not flushed: the server cannot")
    if report.resumed:
        facts.append(f"{shown_size(report.resumed)} of it in an earlier run")
    if report.retries:
        facts.append(f"{report.retries} retries")
    if report.checksum is not None:
        facts.append(f"verified, {report.checksum.algorithm} {report.checksum.checksum}")
    print(f"mover: {report.job} of {what}: {'; '.join(facts)}", file=sys.stderr)


def asdict_report(report: Report) -> dict[str, Any]:
    """A report as JSON has it."""
    checksum = report.checksum
    facts = {name: value for name, value in vars(report).items() if name != "checksum"}
    return facts | {"checksum": None if checksum is None else {"algorithm": checksum.algorithm,
                    "block_size": checksum.block_size, "checksum": checksum.checksum}}  # fmt: skip


class _Events:
    def __init__(self, job: str, events: TextIO) -> None:
        self._job = job
        self._events = events
        self._phase = ""
        self._next = 0.0

    def __call__(self, now: Progress) -> None:
        if now.phase == self._phase and time.monotonic() < self._next:
            return
        self._phase, self._next = now.phase, time.monotonic() + EVENT_EVERY_S
        facts = {"job": self._job, **asdict(now), "rate": now.rate, "remaining_s": now.remaining_s, "saved": now.saved}
        emit({"event": "progress", **facts}, self._events)


class _Lines:
    def __init__(self, job: str) -> None:
        self._job = job
        self._next = time.monotonic() + LINE_EVERY_S

    def __call__(self, now: Progress) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LINE_EVERY_S
        if now.phase != "data":
            print(f"mover: {self._job}: {one_line(now.phase)}", file=sys.stderr, flush=True)
            return
        facts = [f"{shown_size(now.done)} of {shown_size(now.data)}", f"{shown_size(now.rate)}/s"]
        facts += [f"{now.remaining_s:.0f} s left"] if now.remaining_s is not None else []
        facts += [f"{shown_size(now.saved)} saved"] if now.saved else []
        print(f"mover: {self._job}: {', '.join(facts)}", file=sys.stderr, flush=True)


class _Bar:
    def __init__(self, job: str) -> None:
        from rich import progress
        from rich.console import Console

        self._job = job
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),  # it may have what a server says
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[saved]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID = self._progress.add_task(job, total=None, rate="", saved="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, now: Progress) -> None:
        phase = "" if now.phase in ("data", "done") else f" ({one_line(now.phase)})"
        self._progress.update(
            self._task,
            description=f"{self._job}{phase}",
            total=now.data if now.phase != "extents" else None,
            completed=now.done,
            rate=f"{shown_size(now.rate)}/s" if now.rate else "",
            saved=f"{shown_size(now.saved)} saved" if now.saved else "",
        )

"""What `mover backup`'s actions do: one function each, and how they tell about it."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from mover.backup.errors import Damage, DamagedError, DifferentError
from mover.backup.manifest import Manifest
from mover.backup.names import check_disk
from mover.backup.pruning import Keep, Pruned, prune
from mover.backup.repository import Disk, Repository
from mover.backup.restoring import FileFormat, restore_to_file
from mover.backup.taking import Taken, Wish, back_up
from mover.backup.uploading import restore_to_server
from mover.backup.verifying import verify
from mover.cli import client_options, progress
from mover.cli.client_options import shown_size
from mover.cli.status import Failed, Interrupted, Status, UsageError, complain, emit
from mover.cli.tables import print_table
from mover.cli.terminable import terminable
from mover.client import ClientError, OnProgress

T = TypeVar("T")

URLS = ("http://", "https://")
# What the system counts a file's blocks in.
SECTOR_BYTES = 512
HEADER = ["disk", "point", "kind", "time", "size", "data", "parent", "checkpoint"]


def run(options: argparse.Namespace) -> int:
    """Does what the options say; the exit status. Raises UsageError."""
    job = f"backup {options.action}"
    try:
        with terminable():
            return ACTIONS[options.action](options)
    except ClientError as error:
        wrong = isinstance(error, DamagedError | DifferentError)
        status = Status.VERIFICATION if wrong else client_options.status_of(error)
        raise Failed(f"{job}: {error}", status, error) from error
    except KeyboardInterrupt:
        raise Interrupted(f"{job}: interrupted: run it again") from None


def _full(options: argparse.Namespace) -> int:
    return _take(options, allow_full=False)


def _incremental(options: argparse.Namespace) -> int:
    return _take(options, allow_full=options.allow_full)


def _take(options: argparse.Namespace, *, allow_full: bool) -> int:
    incremental = options.action == "incremental"
    wish = Wish(incremental, options.bitmap, options.checkpoint, allow_full, options.max_workers, options.verify)
    _named(lambda: check_disk(options.name))
    with client_options.client(options) as client:
        client.options()  # a server that is not there makes no repository
        disk = Repository(options.repo).make_disk(options.name)
        with _shown(options) as shown:
            taken = back_up(disk, client, wish, shown)
    if taken.why_full is not None:
        print(f"mover: a full backup was made: {taken.why_full.why}", file=sys.stderr)
    why_full = taken.why_full.why if taken.why_full is not None else None
    _done(options, _facts(disk, taken.manifest) | {"why_full": why_full}, _taken_text(disk, taken))
    return Status.DONE


def _taken_text(disk: Disk, taken: Taken) -> str:
    made = taken.manifest
    zeros = f" and {shown_size(made.zero_bytes)} of zeros" if made.zero_bytes else ""
    return f"{disk.name}: point {made.point}, {made.kind}: {shown_size(made.data_bytes)} of data{zeros}"


def _list(options: argparse.Namespace) -> int:
    damages: list[Damage] = []
    rows: list[tuple[Disk, Manifest]] = []
    disks = _disks(options)
    for disk in disks:
        survey = disk.survey()
        rows += [(disk, manifest) for manifest in survey.points]
        damages += survey.damages
    if options.json:
        for disk, manifest in rows:
            emit(_facts(disk, manifest), sys.stdout)
    else:
        print_table(HEADER, [_row(disk, manifest) for disk, manifest in rows])
    for disk in disks:
        _tell_left(disk)
    if damages:
        raise DamagedError(f"repository {options.repo}", damages)
    return Status.DONE


def _tell_left(disk: Disk) -> None:
    """What a killed run has left takes room, and is no point."""
    left = disk.left()
    if not left:
        return
    held = 0
    for name in left:
        with contextlib.suppress(FileNotFoundError):  # a run that has just begun removes it
            held += disk.file(name).stat().st_blocks * SECTOR_BYTES
    advice = "the next backup or prune of it removes them"
    print(
        f"mover: {disk.name}: {len(left)} files ({shown_size(held)}) are left of a run that was killed: {advice}",
        file=sys.stderr,
    )


def _row(disk: Disk, each: Manifest) -> list[str]:
    first = [disk.name, str(each.point), each.kind, each.time]
    size, data = shown_size(each.size_bytes), shown_size(each.data_bytes)
    return [*first, size, data, str(each.parent or "-"), each.checkpoint or "-"]


def _verify(options: argparse.Namespace) -> int:
    if options.point is not None and options.name is None:
        raise UsageError("backup verify: --point is of one disk: give --name, too")
    status = Status.DONE
    disks = _disks(options)
    if not disks:
        print(f"mover: backup verify: there is no disk in {options.repo}: check --repo", file=sys.stderr)
    for disk in disks:
        with _shown(options) as shown:
            damages = verify(disk, options.point, shown)
        for damage in damages:
            if options.json:
                emit({"event": "damage", "disk": disk.name, **damage.facts()}, sys.stdout)
            else:
                print(f"{disk.name}: damaged: {damage}", flush=True)
        what = f"point {options.point}" if options.point is not None else f"{len(disk.survey().points)} points"
        verdict = f"{len(damages)} ranges are damaged" if damages else "as it was made"
        _done(options, {"disk": disk.name, "damages": len(damages)}, f"{disk.name}: {what}: {verdict}")
        if damages:
            status = complain(f"backup verify: {DamagedError(disk.name, damages)}", Status.VERIFICATION)
    return status


def _restore(options: argparse.Namespace) -> int:
    disk = _named(lambda: Repository(options.repo).disk(options.name))
    if options.url.startswith(URLS):
        if options.format is not None:
            raise UsageError("backup restore: --format is for files, and the target is a URL")
        with client_options.client(options) as client, _shown(options) as shown:
            restored = restore_to_server(disk, options.point, client, shown, options.max_workers)
    else:
        path = Path(options.url)
        with _shown(options) as shown:
            restored = restore_to_file(disk, options.point, path, _format(options, path), shown)
    facts = _facts(disk, restored) | {"target": options.url}
    _done(options, facts, f"{disk.name}: point {restored.point} is restored to {options.url}")
    return Status.DONE


def _format(options: argparse.Namespace, path: Path) -> FileFormat:
    chosen: FileFormat = options.format or ("qcow2" if path.suffix == ".qcow2" else "raw")
    return chosen


def _prune(options: argparse.Namespace) -> int:
    for disk in _disks(options):
        with _shown(options) as shown:
            done = prune(disk, Keep(options.keep, options.older_than), progress=shown)
        facts: dict[str, object] = {"disk": disk.name, "gone": done.gone, "merged": done.merged, "swept": done.swept}
        _done(options, facts, f"{disk.name}: {_pruned_text(done)}")
    return Status.DONE


def _pruned_text(done: Pruned) -> str:
    swept = f"{len(done.swept)} files that a killed run had left" if done.swept else ""
    if not done.gone:
        return f"removed: {swept}" if swept else "nothing to remove"
    gone = ", ".join(str(point) for point in done.gone)
    merged = f"; point {done.merged} is a full one now" if done.merged is not None else ""
    return f"removed: {gone}{merged}{f'; and {swept}' if swept else ''}"


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "full": _full,
    "incremental": _incremental,
    "list": _list,
    "verify": _verify,
    "restore": _restore,
    "prune": _prune,
}


def _disks(options: argparse.Namespace) -> list[Disk]:
    """The disk that was named, or all of the repository's."""
    repository = Repository(options.repo)
    names = repository.names() if options.name is None else [options.name]
    return [_named(lambda name=name: repository.disk(name)) for name in names]  # type: ignore[misc]


def _named(make: Callable[[], T]) -> T:
    """What is made of a name on the command line. Raises UsageError where none can be so."""
    try:
        return make()
    except ValueError as error:
        raise UsageError(f"backup: --name: {error}") from error


def _facts(disk: Disk, manifest: Manifest) -> dict[str, object]:
    """A point for machines: what its manifest says, without its extents."""
    facts: dict[str, object] = msgspec.to_builtins(manifest)
    for long in ("data", "zero", "seal", "format"):
        del facts[long]
    return {"disk": disk.name, **facts, "data_bytes": manifest.data_bytes, "zero_bytes": manifest.zero_bytes}


@contextlib.contextmanager
def _shown(options: argparse.Namespace) -> Iterator[OnProgress]:
    with progress.shown(f"backup {options.action}", as_json=options.json, events=sys.stdout) as shown:
        yield shown


def _done(options: argparse.Namespace, facts: dict[str, object], text: str) -> None:
    if options.json:
        emit({"event": "done", "job": f"backup {options.action}", **facts}, sys.stdout)
    else:
        print(text, flush=True)

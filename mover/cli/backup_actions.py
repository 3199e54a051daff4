"""What `mover backup`'s actions do: one function each, and how they tell about it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from mover.backup.errors import Damage, DamagedError
from mover.backup.manifest import Manifest
from mover.backup.parallel import Progress
from mover.backup.pruning import Keep, Pruned, prune
from mover.backup.repository import Disk, Repository
from mover.backup.restoring import FileFormat, restore_to_file, restore_to_server
from mover.backup.taking import Taken, Wish, back_up
from mover.backup.verifying import verify
from mover.cli.status import Status, UsageError, complain
from mover.client import Client, ClientError, UnreachableError, VerificationError

MIB = 1024 * 1024
URLS = ("http://", "https://")


def run(options: argparse.Namespace) -> int:
    """Does what the options say; the exit status. Raises UsageError."""
    try:
        return ACTIONS[options.action](options)
    except UnreachableError as error:
        return complain(str(error), Status.UNREACHABLE)
    except (DamagedError, VerificationError) as error:
        return complain(str(error), Status.VERIFICATION)
    except ClientError as error:
        return complain(str(error), Status.FAILED)


def _full(options: argparse.Namespace) -> int:
    return _take(options, Wish(False, options.bitmap, options.checkpoint))


def _incremental(options: argparse.Namespace) -> int:
    return _take(options, Wish(True, options.bitmap, options.checkpoint, options.allow_full))


def _take(options: argparse.Namespace, wish: Wish) -> int:
    disk = _right(lambda: Repository(options.repo).make_disk(options.name))
    with _right(lambda: Client(options.url)) as client:
        taken = back_up(disk, client, wish, _progress(options))
    if taken.why_full is not None:
        print(f"mover: a full backup was made: {taken.why_full.why}", file=sys.stderr)
    _say(options, _facts(disk, taken.manifest), _taken_text(disk, taken))
    return Status.DONE


def _taken_text(disk: Disk, taken: Taken) -> str:
    made = taken.manifest
    zeros = f" and {_mib(made.zero_bytes)} of zeros" if made.zero_bytes else ""
    return f"{disk.name}: point {made.point}, {made.kind}: {_mib(made.data_bytes)} of data{zeros}"


def _list(options: argparse.Namespace) -> int:
    disks = _disks(options)
    damages: list[Damage] = []
    rows: list[tuple[Disk, Manifest]] = []
    for disk in disks:
        survey = disk.survey()
        rows += [(disk, manifest) for manifest in survey.points]
        damages += survey.damages
    if options.json:
        _lines(_facts(disk, manifest) for disk, manifest in rows)
    else:
        from mover.cli.tables import print_table

        print_table(
            ["disk", "point", "kind", "time", "size", "data", "parent", "checkpoint"],
            [
                [disk.name, str(each.point), each.kind, each.time, _mib(each.size_bytes), _mib(each.data_bytes),
                 str(each.parent or "-"), each.checkpoint or "-"]
                for disk, each in rows
            ],
        )  # fmt: skip
    if damages:
        raise DamagedError(f"repository {options.repo}", damages)
    return Status.DONE


def _verify(options: argparse.Namespace) -> int:
    if options.point is not None and options.name is None:
        raise UsageError("backup verify: --point is of one disk: give --name, too")
    status = Status.DONE
    for disk in _disks(options):
        damages = verify(disk, options.point, _progress(options))
        for damage in damages:
            _say(options, {"disk": disk.name, "damage": damage.facts()}, f"{disk.name}: damaged: {damage}")
        points = len(disk.survey().points) if options.point is None else 1
        verdict = f"{len(damages)} damaged ranges" if damages else "as it was made"
        facts: dict[str, object] = {"disk": disk.name, "points": points, "damages": len(damages)}
        _say(options, facts, f"{disk.name}: {verdict} ({points} points)")
        if damages:
            status = complain(str(DamagedError(disk.name, damages)), Status.VERIFICATION)
    return status


def _restore(options: argparse.Namespace) -> int:
    disk = _right(lambda: Repository(options.repo).disk(options.name))
    if options.target.startswith(URLS):
        if options.format is not None:
            raise UsageError("backup restore: --format is for files, and the target is a URL")
        with _right(lambda: Client(options.target)) as client:
            restored = restore_to_server(disk, options.point, client, _progress(options))
    else:
        path = Path(options.target)
        restored = restore_to_file(disk, options.point, path, _format(options, path), _progress(options))
    facts = _facts(disk, restored) | {"target": options.target}
    _say(options, facts, f"{disk.name}: point {restored.point} is restored to {options.target}")
    return Status.DONE


def _format(options: argparse.Namespace, path: Path) -> FileFormat:
    chosen: FileFormat = options.format or ("qcow2" if path.suffix == ".qcow2" else "raw")
    return chosen


def _prune(options: argparse.Namespace) -> int:
    keep = Keep(options.keep, options.older_than)
    for disk in _disks(options):
        done = prune(disk, keep, time.time(), _progress(options))
        facts: dict[str, object] = {"disk": disk.name, "gone": done.gone, "merged": done.merged}
        _say(options, facts, f"{disk.name}: {_pruned_text(done)}")
    return Status.DONE


def _pruned_text(done: Pruned) -> str:
    if not done.gone:
        return "nothing to remove"
    gone = ", ".join(str(point) for point in done.gone)
    merged = f"; point {done.merged} is a full one now" if done.merged is not None else ""
    return f"removed: {gone}{merged}"


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "full": _full,
    "incremental": _incremental,
    "list": _list,
    "verify": _verify,
    "restore": _restore,
    "prune": _prune,
}


def _disks(options: argparse.Namespace) -> list[Disk]:
    """The disk that was named, or all that have points."""
    repository = Repository(options.repo)
    if options.name is not None:
        return [_right(lambda: repository.disk(options.name))]
    return [repository.disk(name) for name in repository.names()]


def _right(make: Callable[[], Any]) -> Any:
    """What is made from what the command line says. Raises UsageError where that is wrong."""
    try:
        return make()
    except ValueError as error:
        raise UsageError(f"backup: {error}") from error


def _facts(disk: Disk, manifest: Manifest) -> dict[str, object]:
    """A point for machines: what its manifest says, without its extents."""
    facts: dict[str, object] = msgspec.to_builtins(manifest)
    for long in ("data", "zero", "seal", "format"):
        del facts[long]
    return {"disk": disk.name, **facts, "data_bytes": manifest.data_bytes, "zero_bytes": manifest.zero_bytes}


def _say(options: argparse.Namespace, facts: dict[str, object], text: str) -> None:
    if options.json:
        _lines([facts])
    else:
        print(text, flush=True)


def _lines(facts: Iterable[dict[str, object]]) -> None:
    for each in facts:
        print(msgspec.json.encode(each).decode(), flush=True)


def _progress(options: argparse.Namespace) -> Progress:
    return lambda done_bytes, total_bytes: None


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.1f} MiB"

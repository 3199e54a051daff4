"""What `mover image` shows: images, stores and members in tables or as JSON, and the bytes that move."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from mover.cli.client_options import shown_size
from mover.cli.status import Status


@contextlib.contextmanager
def moving(job: str, size: int, offset: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; what it yields is told of every piece."""
    from mover.cli import progress
    from mover.client import Progress

    began = time.monotonic()
    done = offset
    with progress.shown(job, as_json=False, events=sys.stderr) as tell:

        def moved(length: int) -> None:
            nonlocal done
            done += length
            tell(Progress("data", size, size, done, offset, 0, time.monotonic() - began))

        yield moved


def print_stores(options: argparse.Namespace, stores: list[dict[str, Any]]) -> int:
    """Where data can be."""
    from mover.cli.tables import print_table

    if options.json:
        return print_json(stores)
    rows = [[store["id"], store.get("type", "-"), _role(store), *_abilities(store)] for store in stores]
    print_table(["ID", "KIND", "USE", "CAPABILITIES", "DESCRIPTION"], rows)
    return Status.DONE


def _role(store: dict[str, Any]) -> str:
    return "default" if store.get("default") == "true" else "read only" if store.get("read-only") == "true" else "-"


def _abilities(store: dict[str, Any]) -> list[str]:
    return [", ".join(store.get("capabilities", [])) or "-", store.get("description", "-")]


def print_image(options: argparse.Namespace, image: dict[str, Any]) -> int:
    """All that is known of one."""
    from mover.cli.tables import print_table

    if options.json:
        return print_json(image)
    print_table(["PROPERTY", "VALUE"], [[name, shown(name, value)] for name, value in sorted(image.items())])
    return Status.DONE


def print_members(options: argparse.Namespace, members: list[dict[str, Any]]) -> int:
    """Whom an image is shared with."""
    from mover.cli.tables import print_table

    if options.json:
        return print_json(members)
    print_table(["TENANT", "STATUS"], [[one["member_id"], one["status"]] for one in members])
    return Status.DONE


def print_json(answer: object) -> int:
    """One document."""
    print(json.dumps(answer, ensure_ascii=False))
    return Status.DONE


def shown(name: str, value: object) -> str:
    """One fact of an image for people."""
    if value is None:
        return "-"
    if name in ("size", "virtual_size") and isinstance(value, int):
        return f"{value} ({shown_size(value)})"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

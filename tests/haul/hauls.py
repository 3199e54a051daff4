"""Hauls as tests ask for them, of a Mover whose front ends are tests/haul/front_end.py."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import uuid
from pathlib import Path
from typing import Any

import msgspec

from config import volumes
from tests.harness.mover import Mover
from tests.harness.waiting import wait_until

PROGRAM = (sys.executable, "-m", "tests.haul.mover")
MIB = 1024 * 1024


class Hauls:
    """The hauls of one Mover with one front end, and where its file stores are."""

    def __init__(self, mover: Mover, places: dict[str, Path]) -> None:
        self.mover = mover
        self.places = places
        self.directory = places["file"]

    def begin(self, disk: str, **asked: Any) -> int:
        """One more; its number."""
        answer = self.mover.ask("POST", "/haul", msgspec.json.encode({"disk": disk, **asked}))
        assert answer.status == 200, answer
        number: int = answer.json()["number"]
        return number

    def told(self, number: int) -> dict[str, Any]:
        """How far it is."""
        answer = self.mover.ask("GET", f"/haul?number={number}")
        assert answer.status == 200, answer
        told: dict[str, Any] = answer.json()
        return told

    def cancel(self, number: int) -> dict[str, Any]:
        """End it; what became of it."""
        told: dict[str, Any] = self.mover.ask("DELETE", f"/haul?number={number}").json()
        return told

    def end(self, number: int, patience_s: float = 60) -> dict[str, Any]:
        """What became of it, when it has ended."""

        def ended() -> dict[str, Any] | None:
            told = self.told(number)
            return None if told["state"] == "moving" else told

        return wait_until(f"haul {number} ends", ended, patience_s)

    def bring(self, disk: str, **asked: Any) -> tuple[str, dict[str, Any]]:
        """An image's id, and what became of bringing it."""
        image = asked.pop("image", None) or str(uuid.uuid4())
        return image, self.end(self.begin(disk, image=image, **asked))

    def brought(self, disk: str, **asked: Any) -> tuple[Path, dict[str, Any]]:
        """An image's file, and what was received."""
        image, told = self.bring(disk, **asked)
        assert told["state"] == "done", told
        place = self.places[asked.get("store", "file")] / image
        assert told["received"]["location"]["uri"] == f"file://{place}"
        assert self.listing().count(f".{image}.mover-record") == 0
        received: dict[str, Any] = told["received"]
        return place, received

    def deliver(self, file: Path, disk: str, **asked: Any) -> dict[str, Any]:
        """What became of writing a store's file onto a disk."""
        asked = {"size_bytes": file.stat().st_size, "location": {"store": "file", "uri": f"file://{file}"}, **asked}
        return self.end(self.begin(disk, **asked))

    def kept(self, image: str) -> int | None:
        """How much of an interrupted one is there."""
        kept: int | None = self.mover.ask("GET", f"/haul?kept={image}").json()
        return kept

    def wait_for(self, number: int, count: int) -> None:
        """Until so many bytes have moved, and not all of them."""

        def moved() -> bool:
            told = self.told(number)
            assert told["state"] == "moving", told
            return int(told["moved"]) >= count

        wait_until(f"{count} bytes have moved", moved)

    def wait_for_files(self, *names: str) -> None:
        """Until these and no others are in the directory."""
        wait_until(f"there is {names}, not {self.listing()}", lambda: self.listing() == sorted(names))

    def listing(self) -> list[str]:
        """Everything in the store's directory, hidden or not, but its own name."""
        return sorted(set(os.listdir(self.directory)) - {volumes.FILE})


def assert_digests(received: dict[str, Any], data: bytes) -> None:
    """What was received says what the bytes are."""
    assert received["size_bytes"] == len(data)
    assert received["md5"] == hashlib.md5(data).hexdigest()
    assert received["hash_value"] == hashlib.new(received["hash_algo"], data).hexdigest()


def patchwork(seed: int, length: int) -> tuple[bytes, list[tuple[int, int]]]:
    """Bytes with runs of data and of zeros of any length, and the runs of data (offset, length)."""
    dice = random.Random(seed)
    data, runs, at = bytearray(length), [], 0
    while at < length:
        run = min(length - at, int(2 ** dice.uniform(0, 22)))
        if dice.random() < 0.5:
            data[at : at + run] = dice.randbytes(run)
            runs.append((at, run))
        at += run
    return bytes(data), runs


def write_sparse(file: Path, length: int, data: bytes, runs: list[tuple[int, int]]) -> None:
    """A file that has only these runs."""
    with file.open("wb") as opened:
        opened.truncate(length)
        for offset, count in runs:
            opened.seek(offset)
            opened.write(data[offset : offset + count])


def allocated(file: Path) -> int:
    """Bytes of the disk that a file takes."""
    return file.stat().st_blocks * 512

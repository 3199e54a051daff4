"""`python -m tests.soak [--minutes 10] [--seed N] [--short]`: load and failures together, every byte verified.

In rounds, on one `mover serve`: tenants read and write parts of four images that are theirs alone, while workers,
front ends and NBD servers are killed and restarted and other clients stall, leave and lie. After each round the
images' files are compared with what the tenants know, and what Mover holds with what it held before.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.harness.fixtures import RAM, Images
from tests.harness.http import Answer, Client, connect, head
from tests.harness.mover import Mover
from tests.harness.patterns import BLOCK_BYTES, MIB, difference, mapped, pattern
from tests.harness.servers import NbdServer
from tests.harness.transfers import Doing
from tests.harness.waiting import wait_until
from tests.operation import short_transfers

IMAGES = 4
TENANTS = 4
PART = 8 * MIB
SIZE = TENANTS * PART
ROUND_S = 15.0
# Short transfers between two looks at what Mover holds.
BLOCK = 200
FRONT_ENDS = 2
# Only a failure waits longer.
PATIENCE_S = 120.0
# Short pauses between restarts, so that a round sees many deaths; the rest is as users have it.
SETTINGS = {"supervisor": {"backoff_s": 0.5}}


class Tenant:
    """A client with a part of an image to itself; it repeats what was not answered, and knows what must be there."""

    def __init__(self, mover: Mover, image: int, part: int, seed: int, counts: Counter[str]) -> None:
        self._mover = mover
        self._image = image
        self._start = part * PART
        self._rng = random.Random(seed)
        self._stamp = 0
        self._counts = counts
        self._client = mover.client()
        self.expected = bytearray(pattern(image, self._start, PART))

    def live(self, until_s: float) -> None:
        """One request after the other until then. AssertionError for anything that is not right."""
        acts = [self._read, self._read, self._write, self._write, self._zero, self._flush, self._look]
        while time.monotonic() < until_s:
            self._rng.choice(acts)()
        self._client.close()

    def _span(self) -> tuple[int, int]:
        offset = self._rng.randrange(0, PART - BLOCK_BYTES)
        most = self._rng.choice([BLOCK_BYTES, MIB, PART])
        return offset, self._rng.randrange(1, min(most, PART - offset) + 1)

    def _ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        """Ask until there is an answer other than `try again`: every request here may be repeated."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                answer = self._client.ask(method, f"/images/{self._image}{target}", body, headers)
            except (ConnectionError, http.client.HTTPException):
                self._counts["broken connections"] += 1
                self._client.close()
                continue
            self._counts[f"{method} {answer.status}"] += 1
            if answer.status not in (502, 503):
                return answer
        raise AssertionError(f"no answer to {method} {target} {headers} in {PATIENCE_S:g} s")

    def _read(self) -> None:
        offset, length = self._span()
        at = self._start + offset
        answer = self._ask("GET", "", Range=f"bytes={at}-{at + length - 1}")
        assert answer.status == 206, answer
        wrong = difference(answer.body, self.expected[offset : offset + length], at)
        assert wrong is None, f"image {self._image}: {wrong}"

    def _write(self) -> None:
        offset, length = self._span()
        at, self._stamp = self._start + offset, self._stamp + 1
        body = pattern(self._image, at, length, self._stamp)
        flush = self._rng.choice("yn")
        answer = self._ask("PUT", f"?flush={flush}", body, **{"Content-Range": f"bytes {at}-{at + length - 1}/*"})
        self._acknowledged(answer)
        self.expected[offset : offset + length] = body

    def _zero(self) -> None:
        offset, length = self._span()
        body = f'{{"op": "zero", "offset": {self._start + offset}, "size": {length}}}'.encode()
        self._acknowledged(self._ask("PATCH", "", body))
        self.expected[offset : offset + length] = bytes(length)

    def _flush(self) -> None:
        self._acknowledged(self._ask("POST", "/flush"))

    def _acknowledged(self, answer: Answer) -> None:
        """A success, or the news that a server was lost: a qemu-nbd that was killed leaves its writes to the kernel."""
        if answer.status == 500 and "lost" in answer.json():
            self._counts["told of losses"] += 1
        else:
            assert answer.status == 200, answer

    def _look(self) -> None:
        extents = self._ask("GET", "/extents").json()
        for extent in extents:
            start = max(extent["start"], self._start) - self._start
            end = min(extent["start"] + extent["length"], self._start + PART) - self._start
            assert not extent["zero"] or start >= end or not any(self.expected[start:end]), extent


class Trouble:
    """What happens to the house meanwhile."""

    def __init__(self, mover: Mover, servers: list[NbdServer], rng: random.Random, counts: Counter[str]) -> None:
        self._mover = mover
        self._servers = servers
        self._rng = rng
        self._counts = counts

    def make(self, until_s: float) -> None:
        """One trouble after the other until then, with everything mended at the end."""
        kinds: list[Callable[[], None]] = [
            self._kill_worker, self._kill_worker, self._kill_front_end, self._restart_server, self._pause_server,
            self._stall_readers, self._leave_early, self._send_nonsense,
        ]  # fmt: skip
        while time.monotonic() < until_s:
            kind = self._rng.choice(kinds)
            self._counts[kind.__name__.strip("_").replace("_", " ")] += 1
            kind()

    def _kill_worker(self) -> None:
        """A worker that has done something, for one that only ever dies is given up."""
        server = self._rng.choice(self._servers)
        for row in self._workers():
            if row["export"] == server.uri() and row["pid"] and (row["bytes_read"] or row["bytes_written"]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(row["pid"], signal.SIGKILL)

    def _workers(self) -> list[dict[str, Any]]:
        while True:
            try:
                return self._mover.workers()
            except (ConnectionError, http.client.HTTPException):
                continue  # its front end was killed

    def _kill_front_end(self) -> None:
        os.kill(self._rng.choice(self._mover.front_end_pids()), signal.SIGKILL)
        wait_until("front ends are back", lambda: len(self._mover.front_end_pids()) == FRONT_ENDS)

    def _restart_server(self) -> None:
        server = self._rng.choice(self._servers)
        server.kill()
        server.start()

    def _pause_server(self) -> None:
        server = self._rng.choice(self._servers)
        server.pause()
        self._workers()
        server.resume()

    def _stall_readers(self) -> None:
        with contextlib.ExitStack() as stalled:
            for _ in range(self._rng.randrange(1, 40)):
                sock = stalled.enter_context(contextlib.closing(connect(self._mover.tcp, receive_buffer=65536)))
                sock.sendall(head("GET", f"/images/{self._rng.randrange(IMAGES)}"))
            self._workers()

    def _leave_early(self) -> None:
        """Before the first byte of the body is written, so that the tenants still know what is there."""
        with contextlib.closing(connect(self._mover.tcp)) as sock:
            sock.sendall(head("PUT", f"/images/{self._rng.randrange(IMAGES)}", Content_Length=SIZE))

    def _send_nonsense(self) -> None:
        with contextlib.closing(connect(self._mover.tcp)) as sock:
            sock.sendall(self._rng.randbytes(self._rng.randrange(1, 10000)))


def warm(mover: Mover) -> None:
    """Have every front end open its lane to every image."""

    def all_open() -> bool:
        for image in range(IMAGES):
            with Client(mover.tcp) as client:
                assert client.ask("GET", f"/images/{image}", range="bytes=0-9").status == 206
        return all(len(row["lanes"]) == FRONT_ENDS for row in mover.workers())

    wait_until("every front end has every lane", all_open)


def run_round(mover: Mover, servers: list[NbdServer], tenants: dict[int, list[Tenant]], rng: random.Random) -> str:
    """One round; what happened in it, in words."""
    warm(mover)
    before = mover.settled_census()
    until_s = time.monotonic() + ROUND_S
    counts: Counter[str] = Counter()
    everybody = [Doing(partial(tenant.live, until_s)) for house in tenants.values() for tenant in house]
    Trouble(mover, servers, rng, counts).make(until_s)
    for one in everybody:
        one.result(PATIENCE_S)
    warm(mover)
    mover.assert_returns_to(before)
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def soak(minutes: float, seed: int) -> None:
    """Rounds until the time is over. AssertionError for the first thing that is not right."""
    rng = random.Random(seed)
    with contextlib.ExitStack() as endings:
        room = Path(endings.enter_context(tempfile.TemporaryDirectory(dir=RAM if RAM.is_dir() else None)))
        images = Images(room, endings)
        files = {image: images.pattern(f"disk{image}", image, SIZE) for image in range(IMAGES)}
        servers = [images.qemu_nbd(file) for file in files.values()]
        (room / "mover").mkdir()
        mover = Mover(room / "mover", {str(n): server for n, server in enumerate(servers)}, SETTINGS, FRONT_ENDS)
        endings.callback(mover.close)
        mover.start()
        counts: Counter[str] = Counter()
        tenants = {
            image: [Tenant(mover, image, part, rng.randrange(1 << 32), counts) for part in range(TENANTS)]
            for image in files
        }
        end_s = time.monotonic() + minutes * 60
        number = 0
        while time.monotonic() < end_s:
            number += 1
            print(f"round {number}: {run_round(mover, servers, tenants, rng)}", flush=True)
            verify(files, tenants)
        mover.stop_clean()
        print(f"answers: {', '.join(f'{name} {count}' for name, count in sorted(counts.items()))}")


def soak_short(minutes: float) -> None:
    """Short transfers without a failure until the time is over, in blocks; what Mover holds must not grow."""
    with contextlib.ExitStack() as endings:
        room = Path(endings.enter_context(tempfile.TemporaryDirectory(dir=RAM if RAM.is_dir() else None)))
        images = Images(room, endings)
        server = short_transfers.serve_many(room, images)
        (room / "mover").mkdir()
        mover = Mover(room / "mover", {}, short_transfers.settings(room), FRONT_ENDS)
        endings.callback(mover.close)
        host = short_transfers.Host(mover.start(), room, server)
        host.run(BLOCK)
        before, memory = host.at_rest(), host.memory_bytes()
        end_s = time.monotonic() + minutes * 60
        while time.monotonic() < end_s:
            host.run(BLOCK)
            assert host.at_rest() == before
            grown = short_transfers.grown(memory, host.memory_bytes())
            print(f"{host.done} transfers, memory {host.memory_bytes()}", flush=True)
            assert not grown, grown
        mover.stop_clean()


def verify(files: dict[int, Path], tenants: dict[int, list[Tenant]]) -> None:
    """Every file holds what its tenants have written."""
    for image, file in files.items():
        with mapped(file) as found:
            wrong = difference(found, b"".join(bytes(tenant.expected) for tenant in tenants[image]))
            assert wrong is None, f"image {image}: {wrong}"


def main() -> int:
    """Run the soak; 0 if everything was right."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Load and failures, verified.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--short", action="store_true", help="short transfers one after the other, and no failures")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    try:
        if options.short:
            soak_short(options.minutes)
        else:
            soak(options.minutes, options.seed)
    except AssertionError as error:
        print(f"soak: seed {options.seed} failed: {error}", file=sys.stderr)
        return 1
    print("soak: all was right")
    return 0


if __name__ == "__main__":
    sys.exit(main())

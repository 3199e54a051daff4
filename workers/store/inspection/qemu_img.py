"""`qemu-img info` in a process that can do little else (confine.py), of a descriptor for reading."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from workers.lane.store_format import Why
from workers.store.backing import Refusal

CONFINE = str(Path(__file__).with_name("confine.py"))
# An honest image takes 20 ms; what takes so long is refused.
PATIENCE_S = 30.0


class Unreadable(Exception):
    """qemu-img does not make an image of it; the text says what it said, without paths of ours."""


class Info(msgspec.Struct, frozen=True):
    """What qemu-img found."""

    virtual_size: int
    names_others: bool


def info(fd: int, image_format: str) -> Info:
    """Ask qemu-img of the image behind `fd`. Raises Unreadable; Refusal if there is no qemu-img."""
    program = shutil.which("qemu-img")
    if program is None:
        raise Refusal(Why.GONE, "images of this format cannot be inspected: qemu-img is not installed")
    path = f"/proc/self/fd/{fd}"
    # -I -S: nothing of the surroundings. An empty environment: qemu and its libraries listen to many variables.
    command = [sys.executable, "-I", "-S", CONFINE, "--read", str(fd), program]
    command += ["info", "--force-share", "--output=json", "-f", image_format, path]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, pass_fds=[fd], env={}, cwd="/", timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        raise Unreadable(f"qemu-img has not read it within {PATIENCE_S:g} s") from None
    if done.returncode:
        raise Unreadable(_reason(done, path))
    return _parse(done.stdout)


def _reason(done: subprocess.CompletedProcess[bytes], path: str) -> str:
    if done.returncode < 0:
        return f"qemu-img was ended by signal {-done.returncode}, at a limit of memory or time"
    lines = done.stderr.decode("utf-8", "replace").splitlines() or ["no reason"]
    return f"qemu-img says {lines[-1].replace(path, 'it').removeprefix('qemu-img: ')[:200]}"


def _parse(output: bytes) -> Info:
    try:
        found: dict[str, Any] = msgspec.json.decode(output, type=dict[str, Any])
        specific = found.get("format-specific", {}).get("data", {})
        others = any("backing-filename" in key for key in found) or "data-file" in specific
        return Info(int(found["virtual-size"]), others)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, ValueError, AttributeError) as error:
        raise Unreadable("qemu-img's answer cannot be understood") from error

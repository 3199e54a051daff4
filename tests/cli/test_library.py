"""`mover image …` and `mover token …` as programs, against a real service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.http import Client
from tests.harness.mover import ROOT, Mover
from tests.harness.patterns import pattern
from tests.harness.waiting import PROGRAM_S, wait_until

DATA = pattern(7, 0, 5_000_000)


class Command:
    """`mover image` with a service and a directory of its own."""

    def __init__(self, mover: Mover, directory: Path) -> None:
        self.mover = mover
        self.directory = directory
        self.file = directory / "disk.raw"
        self.file.write_bytes(DATA)

    def run(self, *arguments: str | Path, status: int = 0, **environ: str) -> str:
        """What it prints; on standard error if it fails."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MOVER_", "OS_"))}
        url = [f"--url=http://127.0.0.1:{self.mover.tcp[1]}"]
        done = subprocess.run(
            [sys.executable, "-m", "mover", "image", arguments[0], *url, *arguments[1:]], cwd=ROOT,
            env=clean | environ, capture_output=True, text=True, timeout=PROGRAM_S, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    def json(self, *arguments: str | Path) -> Any:
        """The JSON that it prints."""
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture(scope="module")
def service(module_room: Path) -> Iterator[Mover]:
    """A service with nothing configured."""
    mover = Mover(module_room, {}, front_ends=1)
    try:
        yield mover.start()
    finally:
        mover.close()


@pytest.fixture
def command(service: Mover, tmp_path: Path) -> Command:
    """The command."""
    return Command(service, tmp_path)


def test_an_image_from_its_beginning_to_its_end(command: Command) -> None:
    """Created with its data, listed, shown, changed, downloaded, deleted."""
    facts = ["--property", "os=linux", "--tag", "t", "--min-ram", "5", "--protected"]
    image = command.json("create", "life", "--file", command.file, *facts)
    assert (image["status"], image["size"], image["os"], image["tags"]) == ("active", len(DATA), "linux", ["t"])
    listed = command.run("list", "--name", "life", "--property", "os=linux")
    assert listed.split()[:2] == ["ID", "NAME"]
    assert image["id"] in listed
    assert "life" in command.run("show", image["id"])
    changed = command.json(
        "set", "life", "--name", "new life", "--property", "a/b=c", "--remove-property", "os", "--no-protected",
        "--visibility", "public", "--tag", "u", "--hidden",
    )  # fmt: skip
    expected = {"name": "new life", "a/b": "c", "protected": False, "visibility": "public", "tags": ["u"]}
    assert expected.items() <= changed.items()
    assert "os" not in changed
    command.run("set", image["id"], "--no-hidden")
    copy = command.directory / "copy.raw"
    command.run("download", "new life", copy)
    assert copy.read_bytes() == DATA
    assert not copy.with_name("copy.raw.part").exists()
    command.run("delete", "new life")
    assert command.json("list", "--name", "new life") == []
    assert "no image has this id or name" in command.run("show", "new life", status=1)


def test_an_upload_goes_on(command: Command) -> None:
    """After one that broke off, `--resume` sends what is missing, and no more."""
    image = command.json("create", "resumed")
    half = 3 << 20
    with Client(command.mover.address()) as client:
        client.putrequest("PUT", f"/v2/images/{image['id']}/file")
        for name, value in {"Content-Type": "application/octet-stream", "Content-Length": str(len(DATA)),
                            "Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}.items():  # fmt: skip
            client.putheader(name, value)
        client.endheaders()
        client.send(DATA[:half])
        parts = command.mover.state_dir
        wait_until("it is stored", lambda: [1 for file in parts.rglob(f"*{image['id']}*") if file.stat().st_size])
    path = f"/v2/images/{image['id']}/file"
    wait_until("it is kept", lambda: command.mover.ask("HEAD", path).headers.get("upload-offset"))
    assert command.json("upload", "resumed", command.file, "--resume")["status"] == "active"
    copy = command.directory / "copy"
    command.run("download", "resumed", copy)
    assert copy.read_bytes() == DATA
    assert "409" in command.run("upload", "resumed", command.file, status=1)


def test_a_download_goes_on(command: Command) -> None:
    """From the part that is there; if that is another image's, the hash says so, with status 4."""
    command.json("create", "downloaded", "--file", command.file)
    copy, part = command.directory / "copy", command.directory / "copy.part"
    part.write_bytes(DATA[:2_000_000])
    command.run("download", "downloaded", copy, "--resume")
    assert copy.read_bytes() == DATA
    part.write_bytes(b"x" * 2_000_000)
    wrong = command.run("download", "downloaded", command.directory / "copy", "--resume", status=4)
    assert wrong.startswith("mover: image download: verification of")
    assert copy.read_bytes() == DATA


def test_sharing(command: Command) -> None:
    """Offered, answered, taken back."""
    command.json("create", "shared")
    command.run("share", "shared", "tenant")
    assert "pending" in command.run("share", "shared")
    command.run("share", "shared", "tenant", "--accept")
    assert [one["status"] for one in command.json("share", "shared")] == ["accepted"]
    command.run("share", "shared", "tenant", "--remove")
    assert command.json("share", "shared") == []


def test_errors_are_one_line(command: Command) -> None:
    """What failed, why, and what to do; the status says of which kind."""
    command.json("create", "twice")
    command.json("create", "twice")
    assert command.run("show", "twice", status=1).count("\n") == 1
    assert "more than one image has this name" in command.run("show", "twice", status=1)
    assert command.run("create", "x", "--file", "/nonexistent", status=2).startswith("mover: image create: --file")
    command.run("create", "x", "--property", "nothing", status=2)
    command.run("create", "x", "--disk-format", "floppy", status=1)
    assert "415" in command.run("create", "x", "--file", command.file, "--disk-format", "qcow2", status=1)
    unreachable = command.run("list", "--url=http://127.0.0.1:1", status=3)
    assert unreachable.startswith("mover: image list: list images:")

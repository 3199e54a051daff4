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

from mover.cli.main import main
from mover.client.library import Library
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


def test_a_full_disk_is_not_the_servers_fault(command: Command) -> None:
    """Status 1, not 3, and how to go on."""
    command.json("create", "too large", "--file", command.file)
    program = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    program += "resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20)); "
    program += "from mover.cli.main import main; sys.exit(main(sys.argv[1:]))"
    copy = command.directory / "too-large"
    words = ["image", "download", f"--url=http://127.0.0.1:{command.mover.tcp[1]}", "too large", str(copy)]
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith(f"write {copy}.part: File too large: make room, and go on with --resume\n")
    command.run("download", "--resume", "too large", copy)
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


def test_stores_are_listed(command: Command) -> None:
    """As people and as machines read it: id, kind, which one is the default, and what each can do."""
    lines = [line.split() for line in command.run("stores").splitlines()]
    assert lines[0] == ["ID", "KIND", "USE", "CAPABILITIES", "DESCRIPTION"]
    assert [line[:3] for line in lines[1:]] == [["file", "file", "default"], ["http", "http", "read"]]
    kinds = {store["id"]: (store["type"], store.get("default")) for store in command.json("stores")}
    assert kinds == {"file": ("file", "true"), "http": ("http", None)}


def test_an_image_of_any_name_is_listed_and_shown(command: Command) -> None:
    """Markup and what a terminal obeys, by which one tenant could spoil another one's list, stand there as text."""
    for name, shown in (("[/x]", "[/x]"), ("\x1b[31mred", "\\x1b[31mred"), ('a"b\\', 'a"b\\')):
        image = command.json("create", name)
        assert shown in command.run("show", image["id"])
        assert shown in command.run("list")
        command.run("delete", name)


def test_no_name_is_no_image(command: Command) -> None:
    """An empty word, as of a variable that is not set, names nothing: least of all the list of all images."""
    for action in ("show", "delete", "jobs"):
        assert "no image has this id or name" in command.run(action, "", status=1)


def test_an_image_that_was_refused_is_not_left_behind(command: Command) -> None:
    """`create --file` makes an image for the data: data that are refused leave none; nor does a file that is none."""
    command.run("create", "refused", "--file", command.file, "--disk-format", "qcow2", status=1)
    assert "it is no file" in command.run("create", "refused", "--file", command.directory, status=2)
    assert command.json("list", "--name", "refused") == []


def test_what_is_interrupted_says_how_to_go_on(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while data move: status 130, and what does the rest."""
    image = command.json("create", "interrupted")["id"]
    command.json("create", "whole", "--file", command.file)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Library, "upload", interrupted)
    monkeypatch.setattr(Library, "download", interrupted)
    url = f"--url=http://127.0.0.1:{command.mover.tcp[1]}"
    said = {}
    for words in (
        ["upload", image, command.file],
        ["download", "whole", "x"],
        ["create", "new", "--file", command.file],
    ):
        assert main(["image", str(words[0]), url, *map(str, words[1:])]) == 130
        said[words[0]] = capsys.readouterr().err.splitlines()[-1]
    assert said["upload"] == "mover: image upload: interrupted: go on with: the same command, with --resume"
    assert said["download"] == "mover: image download: interrupted: go on with: the same command, with --resume"
    made = command.json("show", "new")["id"]
    again = f"mover: image create: interrupted: go on with: mover image upload --resume {made} {command.file}"
    assert said["create"].startswith(again)


def test_going_on_after_create_was_interrupted_needs_no_other_words(command: Command) -> None:
    """An image without any data yet is uploaded with --resume, too."""
    image = command.json("create", "without data")["id"]
    assert command.json("upload", "--resume", image, command.file)["status"] == "active"

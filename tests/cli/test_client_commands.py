"""The commands of the client's side, as programs: what they print, and what they end with."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.conftest import DISK_BYTES, Served, assert_same_disk, served, url
from tests.client.program import run
from tests.harness.mover import ROOT
from tests.harness.patterns import MIB

pytestmark = pytest.mark.nbd

__all__ = ["served"]


def test_download_says_what_it_did(served: Served, room: Path) -> None:
    """In the last line on standard error, and nothing on standard output."""
    status, output, errors = run("download", url(served.mover), room / "copy.qcow2", "--verify")
    assert (status, output) == (0, "")
    told = errors.splitlines()[-1]  # before it, progress, if the host is busy
    assert re.fullmatch(r"mover: download of .*copy\.qcow2: 64\.0 MiB, .* flushed; verified, blake2b \w+", told), errors
    assert_same_disk(room / "copy.qcow2", served.source, "qcow2")


def test_json_events(served: Served, room: Path) -> None:
    """Every line is an object; the last one is the end, good or bad."""
    _, output, _ = run("download", url(served.mover), room / "copy", "--json")
    events = [json.loads(line) for line in output.splitlines()]
    assert [event["event"] for event in events[:-1]] == ["progress"] * (len(events) - 1)
    assert events[-1]["event"] == "done"
    assert events[-1]["size"] == DISK_BYTES
    status, output, errors = run("download", url(served.mover, "nobody"), room / "copy", "--json")
    last = json.loads(output.splitlines()[-1])
    assert (status, last["event"], last["error"], last["status"]) == (1, "error", "RefusedError", 404)
    assert errors.startswith("mover: download: ")


def test_standard_output_is_the_image(served: Served) -> None:
    """`-` streams it."""
    command = [sys.executable, "-m", "mover", "download", url(served.mover, "small"), "-"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert done.stdout == (served.room / "small").read_bytes()


def test_a_bar_on_a_terminal(served: Served, room: Path) -> None:
    """With how much, how fast, and what sparseness saves."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "mover", "download", url(served.mover), str(room / "copy"), "--bandwidth=20MiB"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "160"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        seen = b""
        try:
            while piece := os.read(master, 65536):
                seen += piece
        except OSError:
            pass  # the terminal's other end is closed
    os.close(master)
    assert process.returncode == 0
    assert b"MiB/s" in seen
    assert b"saved" in seen


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["download", "http://127.0.0.1:1/images/x", "FILE", "--retry-for=0"], 3, "cannot connect"),
        (["download", "ftp://x/y", "FILE"], 2, "neither http:// nor https://"),
        (["download", "URL", "FILE", "--max-workers=0"], 2, "from 1 to 64"),
        (["download", "URL", "FILE", "--buffer-size=1"], 2, "from 64KiB to 64MiB"),
        (["download", "URL", "-", "--resume"], 2, "use a file"),
        (["download", "URL", "-", "--format=qcow2"], 2, "a stream is raw"),
        (["upload", "/nowhere", "URL"], 1, "No such file"),
        (["download", "URL", "FILE", "--key-file=x"], 2, "a key needs its certificate"),
        (["download", "URL", "FILE", "--token-file=/nowhere"], 2, "/nowhere"),
        (["extents", "URL", "--context=dirty"], 1, "404"),
        (["checksum", "URL", "--compare=OTHER"], 4, "verification of"),
        (["checksum", "FILE", "--algorithm=none"], 2, "--algorithm none"),
        (["checksum", "URL", "--algorithm=none"], 1, "400"),
        (["checksum", "URL", "--compare=OTHER", "--algorithm=none"], 2, "--algorithm none"),
        (["checksum", "FILE", "--algorithm=shake_128"], 2, "has no length of its own"),
        (["checksum", "URL", "--compare=OTHER", "--block-size=1000"], 1, "400 blocks of 1000 bytes"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_status(
    arguments: list[str], status: int, says: str, served: Served, room: Path
) -> None:
    """As the table of exit statuses has it."""
    (room / "other").write_bytes(b"x" * MIB)
    places = {"URL": url(served.mover), "FILE": str(room / "other"), "OTHER": str(room / "other")}
    line = [re.sub("URL|FILE|OTHER", lambda match: places[match[0]], argument) for argument in arguments]
    found, output, errors = run(*line)
    assert (found, output) == (status, ""), errors
    assert errors.startswith("mover: ")
    assert errors.count("\n") == 1
    assert says in errors


def test_info_extents_checksum_measure(served: Served) -> None:
    """Each in words and as JSON."""
    assert f"size:          {DISK_BYTES} " in run("info", url(served.mover))[1]
    info = json.loads(run("info", url(served.mover), "--json")[1])
    assert info["data"] + info["zero"] == info["size"] == DISK_BYTES
    extents = json.loads(run("extents", url(served.mover), "--json")[1])
    assert sum(extent["length"] for extent in extents) == DISK_BYTES
    assert len(run("extents", url(served.mover))[1].splitlines()) == len(extents) == info["extents"]
    ours, theirs = (run("checksum", what)[1] for what in (str(served.source), url(served.mover)))
    assert ours == theirs
    how = ("--algorithm=sha256", "--block-size=1MiB", "--json")
    compared = run("checksum", url(served.mover), "--compare", served.source, *how)
    assert compared[0] == 0
    found = json.loads(compared[1])
    assert (found["algorithm"], found["block_size"]) == ("sha256", MIB)
    assert found == json.loads(run("checksum", url(served.mover), *how)[1])


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
@pytest.mark.parametrize("image", ["disk", "empty", "thick", "odd-5242897"])
def test_measure_is_what_qemu_img_measures(image: str, image_format: str, served: Served) -> None:
    """Of the same export; what raw files require has holes for qemu-img, and none for us."""
    ours = json.loads(run("measure", url(served.mover, image), "--format", image_format, "--json")[1])
    socket = served.room / f"{'qemu-source' if image == 'disk' else image}.nbd"
    command = ["qemu-img", "measure", "--output=json", "-f", "raw", "-O", image_format, f"nbd+unix:///?socket={socket}"]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    # NBD has no bytes after the last whole sector for qemu.
    sector = ours["size"] % 512 and 512
    assert abs(ours["fully_allocated"] - theirs["fully-allocated"]) <= sector
    if image_format == "qcow2":
        assert abs(ours["required"] - theirs["required"]) <= sector


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_for_the_shell(shell: str) -> None:
    """It knows every command and its options."""
    status, output, _ = run("completion", shell)
    assert status == 0
    for word in ("download", "--bandwidth", "--context", "incremental", "serve"):
        assert word in output


def test_bash_completes(tmp_path: Path) -> None:
    """The script, loaded by bash, offers what begins so."""
    script = tmp_path / "completion"
    script.write_text(run("completion", "bash")[1])
    program = f"source {script}; COMP_WORDS=(mover down); COMP_CWORD=1; _shtab_mover; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "download", done


@pytest.mark.parametrize("command", ["download", "upload", "info", "extents", "checksum", "measure", "completion"])
def test_help_has_an_example(command: str) -> None:
    """That begins with the command."""
    assert f"\nexample:\n  mover {command} " in run(command, "--help")[1]

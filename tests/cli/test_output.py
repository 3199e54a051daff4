"""What `mover` prints, wherever that goes: names that are anybody's, outputs that end, errors for machines."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mover.cli import tables
from mover.cli.main import _parser
from tests.harness.mover import ROOT

MOVER = (sys.executable, "-m", "mover")
EMPTY = "--config=/dev/null"
NOWHERE = "http://127.0.0.1:1"


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every command that does something."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner and parser.add_help:  # the bench has a parser of its own
        yield parser
    for action in inner:
        for each in action.choices.values():
            yield from leaves(each)


def test_every_argument_has_a_sentence_and_every_command_an_example() -> None:
    """And what there is by default is said."""
    wanting = []
    for parser in leaves(_parser()):
        if f"example:\n  {parser.prog}" not in f"{parser.description}{parser.epilog}":
            wanting.append(f"{parser.prog}: no example")
        for action in parser._actions:
            says = action.help or ""
            if not says:
                wanting.append(f"{parser.prog} {action.dest}: no help")
            if action.default not in (None, False, argparse.SUPPRESS) and action.default and "default" not in says:
                wanting.append(f"{parser.prog} {action.dest}: no default")
    assert wanting == []


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """They may be another tenant's: no markup in them counts, and nothing that a terminal would obey is sent to it."""
    tables.print_table(["NAME"], [["[/x]"], ["[bold]b[/bold]"], ["\x1b[31mred\x07"], ["two\nlines"], ["ünï 名"]])
    shown = capsys.readouterr().out.splitlines()[1:]
    assert shown == ["[/x]", "[bold]b[/bold]", "\\x1b[31mred\\x07", "two\\nlines", "ünï 名"]


def test_a_narrow_terminal_keeps_ids_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """They are what the next command needs; the other columns are wrapped or cut."""
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", "80"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    row = ["fa527a96-af32-4d4c-9cc4-dd040ad40cae", *(f"column {number}" * 3 for number in range(6))]
    tables.print_table(["ID", *"ABCDEF"], [row])
    shown = re.sub("\x1b[^m]*m", "", capsys.readouterr().out)
    assert row[0] in shown
    assert max(map(len, shown.splitlines())) <= 80


# Each prints something to standard output.
PRINTING = [("--help",), ("config", "show", EMPTY)]


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_a_reader_that_leaves_ends_it_quietly(command: tuple[str, ...]) -> None:
    """As `| head -1` does: status 1, and nothing is said."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*MOVER, *command], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
@pytest.mark.parametrize("output", ["full", "closed"])
def test_an_output_that_takes_nothing_is_one_line(output: str, command: tuple[str, ...]) -> None:
    """A full disk, and a standard output that the shell has closed: no traceback, and what the system said."""
    shell = 'exec "$@" >/dev/full' if output == "full" else 'exec "$@" >&-'
    done = subprocess.run(["sh", "-c", shell, "sh", *MOVER, *command], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    why = {"full": "No space left on device", "closed": "Bad file descriptor"}[output]
    assert done.returncode == 1
    assert done.stderr.endswith(f": writing the output: {why}: see where it goes\n")
    assert done.stderr.count("\n") == 1


def test_a_closed_output_is_no_place_for_the_next_socket(tmp_path: Path) -> None:
    """What is opened first would have its number, and be sent what is printed."""
    program = "import os, sys; from mover.cli.streams import have_streams; have_streams(); "
    program += "print(os.open('/dev/null', 0), file=sys.stderr)"
    command = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True)
    assert int(done.stderr) > 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
@pytest.mark.parametrize("command", [("image", "list", "--url"), ("info", "--unix-socket=none")], ids=["image", "info"])
def test_a_command_that_waits_is_interrupted(command: tuple[str, ...], number: signal.Signals) -> None:
    """By Ctrl-C and SIGTERM alike: status 130, one line."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}" + ("/images/x" if command[0] == "info" else "")
        with subprocess.Popen([*MOVER, *command, url], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = listener.accept()
            with connection:
                process.send_signal(number)
                _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith(f"mover: {command[0]}") and said.endswith(": interrupted: run it again\n"), said


FAILING: list[tuple[int, list[str]]] = [
    (3, ["image", "list", f"--url={NOWHERE}"]),
    (2, ["image", "list", "--url=ftp://x"]),
    (2, ["image", "list", "--url=http://user:secret@x"]),
    (2, ["image", "list", "--url=http://x/library"]),
    (2, ["image", "list", "--url=https://x", "--ca-file=/nowhere"]),
    (2, ["image", "list", "--limit=-1"]),
    (2, ["image", "create", "x", "--file=/nowhere"]),
    (2, ["image", "upload", "x", "/"]),
    (3, ["info", f"{NOWHERE}/images/x", "--retry-for=0"]),
    (3, ["extents", f"{NOWHERE}/images/x", "--retry-for=0"]),
    (1, ["checksum", "/nowhere"]),
    (3, ["download", f"{NOWHERE}/images/x", "/nowhere/x", "--retry-for=0"]),
    (3, ["upload", "/dev/null", f"{NOWHERE}/images/x", "--retry-for=0"]),
    (2, ["measure", "nothing"]),
    (3, ["status", "--socket=/nowhere"]),
    (2, ["status", EMPTY]),
    (3, ["ticket", "list", "--socket=/nowhere"]),
    (2, ["ticket", "list", EMPTY]),
    (1, ["token", "remove", "none", EMPTY, "--state-dir={}"]),
    (1, ["backup", "list", "--repo=/nowhere"]),
    (2, ["backup", "full", f"{NOWHERE}/images/x", "--repo={}", "--name=x"]),
    (3, ["backup", "full", f"{NOWHERE}/images/x", "--repo={}", "--name=x/y", "--retry-for=0"]),
    (2, ["bench", "--nothing"]),
]


@pytest.mark.parametrize(
    ("status", "command"), FAILING, ids=lambda value: None if isinstance(value, int) else "-".join(value[:2])
)
def test_an_error_is_an_object_for_machines_and_a_line_for_people(
    status: int,
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    main: Callable[[list[str]], int],
) -> None:
    """With --json, whatever the command: the last line of standard output, with the exit status and the same words."""
    assert main([word.replace("{}", str(tmp_path)) for word in command] + ["--json"]) == status
    output, errors = capsys.readouterr()
    event = json.loads(output.splitlines()[-1])
    assert (event["event"], event["status_code"]) == ("error", status)
    assert errors == f"mover: {event['message']}\n"
    assert event["message"].startswith(command[0])
    assert "secret" not in output + errors


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """The program, without what the environment may say."""
    for name in list(os.environ):
        if name.startswith(("MOVER_", "OS_")):
            monkeypatch.delenv(name)
    from mover.cli.main import main

    return main

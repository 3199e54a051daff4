"""`mover` as a program: its help, its statuses, its one line of error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from config.values import SECTIONS
from tests.harness.waiting import PROGRAM_S

ROOT = Path(__file__).parents[2]


def mover(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m mover ARGUMENTS` to its end, with MOVER_* variables of ours only."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MOVER_")}
    command = [sys.executable, "-m", "mover", *arguments]
    return subprocess.run(
        command, env=clean | environ, cwd=ROOT, text=True, capture_output=True, timeout=PROGRAM_S, check=False
    )


@pytest.fixture
def empty_config(tmp_path: Path) -> Path:
    """A file for --config, so that the host's own file plays no part."""
    path = tmp_path / "empty.toml"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--help"], ["serve", "bench", "config", "example:"]),
        (
            ["serve", "--help"],
            [
                "--image ID=URL",
                "--unix-socket PATH",
                "--control-socket PATH",
                "--ticket-socket PATH",
                "--transfer-dir DIR",
                "0 takes a free one",
                "example:",
            ],
        ),
        (["config", "--help"], ["show", "check", "example:"]),
    ],
)
def test_help_lists_what_works(arguments: list[str], told: list[str]) -> None:
    """Help says what there is, with an example, and nothing that is not there yet."""
    result = mover(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert [part for part in told if part not in result.stdout] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "mover: command line: the following arguments are required: COMMAND"),
        (["frobnicate"], "mover: command line: argument COMMAND: invalid choice: 'frobnicate'"),
        (["config"], "mover: config: the following arguments are required: ACTION"),
        (["serve", "--frobnicate"], "mover: serve: unrecognized arguments: --frobnicate"),
        (["serve", "--por", "0"], "mover: serve: unrecognized arguments: --por 0"),
        (["serve", "--port"], "mover: serve: argument --port: expected one argument"),
        (["serve", "--port", "x"], "mover: configuration: --port: serve.port = 'x': must be a whole number"),
        (["serve", "--log-format", "xml"], "mover: configuration: --log-format: log.format = 'xml': must be one of"),
        (["serve", "--image", "x"], "mover: configuration: --image: 'x': must be ID=URL"),
        (["serve", "--image", "../x=nbd://h/"], "mover: configuration: --image: image id '../x': must be one path"),
        (["serve", "--image", "x=http://h/d"], "mover: configuration: --image: image 'x': export URL 'http://h/d': "),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], told: str, empty_config: Path) -> None:
    """What was wrong, and no usage text, no traceback."""
    config = ["--config", str(empty_config)] if arguments[:1] == ["serve"] else []
    result = mover(*arguments, *config)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(told)
    assert result.stderr.count("\n") == 1


def test_an_unreadable_file_is_status_3(tmp_path: Path) -> None:
    """A file that cannot be read is a start that failed, not a wrong configuration."""
    for command in (["serve"], ["config", "check"], ["config", "show"]):
        result = mover(*command, "--config", str(tmp_path / "nowhere.toml"))
        assert (result.returncode, result.stdout) == (3, "")
        assert result.stderr.startswith(f"mover: configuration: {tmp_path}/nowhere.toml: cannot be read (No such file")


def test_a_missing_libnbd_is_status_3_and_names_the_package(empty_config: Path) -> None:
    """Without libnbd's binding `serve` does not start, and says which package has it."""
    # None in sys.modules is how Python itself marks what is not to be found.
    code = "import sys; sys.modules['libnbdmod'] = None; from mover.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", "--config", str(empty_config)]
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=PROGRAM_S, check=False)
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith("mover: serve: libnbd's Python binding is missing: install it with `apt-get")
    assert "python3-libnbd" in result.stderr


def test_check_says_ok_for_a_good_file(empty_config: Path) -> None:
    """`config check` of what can be used prints ok."""
    result = mover("config", "check", "--config", str(empty_config))
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


def test_check_counts_the_environment(empty_config: Path) -> None:
    """`config check` checks what `serve` would use, MOVER_* variables too."""
    result = mover("config", "check", "--config", str(empty_config), MOVER_SERVE_PORT="-1")
    assert result.returncode == 2
    assert result.stderr.startswith("mover: configuration: environment variable MOVER_SERVE_PORT: serve.port = '-1'")


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    """`config check` of what cannot be used says why, with status 2."""
    file = tmp_path / "bad.toml"
    file.write_text("[serve]\nprot = 1\n")
    result = mover("config", "check", "--config", str(file))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"mover: configuration: {file}: unknown key 'prot' in section [serve]: known are")


def test_show_prints_every_setting_with_its_documentation(empty_config: Path) -> None:
    """Each setting is there, in TOML, under a comment."""
    result = mover("config", "show", "--config", str(empty_config))
    assert (result.returncode, result.stderr) == (0, "")
    shown = tomllib.loads(result.stdout)
    tables = {section: tuple(table) for section, table in shown.items() if isinstance(table, dict)}
    assert tables == {section: struct.__struct_fields__ for section, struct in SECTIONS.items()}
    # A store's kind stands in its table's documentation.
    lines = [line for line in result.stdout.splitlines() if not line.startswith("type = ")]
    bare = [line for above, line in pairwise(lines) if re.match(r"\w+ = ", line) and not above.startswith("#")]
    assert bare == []


def test_the_command_line_is_quick_to_load() -> None:
    """Neither Sanic nor asyncio nor libnbd is loaded before a command needs it."""
    code = (
        "import sys, mover.cli.main; print([m for m in ('sanic', 'asyncio', 'nbd', 'libnbdmod') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=PROGRAM_S, check=True
    )
    assert result.stdout == "[]\n"


def test_output_that_nobody_reads_any_more_is_no_error(empty_config: Path) -> None:
    """As of `mover config show | head`: status 1, and not a word."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mover", "config", "show", "--config", str(empty_config)]
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(
            command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True, timeout=PROGRAM_S, check=False
        )
    assert (done.returncode, done.stderr) == (1, "")

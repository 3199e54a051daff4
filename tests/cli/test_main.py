"""`mover.cli.main.main`: what subcommands get, and what becomes of their end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from config.settings import Image, Settings
from mover.cli.main import main


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, **functions: object) -> None:
    """Puts a module of `functions` in the place of `module`, which is then never imported."""
    fake = ModuleType(module)
    vars(fake).update(functions)
    monkeypatch.setitem(sys.modules, module, fake)


@pytest.fixture(autouse=True)
def _no_settings_of_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("config.load.DEFAULT_FILE", tmp_path / "absent.toml")
    monkeypatch.setattr("mover.cli.serve_command.find_spec", lambda name: object())


def test_bench_gets_the_rest_of_the_line_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench reads its own arguments, --help too, and its status is the program's."""
    seen: list[list[str]] = []

    def bench(argv: list[str]) -> int:
        seen.append(argv)
        return 4

    stand_in(monkeypatch, "mover.bench.main", main=bench)
    assert main(["bench", "get", "--size", "1GiB", "--help"]) == 4
    assert seen == [["get", "--size", "1GiB", "--help"]]


def test_serve_gets_the_settings_of_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flag of `serve` reaches the setting of its name, and the status is the program's."""
    seen: list[Settings] = []

    def serve(settings: Settings, reread: Callable[[], Settings]) -> int:
        seen.append(settings)
        assert reread() == settings  # SIGHUP reads what the start has read
        return 3

    stand_in(monkeypatch, "mover.serve.main", serve=serve)
    flags = "--listen ::1 --port 0 --unix-socket /run/m.sock --front-ends 3 --state-dir /s --log-level debug"
    images = ["--image", "a=nbd://h/x", "--image=b=nbd://h/y"]
    assert main(["serve", *flags.split(), "--log-format", "json", *images]) == 3
    [settings] = seen
    given = settings.serve
    assert (given.listen, given.port, given.unix_socket) == ("::1", 0, "/run/m.sock")
    assert (given.front_ends, given.state_dir) == (3, "/s")
    assert (settings.log.level, settings.log.format) == ("debug", "json")
    assert settings.image == [Image(id="a", url="nbd://h/x"), Image(id="b", url="nbd://h/y")]


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends a command without a traceback."""

    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    stand_in(monkeypatch, "mover.bench.main", main=interrupted)
    assert main(["bench"]) == 130
    assert capsys.readouterr().err == "mover: bench: interrupted: run it again\n"

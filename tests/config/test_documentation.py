"""The documentation of settings: every one has it, and the file that `mover config show` prints is a file to use."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from config.documentation import commented_toml, comments, documentation
from config.load import load, load_with_origins
from config.settings import Image, ServeSettings
from config.values import SECTIONS, as_toml


@pytest.mark.parametrize("struct", [*SECTIONS.values(), Image])
def test_every_setting_is_documented(struct: type[msgspec.Struct]) -> None:
    """No field of config/settings.py stands without a comment that ends in a full stop."""
    undocumented = [name for name, lines in comments(struct).items() if not " ".join(lines).endswith((".", "..."))]
    assert undocumented == []
    assert tuple(comments(struct)) == struct.__struct_fields__


def test_documentation_is_the_comment_above_the_field() -> None:
    """A comment of two lines is one text; the field before it ends it."""
    assert comments(ServeSettings)["port"] == ["Port of the TCP listener; 0 takes a free one and prints it."]
    assert documentation("serve.state_dir").endswith("empty is /var/lib/mover as root, else $XDG_STATE_HOME/mover.")


def test_what_is_shown_can_be_loaded(tmp_path: Path) -> None:
    """The printed settings, given as a file, are the same settings."""
    flags = {
        "serve.port": "7",
        "log.level": "debug",
        "front.cors_origin": 'a "quoted"\\\x7f\t\n é',
        "serve.drain_s": "1e-5",
    }
    loaded = load_with_origins(flags, {}, None, ["a=nbd://h/x", 'b"=nbd:unix:/run/b'])
    file = tmp_path / "shown.toml"
    file.write_text("\n".join(commented_toml(loaded.settings, loaded.origins)))
    assert load({}, {}, file) == loaded.settings


def test_what_is_shown_tells_who_gave_a_value() -> None:
    """Beside a value stands the flag, variable or file it comes from, or that it is the default."""
    loaded = load_with_origins({"serve.port": "7"}, {"MOVER_LOG_LEVEL": "debug"}, None)
    lines = list(commented_toml(loaded.settings, loaded.origins))
    assert lines[lines.index("port = 7") - 1].endswith("From: --port.")
    assert lines[lines.index('level = "debug"') - 1].endswith("From: environment variable MOVER_LOG_LEVEL.")
    assert lines[lines.index('format = "text"') - 1].endswith("From: the default.")


@pytest.mark.parametrize("value", ["", "é\x7f\0\\'\"\n", "# no comment", True, False, 0, -1, 1.5, 1e-7, 86400.0])
def test_values_are_written_as_toml_reads_them(value: str | bool | int | float) -> None:
    """A value comes back from TOML as it went in, and of the same type."""
    [back] = tomllib.loads(f"x = {as_toml(value)}").values()
    assert (type(back), back) == (type(value), value)

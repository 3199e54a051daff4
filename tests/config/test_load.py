"""Loading settings: who overrides whom, and what every mistake is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from config import load as load_module
from config.errors import ConfigError, ConfigUnreadableError
from config.load import flag_of, load, load_with_origins
from config.settings import Image, Settings


@pytest.fixture(autouse=True)
def default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /etc/mover/mover.toml, so that the host's own file plays no part. It does not exist yet."""
    path = tmp_path / "default.toml"
    monkeypatch.setattr(load_module, "DEFAULT_FILE", path)
    return path


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A configuration file for --config; empty."""
    path = tmp_path / "mover.toml"
    path.touch()
    return path


def test_nothing_given_is_the_defaults() -> None:
    """Without a file, variables and flags, every setting has its default, but those that the host decides."""
    settings = load({}, {}, None)
    default = Settings()
    assert (settings.log, settings.front, settings.worker) == (default.log, default.front, default.worker)
    assert (settings.supervisor, settings.image) == (default.supervisor, [])
    assert settings.serve.listen == "127.0.0.1"


def test_a_later_source_overrides_an_earlier_one(config_file: Path) -> None:
    """A flag beats the environment, that beats the file, that beats the default; what nobody gave stays."""
    config_file.write_text("[serve]\nport = 1\ndrain_s = 2\nfront_ends = 3\n")
    environ = {"MOVER_SERVE_PORT": "4", "MOVER_SERVE_DRAIN_S": "5.5"}
    loaded = load_with_origins({"serve.port": "6"}, environ, config_file)
    serve = loaded.settings.serve
    assert (serve.port, serve.drain_s, serve.front_ends, serve.listen) == (6, 5.5, 3, "127.0.0.1")
    assert loaded.origins == {
        "serve.port": "--port",
        "serve.drain_s": "environment variable MOVER_SERVE_DRAIN_S",
        "serve.front_ends": str(config_file),
    }


def test_the_default_file_is_read_if_it_is_there(default_file: Path) -> None:
    """/etc/mover/mover.toml counts without --config."""
    default_file.write_text("[log]\nlevel = 'debug'\n")
    assert load({}, {}, None).log.level == "debug"


def test_a_file_that_is_named_replaces_the_default_file(default_file: Path, config_file: Path) -> None:
    """With --config, /etc/mover/mover.toml is not read at all."""
    default_file.write_text("[log]\nlevel = 'debug'\n")
    assert load({}, {}, config_file).log.level == "info"


def test_the_default_file_that_cannot_be_read_is_an_error(default_file: Path) -> None:
    """A default file that is there but unreadable is not passed over."""
    default_file.mkdir()
    with pytest.raises(ConfigUnreadableError, match=str(default_file)):
        load({}, {}, None)


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """--config with a file that is not there is told as such, apart from bad content."""
    with pytest.raises(ConfigUnreadableError, match="No such file"):
        load({}, {}, tmp_path / "nowhere.toml")


def test_a_section_that_is_not_given_keeps_its_defaults(config_file: Path) -> None:
    """A file need not hold a table of every section."""
    config_file.write_text("[worker]\nconnections = 4\n")
    settings = load({}, {}, config_file)
    assert (settings.worker.connections, settings.front) == (4, Settings().front)


def test_front_ends_default_to_half_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 front ends means half the cores, and at least one."""
    counts = []
    for cores in (1, 2, 3, 16):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        counts.append(load({}, {}, None).serve.front_ends)
    assert counts == [1, 1, 1, 8]


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {"XDG_STATE_HOME": "/state"}, "/var/lib/mover"),
        (1000, {"XDG_STATE_HOME": "/state"}, "/state/mover"),
        (1000, {}, "/home/somebody/.local/state/mover"),
        (1000, {"XDG_STATE_HOME": "relative"}, "/home/somebody/.local/state/mover"),
    ],
)
def test_state_dir_defaults_to_the_users_place(
    uid: int, environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State rests in /var/lib/mover as root, else in the user's state directory."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load({}, environ, None).serve.state_dir == expected


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths mean what they meant where the command was given, wherever a process goes later."""
    monkeypatch.chdir(tmp_path)
    serve = load({"serve.unix_socket": "a.sock", "serve.state_dir": "state"}, {}, None).serve
    assert (serve.unix_socket, serve.state_dir) == (str(tmp_path / "a.sock"), str(tmp_path / "state"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("port = \n", ["is not TOML", "line 1"]),
        ("[server]\n", ["unknown section or key 'server'", "[serve], [tls], [log]"]),
        ("port = 1\n", ["unknown section or key 'port'"]),
        ("serve = 1\n", ["serve = 1", "must be a table, [serve]"]),
        ("[serve]\nprot = 1\n", ["unknown key 'prot'", "[serve]", "known are listen, port"]),
        ("[serve]\nport = 65536\n", ["serve.port = 65536", "of at least 0 and at most 65535"]),
        ("[serve]\nport = '80'\n", ["serve.port = '80'", "a whole number"]),
        ("[serve]\nlisten = ''\n", ["serve.listen = ''", "text that is not empty"]),
        ("[serve]\ndrain_s = 0\n", ["serve.drain_s = 0", "a number above 0 and at most 86400"]),
        ("[serve]\ndrain_s = inf\n", ["serve.drain_s = inf", "at most 86400"]),
        ("[serve]\ndrain_s = nan\n", ["serve.drain_s = nan", "a number above 0"]),
        ("[serve]\nunix_socket = '/a\\u0000'\n".replace("'", '"'), ["serve.unix_socket", "NUL"]),
        ("[serve]\nunix_socket = '/" + 107 * "a" + "'\n", ["serve.unix_socket", "108 bytes", "at most 107"]),
        ("[log]\nlevel = 'loud'\n", ["log.level = 'loud'", "one of debug, error, info, warning"]),
        ("[worker]\nwarm_allocator = 1\n", ["worker.warm_allocator = 1", "true or false"]),
        ("[front]\nslot_bytes = 65537\n", ["front.slot_bytes = 65537", "a multiple of 4096"]),
        ("[front]\nslots = 8\nrequest_slots = 9\n", ["front.request_slots = 9", "at most front.slots, which is 8"]),
        ("[supervisor]\narena_limit_bytes = 4096\n", ["arena_limit_bytes = 4096", "at least one arena"]),
        ("image = 1\n", ["[[image]]", "Expected `array`"]),
        ("[[image]]\nid = 'a'\n", ["[[image]]", "missing required field `url`"]),
        ("[[image]]\nid = 'a'\nurl = 'nbd://h/'\nops = 1\n", ["[[image]]", "unknown field `ops`"]),
        ("[[image]]\nid = '..'\nurl = 'nbd://h/'\n", ["image id '..'", "must not be"]),
        ("[[image]]\nid = 'a'\nurl = 'http://h/'\n", ["image 'a'", "'http://h/'", "must be one of"]),
        (2 * "[[image]]\nid = 'a'\nurl = 'nbd://h/'\n", ["image 'a'", "is given twice"]),
    ],
)
def test_a_mistake_in_the_file_is_told_in_one_line(content: str, told: list[str], config_file: Path) -> None:
    """The error names the file, the key, the value and what is allowed."""
    config_file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load({}, {}, config_file)
    text = str(caught.value)
    assert text.startswith(f"{config_file}: ")
    assert "\n" not in text
    assert [part for part in told if part not in text] == []


def test_an_error_is_one_line_whatever_the_files_name(tmp_path: Path) -> None:
    """A file name with a line break does not break the line."""
    file = tmp_path / "two\nlines.toml"
    file.write_text("port = 1\n")
    with pytest.raises(ConfigError) as caught:
        load({}, {}, file)
    assert "two lines.toml: unknown" in str(caught.value)


def test_a_file_that_is_not_utf8_is_not_toml(config_file: Path) -> None:
    """Bytes that are no text at all are bad content, not a crash."""
    config_file.write_bytes(b"[serve]\nlisten = '\xff'\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        load({}, {}, config_file)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"MOVER_SERVE_PORT": "ten"}, ["MOVER_SERVE_PORT", "serve.port = 'ten'", "a whole number"]),
        ({"MOVER_SERVE_PROT": "1"}, ["MOVER_SERVE_PROT", "unknown key 'prot'"]),
        ({"MOVER_PORT": "1"}, ["MOVER_PORT", "unknown section 'port'"]),
        ({"MOVER_SERVE": "1"}, ["MOVER_SERVE", "unknown key ''"]),
        ({"MOVER_IMAGE_ID": "a"}, ["MOVER_IMAGE_ID", "unknown section 'image'"]),
        ({"MOVER_WORKER_WARM_ALLOCATOR": "maybe"}, ["MOVER_WORKER_WARM_ALLOCATOR", "true or false"]),
    ],
)
def test_a_mistake_in_the_environment_is_told(environ: dict[str, str], told: list[str]) -> None:
    """The error names the variable; one that is unknown is a mistake too."""
    with pytest.raises(ConfigError) as caught:
        load({}, environ, None)
    assert [part for part in told if part not in str(caught.value)] == []


def test_numbers_and_switches_are_read_from_the_environment() -> None:
    """The environment has only text; it is read as what the setting is."""
    environ = {"MOVER_SERVE_PORT": "0", "MOVER_FRONT_OPEN_S": "1.5", "MOVER_WORKER_WARM_ALLOCATOR": "false", "PATH": ""}
    settings = load({}, environ, None)
    assert (settings.serve.port, settings.front.open_s, settings.worker.warm_allocator) == (0, 1.5, False)


def test_a_bad_flag_is_told_by_its_own_name() -> None:
    """Somebody who gave `--port` is not told about `serve.port` alone."""
    with pytest.raises(ConfigError, match=r"^--port: serve\.port = '-1': must be a whole number"):
        load({"serve.port": "-1"}, {}, None)


def test_a_relation_is_told_to_who_broke_it() -> None:
    """Where two settings contradict, the error names the one that somebody gave."""
    with pytest.raises(ConfigError, match=r"^environment variable MOVER_FRONT_SLOTS: front\.request_slots = 8"):
        load({}, {"MOVER_FRONT_SLOTS": "4"}, None)


def test_images_of_flags_join_those_of_the_file(config_file: Path) -> None:
    """--image adds to the file's images, and replaces the one of the same id."""
    config_file.write_text("[[image]]\nid='a'\nurl='nbd://one/'\n[[image]]\nid='b'\nurl='nbd://two/'\n")
    images = load({}, {}, config_file, ["b=nbd://three/x=y", "c=nbd://four/"]).image
    assert images == [
        Image(id="a", url="nbd://one/"),
        Image(id="b", url="nbd://three/x=y"),
        Image(id="c", url="nbd://four/"),
    ]


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (["a"], "must be ID=URL"),
        (["=nbd://h/"], "image id '': must not be empty"),
        (["a/b=nbd://h/"], "one path segment"),
        (["a\\b=nbd://h/"], "one path segment"),
        (["a\0=nbd://h/"], "one path segment"),
        ([".=nbd://h/"], r"must not be '\.' or '\.\.'"),
        ([128 * "é" + "=nbd://h/"], "is 256 bytes long, at most 255"),
        (["\udcff=nbd://h/"], "valid UTF-8"),
        (["a=nbd://h/", "a=nbd://h/"], "--image: image 'a': is given twice"),
    ],
)
def test_a_bad_image_flag_is_told(images: list[str], told: str) -> None:
    """An id that is no path segment, a URL that names no export, and an id given twice are errors."""
    with pytest.raises(ConfigError, match=told):
        load({}, {}, None, images)


def test_the_longest_id_is_accepted() -> None:
    """255 bytes are allowed, and dots within."""
    longest = "a.." + 126 * "é"
    assert [image.id for image in load({}, {}, None, [f"{longest}=nbd://h/"]).image] == [longest]


@pytest.mark.parametrize(
    ("key", "flag"), [("serve.unix_socket", "--unix-socket"), ("log.level", "--log-level"), ("serve.port", "--port")]
)
def test_flags_are_named_after_settings(key: str, flag: str) -> None:
    """A setting's flag can be told from its name."""
    assert flag_of(key) == flag


@pytest.mark.parametrize(
    "prefix",
    ["visor", "/", "/visor/", "//visor", "/a//b", "/../x", "/v1", "/v2/visor", "/images", "/a<b>", "/a b", "/x\n"],
)
def test_prefixes_that_visor_cannot_have(prefix: str) -> None:
    """What is no path, or another service's."""
    with pytest.raises(ConfigError, match=r"library\.visor_prefix"):
        load({"library.visor_prefix": prefix}, {}, None)


@pytest.mark.parametrize("prefix", ["", "/visor", "/cloud/visor.2", "/visor/v1"])
def test_prefixes_that_visor_can_have(prefix: str) -> None:
    """None at all, and any path of its own."""
    assert load({"library.visor_prefix": prefix}, {}, None).library.visor_prefix == prefix

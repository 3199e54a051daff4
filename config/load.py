"""Where settings come from: defaults, then the TOML file, then the environment, then flags. The last one wins."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import msgspec

from config.errors import ConfigError, ConfigUnreadableError, shown
from config.images import image_of_flag, images_of_table, merged
from config.rules import check, resolve
from config.settings import Image, Settings
from config.store_settings import Store
from config.stores import stores_of_table
from config.values import SECTIONS, read_value, setting_types

DEFAULT_FILE = Path("/etc/mover/mover.toml")
PREFIX = "MOVER_"


class Given(NamedTuple):
    """A value that somebody gave to the setting `section.name`; `where` names the file, variable or flag."""

    section: str
    name: str
    value: object
    where: str
    is_text: bool


class Loaded(NamedTuple):
    """The settings in force, and who gave each: `origins["serve.port"]`, absent where it is the default."""

    settings: Settings
    origins: Mapping[str, str]


def load(
    flags: Mapping[str, str], environ: Mapping[str, str], config_path: Path | None, images: Sequence[str] = ()
) -> Settings:
    """The settings in force.

    `flags` maps `section.name` to the text that a flag gave, `images` are the texts of `--image`. Without
    `config_path`, /etc/mover/mover.toml is read if it is there. Raises ConfigError for a key or value that is
    wrong, ConfigUnreadableError if the file cannot be read.
    """
    return load_with_origins(flags, environ, config_path, images).settings


def load_with_origins(
    flags: Mapping[str, str], environ: Mapping[str, str], config_path: Path | None, images: Sequence[str] = ()
) -> Loaded:
    """As `load`, and where each value comes from."""
    file, where = _read(config_path), str(config_path or DEFAULT_FILE)
    file_images = images_of_table(file.pop("image", []), where)
    stores = stores_of_table(file.pop("store", []), where)
    given = [*_from_file(file, where), *_from_environment(environ), *_from_flags(flags)]
    all_images = merged(file_images, map(image_of_flag, images), "--image")
    settings = resolve(_settings(given, all_images, stores), environ)
    origins = {f"{one.section}.{one.name}": one.where for one in given}
    check(settings, origins)
    return Loaded(settings, origins)


def flag_of(key: str) -> str:
    """The flag of the setting `key`: `--port` for `serve.port`, `--log-level` for `log.level`."""
    return "--" + key.removeprefix("serve.").replace(".", "-").replace("_", "-")


def _settings(given: Sequence[Given], images: list[Image], stores: list[Store]) -> Settings:
    values: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    for one in given:
        value = read_value(one.section, one.name, one.value, where=one.where, is_text=one.is_text)
        values[one.section][one.name] = value
    return msgspec.convert({**values, "image": images, "store": stores}, Settings)


def _read(config_path: Path | None) -> dict[str, object]:
    try:
        return _read_file(config_path or DEFAULT_FILE)
    except ConfigUnreadableError as error:
        if config_path is None and isinstance(error.__cause__, FileNotFoundError):
            return {}
        raise


def _read_file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        why = f"cannot be read ({error.strerror}): give another file with --config or mend its permissions"
        raise ConfigUnreadableError(str(path), "", why) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "", f"is not TOML: {error}") from error


def _from_file(tables: Mapping[str, object], where: str) -> Iterator[Given]:
    for section, table in tables.items():
        if section not in SECTIONS:
            raise ConfigError(where, f"unknown section or key {shown(section)}", _known_sections())
        if not isinstance(table, dict):
            raise ConfigError(where, f"{section} = {shown(table)}", f"must be a table, [{section}]")
        for name, value in cast("dict[str, object]", table).items():
            _check_known(section, name, where)
            yield Given(section, name, value, where, is_text=False)


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable in sorted(environ):
        if variable.startswith(PREFIX):
            # No section has an underscore in its name, so the first one ends it.
            section, _, name = variable.removeprefix(PREFIX).lower().partition("_")
            where = f"environment variable {variable}"
            if section not in SECTIONS:
                raise ConfigError(where, f"unknown section {shown(section)}", _known_sections())
            _check_known(section, name, where)
            yield Given(section, name, environ[variable], where, is_text=True)


def _from_flags(flags: Mapping[str, str]) -> Iterator[Given]:
    for key, text in flags.items():
        section, _, name = key.partition(".")
        yield Given(section, name, text, flag_of(key), is_text=True)


def _check_known(section: str, name: str, where: str) -> None:
    names = setting_types(section)
    if name not in names:
        raise ConfigError(where, f"unknown key {shown(name)} in section [{section}]", f"known are {', '.join(names)}")


def _known_sections() -> str:
    return f"known are {', '.join(f'[{section}]' for section in SECTIONS)}, [[image]] and [[store]] in a file"


__all__ = [
    "ConfigError",
    "ConfigUnreadableError",
    "Loaded",
    "flag_of",
    "load",
    "load_with_origins",
]

"""The settings with their documentation: the comment that stands above each field in config/settings.py."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache

import msgspec

from config.settings import Image, Settings
from config.values import SECTIONS, allowed, as_toml, setting_types


@cache
def comments(struct: type[msgspec.Struct]) -> Mapping[str, list[str]]:
    """The comment lines above each field of `struct`, without their `#`."""
    source = textwrap.dedent(inspect.getsource(struct))
    lines = source.splitlines()
    [definition] = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    fields = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
    return {node.target.id: _above(lines, node.lineno) for node in fields if isinstance(node.target, ast.Name)}


def _above(lines: list[str], line_number: int) -> list[str]:
    found: list[str] = []
    for line in reversed(lines[: line_number - 1]):
        if not line.lstrip().startswith("#"):
            break
        found.insert(0, line.lstrip().removeprefix("#").strip())
    return found


def documentation(key: str) -> str:
    """The documentation of the setting `section.name`, on one line."""
    section, _, name = key.partition(".")
    return " ".join(comments(SECTIONS[section])[name])


def commented_toml(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """The lines of a TOML file that gives `settings`, each setting with its documentation and who gave it."""
    for section, struct in SECTIONS.items():
        yield from [f"# {_first_line(struct)}", f"[{section}]"]
        values = getattr(settings, section)
        for name, wanted in setting_types(section).items():
            yield from (f"# {line}" for line in comments(struct)[name])
            yield f"# Allowed: {allowed(wanted)}. From: {origins.get(f'{section}.{name}', 'the default')}."
            yield f"{name} = {as_toml(getattr(values, name))}"
        yield ""
    yield from _images(settings)
    yield ""
    yield from _stores(settings)


def example_toml() -> Iterator[str]:
    """The lines of a file that changes nothing: every setting with its documentation and its default, as a comment."""
    yield from [
        "# Mover's settings, each with its default: take the # away to change one. Made by `mover config example`.",
        "# The file's place is /etc/mover/mover.toml; `mover config check` tries it.",
        "",
    ]
    for section, struct in SECTIONS.items():
        yield from [f"# {_first_line(struct)}", f"[{section}]"]
        for name, wanted in setting_types(section).items():
            yield from (f"# {line}" for line in comments(struct)[name])
            yield f"# Allowed: {allowed(wanted)}."
            yield f"#{name} = {as_toml(getattr(getattr(Settings(), section), name))}"
        yield ""
    yield from _images(Settings())


def _images(settings: Settings) -> Iterator[str]:
    yield f"# {_first_line(Image)}"
    if not settings.image:
        yield from ["# There is none; one would look like this:", "# [[image]]"]
        yield from ['# id = "demo"', '# url = "nbd+unix:///?socket=/run/demo.sock"']
    for number, image in enumerate(settings.image):
        yield "[[image]]"
        for name, lines in comments(Image).items():
            if number == 0:
                yield from (f"# {line}" for line in lines)
            yield f"{name} = {as_toml(getattr(image, name))}"


def _stores(settings: Settings) -> Iterator[str]:
    kinds = set[type]()
    for store in settings.store:
        kind, is_first = type(store), type(store) not in kinds
        kinds.add(kind)
        if is_first:
            yield f"# {_first_line(kind)}"
        yield from ["[[store]]", f'type = "{kind.__struct_config__.tag}"']
        for name, lines in comments(kind).items():
            if is_first:
                yield from (f"# {line}" for line in lines)
            yield f"{name} = {as_toml(getattr(store, name))}"


def _first_line(struct: type[msgspec.Struct]) -> str:
    return inspect.getdoc(struct).splitlines()[0]  # type: ignore[union-attr]

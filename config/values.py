"""One value of one setting: its type, what it allows, how it is read and how TOML writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect

from config.errors import ConfigError, shown
from config.settings import Settings

SECTIONS: Mapping[str, type[msgspec.Struct]] = {
    name: type(default)
    for name, default in msgspec.structs.asdict(Settings()).items()
    if isinstance(default, msgspec.Struct)
}


def setting_types(section: str) -> dict[str, object]:
    """The settings of `section` and the type of each, limits included."""
    return get_type_hints(SECTIONS[section], include_extras=True)


def read_value(section: str, name: str, value: object, *, where: str, is_text: bool) -> object:
    """The value of setting `section.name`, of its own type.

    `is_text` says that it came from the environment or a flag, where numbers are text too. Raises ConfigError
    if the setting does not allow it; `where` tells whose value it is.
    """
    wanted: Any = setting_types(section)[name]
    if isinstance(value, str) and is_text and _is_list(wanted):
        value = [part.strip() for part in value.split(",")] if value.strip() else []
    try:
        return msgspec.convert(value, wanted, strict=not is_text)
    except msgspec.ValidationError as error:
        raise ConfigError(where, f"{section}.{name} = {shown(value)}", f"must be {allowed(wanted)}") from error


def allowed(wanted: object) -> str:
    """What a setting of this type may be, in words."""
    match inspect.type_info(wanted):
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in sorted(values, key=str))
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() as info:
            unit = f", a multiple of {info.multiple_of}" if info.multiple_of else ""
            return f"a whole number {_limits(info)}{unit}".strip()
        case inspect.FloatType() as info:
            return f"a number {_limits(info)}".strip()
        case inspect.StrType(min_length=length):
            return "text that is not empty" if length else "text"
        case inspect.VarTupleType(item_type=inspect.IntType() as info):
            return f"a list of whole numbers, each {_limits(info)}"
        case inspect.VarTupleType():
            return "a list of texts that are not empty"
        case other:
            raise TypeError(
                f"no words for {other}: a setting is a number, text, a list of either, a choice or a switch"
            )


def _is_list(wanted: object) -> bool:
    return isinstance(inspect.type_info(wanted), inspect.VarTupleType)


def _limits(info: inspect.IntType | inspect.FloatType) -> str:
    low = f"above {info.gt}" if info.gt is not None else f"of at least {info.ge}" if info.ge is not None else ""
    high = f"at most {info.le}" if info.le is not None else ""
    return " and ".join(limit for limit in (low, high) if limit)


def as_toml(value: object) -> str:
    """`value` as TOML writes it. A TOML string is JSON's, but for U+007F, which it wants escaped."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    raise TypeError(f"no TOML for {value!r}")

"""JSON patches of an image, in both media types that v2 knows; rules without I/O.

v2.1 is RFC 6902 of one level: {"op": "replace", "path": "/name", "value": "x"};
v2.0 is {"replace": "/name", "value": "x"}.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from mover.library.checks import check_properties_count, check_property
from mover.library.errors import ApiError
from mover.library.records import Change, ImageRecord
from mover.library.v2 import values
from mover.library.v2.words import ATTRIBUTES, WRITABLE, column

MEDIA_21 = "application/openstack-images-v2.1-json-patch"
MEDIA_20 = "application/openstack-images-v2.0-json-patch"
MEDIA = (MEDIA_21, MEDIA_20)
OPERATIONS = ("add", "replace", "remove")


class Step(NamedTuple):
    """One operation on one attribute."""

    op: Literal["add", "replace", "remove"]
    name: str
    value: Any


def parse(body: Any, media: str) -> list[Step]:
    """The steps of a patch. Raises ApiError 400, and 403 for attributes that no client sets."""
    if not isinstance(body, list):
        raise ApiError(400, "Request body must be a JSON array of operation objects.")
    return [_step(raw, media) for raw in body]


def _step(raw: Any, media: str) -> Step:
    if not isinstance(raw, dict):
        raise ApiError(400, "Operations must be JSON objects.")
    op, path = (raw.get("op"), raw.get("path")) if media == MEDIA_21 else _old_form(raw)
    if op not in OPERATIONS:
        raise ApiError(400, f"Operation {str(op)[:80]!r} is not one of {', '.join(OPERATIONS)}")
    name = _name(path)
    values.check_name(name)
    if op == "remove":
        return Step("remove", name, None)
    if "value" not in raw:
        raise ApiError(400, f'Operation "{op}" requires a member named "value".')
    return Step(op, name, raw["value"])


def _old_form(raw: dict[str, Any]) -> tuple[Any, Any]:
    found = [(op, raw[op]) for op in OPERATIONS if op in raw]
    if len(found) != 1:
        raise ApiError(400, "Operation objects must contain exactly one member named add, remove, or replace.")
    return found[0]


def _name(path: Any) -> str:
    """The attribute that a JSON pointer of one level names."""
    if not isinstance(path, str) or not path.startswith("/") or path == "/":
        raise ApiError(400, f"Pointer {str(path)[:80]!r} does not start with '/' and the name of an attribute.")
    if path.startswith("/locations/"):
        raise ApiError(403, "Attribute 'locations' is reserved.")
    if "/" in path[1:]:
        raise ApiError(400, f"Pointer {path[:80]!r} is deeper than one level.")
    text = path[1:]
    if "~" in text.replace("~0", "").replace("~1", ""):
        raise ApiError(400, f"Pointer {path[:80]!r} contains '~' that is not part of a recognized escape sequence.")
    return text.replace("~1", "/").replace("~0", "~")


def apply(image: ImageRecord, steps: list[Step], most_properties: int, most_tags: int) -> Change:
    """What the steps, one after the other, make of the image. Raises ApiError."""
    facts: dict[str, Any] = {}
    properties = dict(image.properties)
    tags: tuple[str, ...] | None = None
    for step in steps:
        if step.name == "tags":
            tags = _tags(step, most_tags)
        elif step.name in WRITABLE:
            facts[column(step.name)] = _attribute(step)
        else:
            _property(step, properties)
    if len(properties) > len(image.properties):
        check_properties_count(len(properties), most_properties)
    return Change(facts=facts, properties=properties if properties != image.properties else None, tags=tags)


def _attribute(step: Step) -> Any:
    if step.op == "remove":
        raise ApiError(403, f"Property '{step.name}' may not be removed.")
    return values.check_value(step.name, step.value)


def _tags(step: Step, most: int) -> tuple[str, ...]:
    if step.op == "remove":
        raise ApiError(403, "Property 'tags' may not be removed.")
    return values.check_tags(step.value, most)


def _property(step: Step, properties: dict[str, str | None]) -> None:
    assert step.name not in ATTRIBUTES
    if step.op != "add" and step.name not in properties:
        raise ApiError(409, f"Property {step.name[:80]} does not exist.")
    if step.op == "remove":
        del properties[step.name]
    else:
        properties[step.name] = check_property(step.name, step.value)

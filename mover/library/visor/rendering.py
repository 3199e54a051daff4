"""Answers in JSON or XML, as the client asks; rules without I/O.

XML has one element for each attribute, and <item> for each of a list. What XML cannot hold becomes U+FFFD; what its
names cannot hold, _xHHHH_.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from xml.sax.saxutils import escape

import msgspec

Form = Literal["json", "xml"]

TYPES: dict[Form, str] = {"json": "application/json; charset=utf-8", "xml": "application/xml; charset=utf-8"}

_OF_TYPE: dict[str, Form] = {
    "application/json": "json",
    "application/*": "json",
    "*/*": "json",
    "application/xml": "xml",
    "text/xml": "xml",
}
_QUALITY = re.compile(r"\s*q\s*=\s*(0(\.\d{0,3})?|1(\.0{0,3})?)\s*", re.ASCII | re.IGNORECASE)
_XML = '<?xml version="1.0" encoding="UTF-8"?><results>'
# The lists' frames: what goes before, between and after the images.
FRAMES: dict[Form, tuple[bytes, bytes, bytes]] = {
    "json": (b'{"images":[', b",", b"]}"),
    "xml": (f"{_XML}<images>".encode(), b"", b"</images></results>"),
}

# XML 1.0, 2.2: all other characters are none of its.
_NO_TEXT = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# ASCII is enough for names; others are escaped, and colons, too, which would name a namespace.
_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]|^[^A-Za-z_]")


def chosen(accept: str | None, asked: str | None) -> Form:
    """The form of an answer: what `?format=` asks for, else what is accepted most, else JSON."""
    if asked is not None:
        return "xml" if asked == "xml" else "json"
    best: tuple[float, Form] = (0.0, "json")
    for part in (accept or "").split(","):
        kind, *parameters = part.split(";")
        form = _OF_TYPE.get(kind.strip().lower())
        quality = next((float(one[1]) for text in parameters if (one := _QUALITY.fullmatch(text))), 1.0)
        if form is not None and quality > best[0]:
            best = (quality, form)
    return best[1]


def render(form: Form, answer: Mapping[str, object]) -> bytes:
    """A whole answer."""
    if form == "json":
        return msgspec.json.encode(answer)
    return f"{_XML}{_elements(answer)}</results>".encode()


def render_item(form: Form, image: Mapping[str, object]) -> bytes:
    """One image of a list."""
    if form == "json":
        return msgspec.json.encode(image)
    return f"<item>{_elements(image)}</item>".encode()


def _elements(values: Mapping[str, object]) -> str:
    parts = []
    for name, value in values.items():
        tag = _NO_NAME.sub(lambda found: f"_x{ord(found[0]):04X}_", name)
        inner = _elements(value) if isinstance(value, Mapping) else _text(str(value))
        parts.append(f"<{tag}>{inner}</{tag}>")
    return "".join(parts)


def _text(text: str) -> str:
    # A carriage return would be read as a line's end.
    return escape(_NO_TEXT.sub("\ufffd", text), {"\r": "&#13;"})

"""The images that the configuration itself serves: `--image ID=URL` and `[[image]]`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from config.errors import ConfigError, shown
from config.export_url import ExportUrlError, parse_export
from config.settings import Image

ID_MAX_BYTES = 255


def id_fault(image_id: str) -> str | None:
    """Why `image_id` cannot be an image's id, None if it can: it is one segment of a URL's path."""
    if not image_id:
        return "must not be empty"
    if image_id in (".", ".."):
        return "must not be '.' or '..'"
    if any(character in image_id for character in "/\\\0"):
        return "must be one path segment, without '/', '\\' and NUL"
    try:
        length = len(image_id.encode())
    except UnicodeEncodeError:
        return "must be valid UTF-8"
    if length > ID_MAX_BYTES:
        return f"is {length} bytes long, at most {ID_MAX_BYTES} are allowed"
    return None


def image_of_flag(text: str) -> Image:
    """The image that `--image TEXT` gives. Raises ConfigError."""
    image_id, equals, url = text.partition("=")
    if not equals:
        raise ConfigError("--image", shown(text), "must be ID=URL, like demo=nbd+unix:///?socket=/run/disk.sock")
    return _checked(Image(id=image_id, url=url), "--image")


def images_of_table(tables: object, where: str) -> list[Image]:
    """The images of a TOML file's `[[image]]` tables. Raises ConfigError."""
    try:
        images = msgspec.convert(tables, list[Image])
    except msgspec.ValidationError as error:
        raise ConfigError(where, "[[image]]", f"{error}: each needs `id` and `url`, both text, only") from error
    return merged([_checked(image, where) for image in images], (), where)


def merged(base: Iterable[Image], more: Iterable[Image], where: str) -> list[Image]:
    """`base` and then `more`, where an id of `more` replaces that of `base`.

    Raises ConfigError if one of the two has an id twice, since nobody can tell which was meant.
    """
    by_id = _by_id(base, where) | _by_id(more, where)
    return list(by_id.values())


def _by_id(images: Iterable[Image], where: str) -> dict[str, Image]:
    by_id: dict[str, Image] = {}
    for image in images:
        if image.id in by_id:
            raise ConfigError(where, f"image {shown(image.id)}", "is given twice: choose another id for one of them")
        by_id[image.id] = image
    return by_id


def _checked(image: Image, where: str) -> Image:
    fault = id_fault(image.id)
    if fault is not None:
        raise ConfigError(where, f"image id {shown(image.id)}", fault)
    try:
        parse_export(image.url)
    except ExportUrlError as error:
        raise ConfigError(where, f"image {shown(image.id)}", str(error)) from error
    return image

"""`/v2/images/{id}/file`: an image's data, both ways, in parts if need be."""

from __future__ import annotations

import re

from mover.front import ranges
from mover.front.sanic_seam import Sent
from mover.library import answers, reading, uploads
from mover.library.call import Call
from mover.library.checks import INT64, is_number
from mover.library.errors import ApiError
from mover.library.formats import check_complete
from mover.library.records import ImageRecord
from mover.library.seam import Incoming, Kept, Span, TooLarge
from mover.library.states import READABLE, State
from mover.library.v2 import images

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19}|\*)/(\d{1,19}|\*)", re.ASCII)


# -- download --------------------------------------------------------------------------------------------------


async def download(call: Call, image_id: str) -> Sent:
    """The data, or a range of it; 204 while there is none. Of HEAD, the headers alone."""
    image = await call.image(image_id)
    if image.state is State.DEACTIVATED and not call.caller.is_admin:
        raise ApiError(403, "The requested image has been deactivated. Image data download is forbidden.")
    if image.state not in READABLE or image.size_bytes is None:
        return await call.send(204, await _progress(call, image))
    span, status, headers = _answer(call, image, image.size_bytes)
    if image.location is None or span.length == 0 or call.request.method == "HEAD":
        return await answers.send_head(call.request, status, headers)
    return await reading.send(call, image, span, status, [answers.request_id_header(call.request), *headers])


async def _progress(call: Call, image: ImageRecord) -> list[tuple[str, str]]:
    """Where an upload that was interrupted goes on."""
    kept = await call.library.carrier.kept(image.id)
    return [] if kept is None else [("Upload-Offset", str(kept))]


def _answer(call: Call, image: ImageRecord, size: int) -> tuple[Span, int, list[tuple[str, str]]]:
    span, status = Span(0, size), 200
    headers = [answers.OCTETS, ("Accept-Ranges", "bytes")]
    wanted = call.header("range")
    if wanted is not None and call.header("if-range") is None:
        found = _range(wanted, size)
        span, status = Span(found.offset, found.length), 206
        headers.append(("Content-Range", f"bytes {span.offset}-{span.offset + span.length - 1}/{size}"))
    elif image.md5 is not None:  # of the whole: of a part, it would be another one
        headers.append(("Content-MD5", image.md5))
    return span, status, [*headers, ("Content-Length", str(span.length))]


def _range(wanted: str, size: int) -> ranges.Span:
    try:
        return ranges.parse_range(wanted, size)
    except (ranges.BadRange, ranges.Unsatisfiable) as error:
        raise ApiError(416, str(error), [("Content-Range", f"bytes */{size}")]) from error


# -- upload ----------------------------------------------------------------------------------------------------


async def upload(call: Call, image_id: str) -> Sent:
    """Take the data: 204 when the image is active, 202 when more of it is to come."""
    image = await images.find_to_change(call, image_id)
    call.check_octets(415)
    check_complete(image.disk_format, image.container_format)
    incoming = _incoming(call, image)
    received = await uploads.receive(call.library, call.request, incoming, State.QUEUED, 410)
    if isinstance(received, Kept):
        return await call.send(202, [("Upload-Offset", str(received.offset))])
    return await call.send(204)


def _incoming(call: Call, image: ImageRecord) -> Incoming:
    length, size = call.body_bytes, _announced_size(call)
    store = call.header("x-image-meta-store")
    content_range = call.header("content-range")
    if content_range is None:
        if size is not None and length is not None and size != length:
            raise ApiError(400, f"x-openstack-image-size is {size}, Content-Length {length}")
        _check_size(call, length if size is None else size)
        return Incoming(image, length=length, size_bytes=length if size is None else size, store=store)
    offset, total = _content_range(content_range, length)
    _check_size(call, total if total is not None else offset + (length or 0))
    return Incoming(image, offset, length, total if total is not None else size, store=store, resumable=True)


def _announced_size(call: Call) -> int | None:
    text = call.header("x-openstack-image-size")
    if text is None:
        return None
    if not is_number(text, INT64):
        raise ApiError(400, f"x-openstack-image-size is no whole number: {text[:80]!r}")
    return int(text)


def _content_range(text: str, length: int | None) -> tuple[int, int | None]:
    """Where a body begins, and the size of the whole if it is told."""
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None:
        raise ApiError(400, f"Content-Range {text[:80]!r} is not 'bytes FIRST-LAST/SIZE'; LAST and SIZE may be *")
    first, last, total = int(found[1]), found[2], None if found[3] == "*" else int(found[3])
    if last != "*":
        body = int(last) - first + 1
        if body <= 0 or (length is not None and body != length):
            raise ApiError(400, f"Content-Range {text[:80]!r} does not agree with Content-Length {length}")
        if total is not None and int(last) >= total:
            raise ApiError(400, f"Content-Range {text[:80]!r} ends after the image of {total}")
    if total is not None and length is not None and first + length > total:
        raise ApiError(400, f"Content-Range {text[:80]!r} and a body of {length} bytes end after the image of {total}")
    return first, total


def _check_size(call: Call, size: int | None) -> None:
    limit = min(call.library.settings.image_size_limit_bytes, INT64)
    if size is not None and size > limit:
        raise TooLarge(f"An image of {size} bytes is larger than the limit of {limit}")

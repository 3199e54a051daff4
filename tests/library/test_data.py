"""The data of images, through API v2: whole, in ranges, in parts; with the tests' carrier and with the real one."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.library.service import OCTETS, Service

DATA = bytes(range(256)) * 400
HALF = len(DATA) // 2


def test_data_goes_in_and_comes_out(either: Service) -> None:
    """Byte for byte, with the checksums of what came."""
    image = either.active(DATA)
    expected = {"status": "active", "size": len(DATA), "checksum": hashlib.md5(DATA).hexdigest(),
        "os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(DATA).hexdigest()}  # fmt: skip
    assert expected.items() <= image.items()
    answer = either.ask("GET", f"/v2/images/{image['id']}/file")
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["content-type"] == OCTETS
    assert answer.headers["content-md5"] == image["checksum"]


def test_a_chunked_upload(either: Service) -> None:
    """Its size is what came."""
    image = either.create()
    assert either.upload(image["id"], iter([DATA[:HALF], DATA[HALF:]])).status == 204
    assert either.show(image["id"])["size"] == len(DATA)


RANGES = {
    "bytes=0-9": (206, DATA[:10], f"bytes 0-9/{len(DATA)}"),
    "bytes=100-": (206, DATA[100:], f"bytes 100-{len(DATA) - 1}/{len(DATA)}"),
    "bytes=-10": (206, DATA[-10:], f"bytes {len(DATA) - 10}-{len(DATA) - 1}/{len(DATA)}"),
    f"bytes={len(DATA)}-": (416, None, f"bytes */{len(DATA)}"),
    "bytes=0-1,3-4": (416, None, f"bytes */{len(DATA)}"),
    "lines=1-2": (416, None, f"bytes */{len(DATA)}"),
}


def test_ranges_of_the_data(either: Service) -> None:
    """One range is 206; what cannot be had is 416 with the size."""
    image = either.active(DATA)
    for wanted, (status, body, content_range) in RANGES.items():
        answer = either.ask("GET", f"/v2/images/{image['id']}/file", Range=wanted)
        assert (answer.status, answer.headers["content-range"]) == (status, content_range), wanted
        if body is not None:
            assert answer.body == body
            assert "content-md5" not in answer.headers


def test_head_of_the_data(either: Service) -> None:
    """The headers of GET, and nothing else."""
    image = either.active(DATA)
    answer = either.ask("HEAD", f"/v2/images/{image['id']}/file")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", str(len(DATA)))
    assert answer.headers["accept-ranges"] == "bytes"


def test_an_image_without_data(either: Service) -> None:
    """204, as Glance says it."""
    image = either.create()
    for method in ("GET", "HEAD"):
        answer = either.ask(method, f"/v2/images/{image['id']}/file")
        assert (answer.status, answer.body) == (204, b"")
        assert "upload-offset" not in answer.headers


UPLOADS: list[tuple[dict[str, Any], bytes, dict[str, str], int]] = [
    ({}, DATA, {"Content_Type": "text/plain"}, 415),
    ({"disk_format": None}, DATA, {}, 400),
    ({"container_format": None}, DATA, {}, 400),
    ({"disk_format": "qcow2"}, b"wrong format" * 100, {}, 415),
    ({}, DATA, {"X_Image_Meta_Store": "nowhere"}, 400),
    ({}, DATA, {"x_openstack_image_size": "7"}, 400),
    ({}, DATA, {"x_openstack_image_size": "x"}, 400),
    ({}, DATA, {"Content_Range": "bytes 0-5/10"}, 400),
    ({}, DATA, {"Content_Range": "lines 0-5/10"}, 400),
    ({}, DATA, {"Content_Range": f"bytes 0-{len(DATA) - 1}/5"}, 400),
    ({}, DATA, {"Content_Range": "bytes 0-*/5"}, 400),
    ({}, DATA, {"Content_Range": f"bytes 0-*/{2**50}"}, 413),
    ({}, DATA, {"Content_Range": f"bytes 7-{len(DATA) + 6}/{len(DATA) + 7}"}, 409),
]


@pytest.mark.parametrize(("fields", "data", "headers", "status"), UPLOADS, ids=lambda value: str(value)[:50])
def test_uploads_that_are_refused(
    either: Service, fields: dict[str, Any], data: bytes, headers: dict[str, str], status: int
) -> None:
    """Nothing is left of one, and another may follow."""
    image = either.create(**fields)
    answer = either.upload(image["id"], data, **headers)
    assert answer.status == status, answer
    assert either.show(image["id"])["status"] == "queued"
    if not fields:
        assert either.upload(image["id"], DATA).status == 204
        assert either.ask("GET", f"/v2/images/{image['id']}/file").body == DATA


def test_an_active_image_takes_no_more(either: Service) -> None:
    """409, and the data stays."""
    image = either.active(DATA)
    assert either.upload(image["id"], b"other").status == 409
    assert either.ask("GET", f"/v2/images/{image['id']}/file").body == DATA


def test_an_upload_in_parts(either: Service) -> None:
    """Each part is 202 with the place of the next; HEAD tells it, too; the last makes the image active."""
    image = either.create()
    path = f"/v2/images/{image['id']}/file"
    first = either.upload(image["id"], DATA[:HALF], Content_Range=f"bytes 0-{HALF - 1}/{len(DATA)}")
    assert (first.status, first.headers["upload-offset"]) == (202, str(HALF))
    assert either.show(image["id"])["status"] == "queued"
    assert either.ask("HEAD", path).headers["upload-offset"] == str(HALF)
    astray = either.upload(image["id"], DATA[1:], Content_Range=f"bytes 1-{len(DATA) - 1}/{len(DATA)}")
    assert (astray.status, astray.headers["upload-offset"]) == (409, str(HALF))
    last = either.upload(image["id"], DATA[HALF:], Content_Range=f"bytes {HALF}-{len(DATA) - 1}/{len(DATA)}")
    assert last.status == 204
    assert either.ask("GET", path).body == DATA


def test_an_upload_that_begins_anew(either: Service) -> None:
    """At 0 what was kept is dropped."""
    image = either.create()
    either.upload(image["id"], b"x" * HALF, Content_Range=f"bytes 0-{HALF - 1}/{len(DATA)}")
    assert either.upload(image["id"], DATA, Content_Range=f"bytes 0-{len(DATA) - 1}/{len(DATA)}").status == 204
    assert either.ask("GET", f"/v2/images/{image['id']}/file").body == DATA


def test_v1_verifies_what_came(either: Service) -> None:
    """Size and checksum: the image is killed, its data gone; then the same again, right."""
    formats = {"x_image_meta_disk_format": "raw", "x_image_meta_container_format": "bare", "Content_Type": OCTETS}
    md5 = hashlib.md5(DATA).hexdigest()
    wrong = ({"x_image_meta_checksum": "d" * 32}, {"x_image_meta_size": str(len(DATA) + 1)}, {"x_image_meta_size": "1"})
    for meta in wrong:
        assert either.ask("POST", "/v1/images", DATA, **formats, **meta).status == 400, meta
    right = {"x_image_meta_checksum": md5, "x_image_meta_size": str(len(DATA))}
    answer = either.ask("POST", "/v1/images", DATA, **formats, **right)
    assert either.done(201, answer)["image"]["checksum"] == md5
    assert either.ask("GET", f"/v1/images/{answer.json()['image']['id']}").body == DATA


@pytest.mark.parametrize("data", [bytes(5), bytes(100_000), b"x" * 70_000 + bytes(100_000)], ids=len)
def test_data_that_is_zeros(either: Service, data: bytes) -> None:
    """All of it, or its end: it comes back as it went in."""
    image = either.active(data)
    assert (image["size"], image["checksum"]) == (len(data), hashlib.md5(data).hexdigest())
    assert either.ask("GET", f"/v2/images/{image['id']}/file").body == data

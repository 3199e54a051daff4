"""Images API v1: every route, header, filter, sort and status of it, on SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest

from tests.harness.http import Answer, Body, connect, head, read_to_end
from tests.library.service import NOBODYS_ID, OCTETS, Service, over_sqlite, some_id

DATA = bytes(range(256)) * 300
MD5 = hashlib.md5(DATA).hexdigest()
FORMATS = {"x_image_meta_disk_format": "raw", "x_image_meta_container_format": "bare"}
META = "x_image_meta_"
BRIEF = {"id", "name", "size", "disk_format", "container_format", "checksum"}
DETAIL = BRIEF | {
    "virtual_size", "status", "owner", "is_public", "protected", "deleted", "min_disk", "min_ram", "created_at",
    "updated_at", "deleted_at", "properties",
}  # fmt: skip


def post(service: Service, data: Body = None, /, **meta: str) -> Answer:
    """POST of an image: `name="x"` is a header x-image-meta-name, `_Content_Type` a header of that name."""
    return _send(service, "POST", "/v1/images", data, {**FORMATS, **_headers(meta)})


def put(service: Service, image_id: str, data: Body = None, /, **meta: str) -> Answer:
    """PUT of an image."""
    return _send(service, "PUT", f"/v1/images/{image_id}", data, _headers(meta))


def _headers(meta: dict[str, str]) -> dict[str, str]:
    return {name[1:] if name.startswith("_") else META + name: value for name, value in meta.items()}


def _send(service: Service, method: str, path: str, data: Body, headers: dict[str, str]) -> Answer:
    kind = {} if data is None or "Content_Type" in headers else {"Content_Type": OCTETS}
    return service.ask(method, path, data, **kind, **headers)


def made(service: Service, data: Body = None, /, **meta: str) -> dict[str, Any]:
    """A new image."""
    image: dict[str, Any] = service.done(201, post(service, data, **meta))["image"]
    return image


def seen(service: Service, image_id: str) -> dict[str, str]:
    """The headers of HEAD."""
    answer = service.ask("HEAD", f"/v1/images/{image_id}")
    assert answer.status == 200, answer
    return dict(answer.headers)


# -- create ----------------------------------------------------------------------------------------------------


def test_an_image_with_data(service: Service) -> None:
    """201 with its place, its checksum, and everything there is to know."""
    answer = post(service, DATA, name="n", property_os="linux", min_ram="512", is_public="True", protected="no")
    image = service.done(201, answer)["image"]
    assert image.keys() == DETAIL
    assert answer.headers["location"] == f"http://localhost/v1/images/{image['id']}"
    assert answer.headers["etag"] == MD5
    expected = {"name": "n", "status": "active", "size": len(DATA), "checksum": MD5, "is_public": True, "min_ram": 512,
        "owner": "default", "protected": False, "deleted": False, "properties": {"os": "linux"}}  # fmt: skip
    assert expected.items() <= image.items()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", image["created_at"])
    assert service.ask("GET", f"/v1/images/{image['id']}").body == DATA


def test_a_reservation(service: Service) -> None:
    """Without data it is queued, needs no formats, and has no ETag."""
    answer = _send(service, "POST", "/v1/images", None, {"x_image_meta_name": "n"})
    image = service.done(201, answer)["image"]
    assert (image["status"], image["disk_format"], image["checksum"]) == ("queued", None, None)
    assert "etag" not in answer.headers
    assert service.ask("GET", f"/v1/images/{image['id']}").status == 404


def test_a_reservation_that_gets_its_data(service: Service) -> None:
    """PUT of data makes it active; another one is refused."""
    image = made(service, name="n")
    answer = put(service, image["id"], DATA)
    assert answer.headers["etag"] == MD5
    assert service.done(200, answer)["image"]["status"] == "active"
    assert put(service, image["id"], b"other").status == 409
    assert service.ask("GET", f"/v1/images/{image['id']}").body == DATA


def test_data_in_chunks(service: Service) -> None:
    """A body in chunks counts as data, even an empty one."""
    assert made(service, iter([DATA, DATA]))["size"] == 2 * len(DATA)
    assert made(service, iter([]))["status"] == "active"


def test_an_image_of_no_bytes(service: Service) -> None:
    """Of the size 0 and without data it is active at once."""
    image = made(service, size="0")
    assert image["status"] == "active"
    answer = service.ask("GET", f"/v1/images/{image['id']}")
    assert (answer.status, answer.body) == (200, b"")


def test_an_id_of_the_clients_own(service: Service) -> None:
    """In use, or used before, it is 409."""
    image_id = some_id()
    assert made(service, id=image_id)["id"] == image_id
    assert post(service, id=image_id).status == 409
    service.ask("DELETE", f"/v1/images/{image_id}")
    assert post(service, DATA, id=image_id).status == 409


REFUSED: list[tuple[dict[str, str], Body, int]] = [
    ({"nonsense": "x"}, None, 400),
    ({"purge_props": "x"}, None, 400),
    ({"id": "x"}, None, 400),
    ({"size": "x"}, None, 400),
    ({"size": "-1"}, None, 400),
    ({"size": "1.5"}, None, 400),
    ({"size": "٣"}, None, 400),
    ({"size": str(2**70)}, None, 400),
    ({"min_ram": "x"}, None, 400),
    ({"min_disk": "-1"}, None, 400),
    ({"min_disk": str(2**31)}, None, 400),
    ({"checksum": "x" * 33}, None, 400),
    ({"name": "x" * 256}, None, 400),
    ({"created_at": "yesterday"}, None, 400),
    ({"disk_format": "floppy"}, None, 400),
    ({"container_format": "bag"}, None, 400),
    ({"disk_format": "ami", "container_format": "bare"}, None, 400),
    ({"disk_format": ""}, DATA, 400),
    ({"container_format": ""}, DATA, 400),
    ({"copy_from": "ftp://example.org/x"}, None, 400),
    ({"_x_glance_api_copy_from": "http://u:p@example.org/x"}, None, 400),
    ({"_x_glance_api_copy_from": "http://example.org/x", "store": "nowhere"}, None, 400),
    ({"location": "http://away.example.org/"}, None, 400),
    ({"location": "http://example.org/missing"}, None, 404),
    ({"location": "http://example.org/x", "size": "7"}, None, 409),
    ({"location": "http://example.org/x", "store": "fake"}, None, 400),
    ({"location": "http://example.org/x", "disk_format": ""}, None, 400),
    ({"location": "filesystem:///etc/passwd"}, None, 400),
    ({"location": "swift+config://a/b/c"}, None, 400),
    ({"location": "s3://bucket/others-image"}, None, 400),
    ({"copy_from": "file:///etc/passwd"}, None, 400),
    ({"_x_glance_api_copy_from": "swift+config://a/b/c"}, None, 400),
    ({"location": "file:///etc/passwd"}, None, 400),
    ({"location": "http://example.org/x"}, DATA, 400),
    ({"location": "http://e.org/x", "_x_glance_api_copy_from": "http://e.org/x"}, None, 400),
    ({"store": "nowhere"}, DATA, 400),
    ({"_Content_Type": "text/plain"}, DATA, 400),
    ({"_Content_Type": ""}, DATA, 400),
    ({"size": str(len(DATA) + 1)}, DATA, 400),
    ({"size": str(len(DATA) - 1)}, DATA, 400),
    ({"checksum": "d" * 32}, DATA, 400),
    ({"size": str(2**41)}, DATA, 400),
    ({f"property_k{number}": "v" for number in range(129)}, None, 413),
    ({"property_" + "k" * 256: "v"}, None, 400),
    ({"disk_format": "qcow2"}, b"wrong format" * 100, 415),
]


@over_sqlite
@pytest.mark.parametrize(("meta", "data", "status"), REFUSED, ids=lambda value: str(value)[:50])
def test_images_that_are_refused(service: Service, meta: dict[str, str], data: Body, status: int) -> None:
    """A status for each reason; nothing is left that is queued, or active."""
    before = service.listed("?limit=1000&status=in:queued,saving,active")
    encoded = {name: value.encode().decode("latin-1") for name, value in meta.items()}
    answer = post(service, data, **encoded)
    assert answer.status == status, answer
    assert service.listed("?limit=1000&status=in:queued,saving,active") == before


def test_what_failed_is_killed(service: Service) -> None:
    """It has no data, is in no list that does not ask for it, and takes no more."""
    image_id = some_id()
    assert post(service, DATA, id=image_id, checksum="d" * 32, name="broken").status == 400
    found = seen(service, image_id)
    assert found["x-image-meta-status"] == "killed"
    assert service.ask("GET", f"/v1/images/{image_id}").status == 404
    assert put(service, image_id, DATA).status == 409
    listed = "/v1/images/detail?name=broken&is_public=None"
    assert service.done(200, service.ask("GET", listed))["images"] == []
    asked = service.done(200, service.ask("GET", f"{listed}&status=killed"))["images"]
    assert [image["id"] for image in asked] == [image_id]


def test_the_reservation_says_what_must_come(service: Service) -> None:
    """Its size and checksum hold for the data that comes later."""
    image = made(service, size=str(len(DATA)), checksum=MD5.upper())
    assert put(service, image["id"], DATA).status == 200
    wrong = made(service, size="7")
    assert put(service, wrong["id"], DATA).status == 400
    assert seen(service, wrong["id"])["x-image-meta-status"] == "killed"


def test_amazons_formats_come_in_pairs(service: Service) -> None:
    """One of them stands for both."""
    answer = _send(service, "POST", "/v1/images", DATA, {"x_image_meta_disk_format": "ami"})
    image = service.done(201, answer)["image"]
    assert (image["disk_format"], image["container_format"]) == ("ami", "ami")


YES_OR_NO = {"True": True, "true": True, "1": True, "yes": True, "ON": True, "t": True, "y": True, "False": False,
    "0": False, "no": False, "maybe": False, "": False}  # fmt: skip


def test_booleans_as_glance_reads_them(service: Service) -> None:
    """What is no yes is a no."""
    for text, expected in YES_OR_NO.items():
        image = made(service, is_public=text, protected=text)
        assert (image["is_public"], image["protected"]) == (expected, expected), text


def test_header_names_in_all_forms(service: Service) -> None:
    """Small or capital letters, dashes or underscores: the same field."""
    for name in ("X-Image-Meta-Min-Disk", "x-image-meta-min_disk", "X-IMAGE-META-MIN_DISK"):
        answer = service.ask("POST", "/v1/images", None, **{name: "5"})
        assert service.done(201, answer)["image"]["min_disk"] == 5, name
    answer = service.ask("POST", "/v1/images", None, **{"X-Image-Meta-Property-Os-Type": "x"})
    assert service.done(201, answer)["image"]["properties"] == {"os_type": "x"}


def test_values_are_unescaped(service: Service) -> None:
    """glanceclient percent-encodes what it sends; others do not. Both mean the same text."""
    for sent in ("two%20words%20%C3%BC%20100%25", "two words ü 100%".encode().decode("latin-1")):
        image = made(service, name=sent, property_k=sent)
        assert (image["name"], image["properties"]) == ("two words ü 100%", {"k": "two words ü 100%"})
        found = seen(service, image["id"])["x-image-meta-name"]
        assert found.encode("latin-1").decode() == "two words ü 100%"


def test_empty_values_are_null(service: Service) -> None:
    """And null is not shown in headers."""
    image = made(service, property_empty="", name="")
    assert (image["name"], image["properties"]) == (None, {"empty": None})
    assert not {"x-image-meta-name", "x-image-meta-property-empty"} & seen(service, image["id"]).keys()


# -- header injection ------------------------------------------------------------------------------------------


@over_sqlite
@pytest.mark.parametrize("evil", ["a\r\nSet-Cookie: x=1", "a\nSet-Cookie: x=1", "a\rb", "a\0b", "\x7f"])
def test_no_value_becomes_a_header(service: Service, evil: str) -> None:
    """Neither of the client of v2, whose JSON may hold anything, nor percent-encoded by one of v1."""
    answer = service.json("POST", "/v2/images", {"name": evil, "k": evil, f"n{evil}": "v"})
    if "\0" in evil:
        assert answer.status == 400
        return
    image = service.done(201, answer)
    found = seen(service, image["id"])
    assert "set-cookie" not in found
    assert not any(char in found["x-image-meta-name"] for char in "\r\n\0\x7f")
    encoded = "".join(f"%{byte:02x}" for byte in evil.encode())
    again = made(service, name=encoded, property_k=encoded)
    assert "set-cookie" not in seen(service, again["id"])


def test_a_host_with_a_line_in_it(service: Service) -> None:
    """Location repeats the client's Host, which can be no second header."""
    with connect(service.mover.address()) as sock:
        sock.sendall(head("POST", "/v1/images", Host="x\rSet-Cookie: y=1", Content_Length="0", Connection="close"))
        answer = read_to_end(sock)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"Set-Cookie: y" not in answer


# -- look ------------------------------------------------------------------------------------------------------


def test_head_shows_all_in_headers(service: Service) -> None:
    """Booleans as Python writes them, null left out, and no JSON."""
    image = made(service, DATA, name="n", property_os_type="linux", min_disk="3")
    found = seen(service, image["id"])
    expected = {
        "id": image["id"], "name": "n", "status": "active", "size": str(len(DATA)), "checksum": MD5, "deleted": "False",
        "disk_format": "raw", "container_format": "bare", "owner": "default", "is_public": "False",
        "protected": "False", "min_disk": "3", "min_ram": "0", "created_at": image["created_at"],
        "updated_at": image["updated_at"],
        "virtual_size": str(image["virtual_size"]), "property-os_type": "linux",
    }  # fmt: skip
    assert {f"x-image-meta-{name}": value for name, value in expected.items()}.items() <= found.items()
    assert not {"x-image-meta-deleted_at", "x-image-meta-location"} & found.keys()
    assert (found["etag"], found["content-type"].partition(";")[0]) == (MD5, "text/html")


def test_get_has_the_metadata_too(service: Service) -> None:
    """The type is exactly this one, and a Range is not looked at: v1 has none."""
    image = made(service, DATA)
    answer = service.ask("GET", f"/v1/images/{image['id']}", Range="bytes=0-9")
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["content-type"] == OCTETS
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["x-image-meta-id"] == image["id"]


# -- update ----------------------------------------------------------------------------------------------------


def test_an_update_replaces_all_properties(service: Service) -> None:
    """Unless the client says that it must not, or there is a body."""
    image = made(service, property_a="1", property_b="2")
    kept = put(service, image["id"], property_b="3", _x_glance_registry_purge_props="False")
    assert service.done(200, kept)["image"]["properties"] == {"a": "1", "b": "3"}
    purged = put(service, image["id"], property_c="4")
    assert service.done(200, purged)["image"]["properties"] == {"c": "4"}
    with_data = put(service, image["id"], DATA, property_d="5")
    assert service.done(200, with_data)["image"]["properties"] == {"c": "4", "d": "5"}
    none = put(service, image["id"], _x_glance_registry_purge_props="True")
    assert service.done(200, none)["image"]["properties"] == {}


def test_an_update_of_fields(service: Service) -> None:
    """What is named changes, the rest stays."""
    image = made(service, name="n", min_disk="3", is_public="True")
    changed = service.done(200, put(service, image["id"], name="m", min_ram="7", is_public="False"))["image"]
    assert {"name": "m", "min_ram": 7, "min_disk": 3, "is_public": False}.items() <= changed.items()
    assert changed["updated_at"] > image["updated_at"]


UPDATES: list[tuple[dict[str, str], Body, int]] = [
    ({"status": "killed"}, None, 403),
    ({"id": NOBODYS_ID}, None, 403),
    ({"nonsense": "x"}, None, 400),
    ({"location": "http://example.org/x"}, None, 400),
    ({"_x_glance_api_copy_from": "http://example.org/x"}, None, 400),
    ({}, DATA, 409),
    ({"disk_format": "ami"}, None, 400),
    ({f"property_k{number}": "v" for number in range(129)}, None, 413),
]


@over_sqlite
@pytest.mark.parametrize(("meta", "data", "status"), UPDATES, ids=lambda value: str(value)[:50])
def test_updates_that_are_refused(service: Service, meta: dict[str, str], data: Body, status: int) -> None:
    """And the image is what it was."""
    image = made(service, DATA)
    assert put(service, image["id"], data, **meta).status == status
    found = service.done(200, service.ask("GET", "/v1/images/detail?is_public=None&limit=1"))["images"]
    assert found == [image]
    assert service.ask("GET", f"/v1/images/{image['id']}").body == DATA


def test_an_update_may_repeat_what_is(service: Service) -> None:
    """glanceclient sends back what it has read."""
    image = made(service, DATA)
    same = put(service, image["id"], status="active", id=image["id"], checksum=MD5, size=str(len(DATA)))
    assert same.status == 200


def test_no_image_to_update(service: Service) -> None:
    """404, and 403 for one that was deleted, which an admin sees."""
    assert put(service, some_id(), name="x").status == 404
    image = made(service)
    service.ask("DELETE", f"/v1/images/{image['id']}")
    assert put(service, image["id"], name="x").status == 403


# -- delete ----------------------------------------------------------------------------------------------------


def test_delete(service: Service) -> None:
    """200 without a body; for an admin the record is still there, the data is for nobody."""
    image = made(service, DATA)
    path = f"/v1/images/{image['id']}"
    answer = service.ask("DELETE", path)
    assert (answer.status, answer.body) == (200, b"")
    found = seen(service, image["id"])
    assert (found["x-image-meta-status"], found["x-image-meta-deleted"]) == ("deleted", "True")
    assert "x-image-meta-deleted_at" in found
    assert [service.ask("GET", path).status, service.ask("DELETE", path).status] == [404, 404]
    protected = made(service, protected="True")
    assert service.ask("DELETE", f"/v1/images/{protected['id']}").status == 403
    assert service.ask("DELETE", f"/v1/images/{some_id()}").status == 404


# -- lists -----------------------------------------------------------------------------------------------------


def listed(service: Service, query: str, path: str = "/v1/images/detail") -> list[str]:
    """The ids of one page."""
    return [image["id"] for image in service.done(200, service.ask("GET", f"{path}?{query}"))["images"]]


def test_the_short_list_has_six_fields(service: Service) -> None:
    """And the long one all of them."""
    made(service, is_public="True")
    short = service.done(200, service.ask("GET", "/v1/images"))["images"]
    long = service.done(200, service.ask("GET", "/v1/images/detail"))["images"]
    assert {frozenset(image) for image in short} == {frozenset(BRIEF)}
    assert {frozenset(image) for image in long} == {frozenset(DETAIL)}


def test_filters_of_a_list(service: Service) -> None:
    """Each by itself; what v1 does not know is not looked at."""
    mark = f"p{some_id()[:8]}"
    start = made(service)["created_at"]
    a = made(service, DATA, name=f"{mark}a", property_g=mark, is_public="True", min_ram="5", min_disk="6")["id"]
    b = made(service, name=f"{mark}b", property_g=mark, disk_format="qcow2", container_format="ovf", protected="1")[
        "id"
    ]
    gone = made(service, name=f"{mark}gone", property_g=mark)["id"]
    service.ask("DELETE", f"/v1/images/{gone}")
    rows: dict[str, list[str]] = {
        "": [b, a],
        f"name={mark}a": [a],
        "status=active": [a],
        "disk_format=qcow2": [b],
        "container_format=ovf": [b],
        "min_ram=5": [a],
        "min_disk=6": [a],
        "size_min=1": [a],
        "size_max=1": [b],
        f"size_min={len(DATA)}&size_max={len(DATA)}": [a],
        "protected=True": [b],
        "protected=0": [a],
        "is_public=True": [b, a],
        "is_public=False": [b],
        "is_public=None": [b, a],
        "property-g=other": [],
        "unknown=x&other=y": [b, a],
        f"changes-since={start}": [gone, b, a],
        "changes-since=2000-01-01T00:00:00%2B02:00": [gone, b, a],
        "changes-since=2100-01-01": [],
        "deleted=True": [gone],
        "deleted=False": [b, a],
        "deleted=None": [gone, b, a],
    }
    for query, expected in rows.items():
        assert listed(service, f"property-g={mark}&sort_key=created_at&{query}") == expected, query


@over_sqlite
@pytest.mark.parametrize(
    "query",
    [
        "min_ram=x", "min_ram=-1", "size_min=x", "size_max=-1", "size_max=1.5", "protected=maybe", "is_public=maybe",
        "changes-since=yesterday", "limit=x", "limit=-1", "marker=x", f"marker={NOBODYS_ID}", "sort_key=owner",
        "sort_dir=up", "name=%00", "property-x=%00", "%ff",
    ],
)  # fmt: skip
def test_lists_that_are_refused(service: Service, query: str) -> None:
    """400."""
    for path in ("/v1/images", "/v1/images/detail"):
        assert service.ask("GET", f"{path}?{query}").status == 400


def test_orders_and_pages(service: Service) -> None:
    """Markers go on where the last page ended; there is no link to the next one."""
    mark = f"p{some_id()[:8]}"
    names = ["b", "a", "c"]
    found = {name: made(service, name=name, property_g=mark)["id"] for name in names}
    base = f"property-g={mark}&"
    assert listed(service, base) == [found[name] for name in reversed(names)]
    assert listed(service, base + "sort_key=name&sort_dir=asc") == [found[name] for name in sorted(names)]
    assert listed(service, base + "sort_key=name") == [found[name] for name in sorted(names, reverse=True)]
    page = listed(service, base + "sort_key=name&sort_dir=asc&limit=2")
    assert page == [found["a"], found["b"]]
    assert listed(service, base + f"sort_key=name&sort_dir=asc&limit=2&marker={page[-1]}") == [found["c"]]
    assert listed(service, base + "limit=0") == []
    for key in ("status", "container_format", "disk_format", "size", "id", "updated_at"):
        assert sorted(listed(service, base + f"sort_key={key}")) == sorted(found.values())


# -- members ---------------------------------------------------------------------------------------------------


def members(service: Service, image_id: str) -> list[tuple[str, bool]]:
    """Who the image is shared with."""
    found = service.done(200, service.ask("GET", f"/v1/images/{image_id}/members"))["members"]
    return [(one["member_id"], one["can_share"]) for one in found]


def test_members(service: Service) -> None:
    """Added, changed, replaced, removed; 204 each time."""
    image_id = made(service)["id"]
    path = f"/v1/images/{image_id}/members"
    assert members(service, image_id) == []
    assert service.ask("PUT", f"{path}/a").status == 204
    assert service.json("PUT", f"{path}/b", {"member": {"can_share": True}}).status == 204
    assert members(service, image_id) == [("a", False), ("b", True)]
    assert service.json("PUT", f"{path}/b", {"member": {}}).status == 204
    assert service.json("PUT", f"{path}/a", {"member": {"can_share": True}}).status == 204
    assert members(service, image_id) == [("a", True), ("b", True)]
    wanted = {"memberships": [{"member_id": "b"}, {"member_id": "c"}, {"member_id": "d", "can_share": True}]}
    assert service.json("PUT", path, wanted).status == 204
    assert members(service, image_id) == [("b", True), ("c", False), ("d", True)]
    assert service.ask("DELETE", f"{path}/c").status == 204
    assert service.ask("DELETE", f"{path}/c").status == 404
    shared = service.done(200, service.ask("GET", "/v1/shared-images/d"))["shared_images"]
    assert {"image_id": image_id, "can_share": True} in shared


@over_sqlite
@pytest.mark.parametrize(
    "body",
    [
        [], {}, {"memberships": {}}, {"memberships": ["x"]}, {"memberships": [{}]}, {"memberships": [{"member_id": 5}]},
        {"memberships": [{"member_id": ""}]}, {"memberships": [{"member_id": "x", "can_share": "yes"}]},
        {"memberships": [{"member_id": "x" * 256}]},
    ],
    ids=str,
)  # fmt: skip
def test_members_that_are_refused(service: Service, body: object) -> None:
    """400, and those who were members still are."""
    image_id = made(service)["id"]
    service.ask("PUT", f"/v1/images/{image_id}/members/a")
    assert service.json("PUT", f"/v1/images/{image_id}/members", body).status == 400
    assert members(service, image_id) == [("a", False)]


def test_too_many_members(service: Service) -> None:
    """413."""
    image_id = made(service)["id"]
    many = {"memberships": [{"member_id": f"m{number}"} for number in range(129)]}
    assert service.json("PUT", f"/v1/images/{image_id}/members", many).status == 413
    many["memberships"].pop()
    assert service.json("PUT", f"/v1/images/{image_id}/members", many).status == 204
    assert service.ask("PUT", f"/v1/images/{image_id}/members/one-more").status == 413


# -- the two views together ------------------------------------------------------------------------------------


def test_one_registry_in_two_words(service: Service) -> None:
    """What one API made, the other shows."""
    new = service.active(DATA, name="ü", visibility="public", os="linux", tags=["t"])
    found = seen(service, new["id"])
    assert (found["x-image-meta-is_public"], found["x-image-meta-property-os"]) == ("True", "linux")
    old = made(service, DATA, name="old", property_os="bsd")
    shown = service.show(old["id"])
    assert {"name": "old", "os": "bsd", "visibility": "shared", "checksum": MD5}.items() <= shown.items()
    private = service.create(visibility="private")
    put(service, private["id"], is_public="False", name="x")
    assert service.show(private["id"])["visibility"] == "private"


def test_an_image_has_as_many_properties_as_the_settings_say(service: Service) -> None:
    """By headers, 128 of them with 400 bytes each; twice as much is no head any more."""
    said: dict[str, str] = {f"X_Image_Meta_Property_Key{number}": "v" * 400 for number in range(128)}
    image = service.done(201, service.ask("POST", "/v1/images", None, X_Image_Meta_Name="many", **said))["image"]
    assert image["properties"] == {f"key{number}": "v" * 400 for number in range(128)}
    too_much = {name: value * 2 for name, value in said.items()}
    assert service.ask("POST", "/v1/images", None, X_Image_Meta_Name="more", **too_much).status == 431

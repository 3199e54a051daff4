"""Images API v2, asked as a client asks it, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness.transfers import Doing
from tests.library.service import NOBODYS_ID, PATCH_20, Service, over_sqlite, some_id

DATA = bytes(range(256)) * 400


# -- create ----------------------------------------------------------------------------------------------------


def test_a_new_image_is_queued(service: Service) -> None:
    """What was not said has its default, and the answer says where the image is."""
    answer = service.json("POST", "/v2/images", {"name": "n", "os": "linux", "tags": ["b", "a", "b"]})
    assert answer.status == 201
    image = answer.json()
    assert answer.headers["location"].endswith(f"/v2/images/{image['id']}")
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    expected = {"status": "queued", "visibility": "shared", "owner": "default", "min_disk": 0, "protected": False,
        "size": None, "checksum": None, "tags": ["a", "b"], "os": "linux", "os_hidden": False}  # fmt: skip
    assert expected.items() <= image.items()
    assert image["file"] == f"/v2/images/{image['id']}/file"
    assert service.show(image["id"]) == image


REFUSED_BODIES: list[tuple[object, int]] = [
    ([], 400),
    ("text", 400),
    ({"name": 5}, 400),
    ({"name": "x" * 256}, 400),
    ({"name": "a\0b"}, 400),
    ({"name": "\ud800"}, 400),
    ({"disk_format": "floppy"}, 400),
    ({"container_format": "bag"}, 400),
    ({"min_disk": -1}, 400),
    ({"min_disk": "1"}, 400),
    ({"min_ram": 2**31}, 400),
    ({"min_ram": True}, 400),
    ({"protected": "yes"}, 400),
    ({"visibility": "secret"}, 400),
    ({"tags": "t"}, 400),
    ({"tags": ["x" * 256]}, 400),
    ({"tags": [f"t{number}" for number in range(129)]}, 413),
    ({"k": 5}, 400),
    ({"k": None}, 400),
    ({"k" * 256: "v"}, 400),
    ({"": "v"}, 400),
    ({"k": "v" * 65536}, 400),
    ({f"k{number}": "v" for number in range(129)}, 413),
    ({"id": "no-uuid"}, 400),
    ({"id": "../../etc/passwd"}, 400),
    ({"id": 7}, 400),
    ({"status": "active"}, 403),
    ({"size": 7}, 403),
    ({"checksum": "x"}, 403),
    ({"os_hash_value": "x"}, 403),
    ({"created_at": "2026-11-20T22:10:32Z"}, 403),
    ({"self": "/"}, 403),
    ({"file": "/"}, 403),
    ({"deleted": True}, 403),
    ({"locations": []}, 403),
]


@over_sqlite
@pytest.mark.parametrize(("body", "status"), REFUSED_BODIES, ids=lambda value: str(value)[:40])
def test_bodies_that_make_no_image(service: Service, body: object, status: int) -> None:
    """A value that cannot be is refused with the reason, and nothing is made."""
    before = service.listed("?limit=1000")
    raw = repr(body).replace("'", '"').replace("True", "true").replace("None", "null").replace("\\x00", "\\u0000")
    answer = service.ask("POST", "/v2/images", raw.encode(), Content_Type="application/json")
    assert answer.status == status, answer
    assert service.listed("?limit=1000") == before


def test_json_that_is_none(service: Service) -> None:
    """Half a body, another encoding, a body too deep or too large: 400 or 413, and no crash."""
    for body in (b"", b"{", b'{"name": "\xff"}', b"[" * 100_000):
        assert service.ask("POST", "/v2/images", body).status == 400, body[:10]
    assert service.ask("POST", "/v2/images", b" " * (1 << 20) + b"{}").status == 413


def test_an_id_of_the_clients_own(service: Service) -> None:
    """A client may choose it, once."""
    image_id = some_id()
    assert service.create(id=image_id.upper())["id"] == image_id
    assert service.json("POST", "/v2/images", {"id": image_id}).status == 409


# -- show, and paths -------------------------------------------------------------------------------------------


@over_sqlite
@pytest.mark.parametrize(
    "segment",
    [
        "nothing",
        "..",
        "%2e%2e",
        "..%2F..%2Fetc%2Fpasswd",
        "%00",
        "%ff",
        "a" * 300,
        "00000000-0000-0000-0000-00000000000g",
    ],
)
def test_ids_that_are_none(service: Service, segment: str) -> None:
    """A path cannot lead anywhere but to an image: 404, for every method."""
    for method in ("GET", "DELETE"):
        answer = service.ask(method, f"/v2/images/{segment}")
        # `..` is resolved by nobody: it is an unknown path, or an id that is none.
        assert answer.status in (404, 405), answer
    assert service.ask("GET", f"/v2/images/{segment}/file").status == 404


METHODS = {
    "/v2/images": "GET, POST",
    "/v2/images/{id}": "GET, PATCH, DELETE",
    "/v2/images/{id}/file": "GET, HEAD, PUT",
    "/v2/images/{id}/members": "GET, POST",
    "/v2/images/{id}/members/m": "GET, PUT, DELETE",
    "/v2/images/{id}/tags/t": "PUT, DELETE",
    "/v2/images/{id}/actions/deactivate": "POST",
    "/v2/schemas/image": "GET",
    "/v1/images": "GET, POST",
    "/v1/images/{id}": "GET, HEAD, PUT, DELETE",
    "/v1/images/{id}/members": "GET, PUT",
    "/v1/images/{id}/members/m": "PUT, DELETE",
    "/v1/shared-images/m": "GET",
}


@over_sqlite
@pytest.mark.parametrize("path", METHODS)
def test_wrong_methods(service: Service, path: str) -> None:
    """405, with those that there are."""
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - set(METHODS[path].split(", ")):
        answer = service.ask(method, path.format(id=some_id()))
        assert (answer.status, answer.headers["allow"]) == (405, METHODS[path]), method


def test_v1_detail_has_methods_of_its_own(service: Service) -> None:
    """As the genuine server says it: HEAD is told GET, the others GET and HEAD."""
    found = {method: service.ask(method, "/v1/images/detail").headers["allow"] for method in ("HEAD", "PUT", "DELETE")}
    assert found == {"HEAD": "GET", "PUT": "GET, HEAD", "DELETE": "GET, HEAD"}


# -- errors ----------------------------------------------------------------------------------------------------

FORMS = {
    "*/*": "text/html; charset=UTF-8",
    "": "text/html; charset=UTF-8",
    "text/html": "text/html; charset=UTF-8",
    "text/plain": "text/plain; charset=UTF-8",
    "application/json": "application/json",
}


@over_sqlite
@pytest.mark.parametrize("accept", FORMS)
@pytest.mark.parametrize("path", ["/v2/images/x", "/v2/unknown", "/v1/images/x", "/v1/unknown/path"])
def test_errors_have_the_form_that_was_asked_for(service: Service, path: str, accept: str) -> None:
    """Clients crash of JSON errors that they did not ask for, and of errors without a type."""
    answer = service.ask("GET", path, Accept=accept)
    assert (answer.status, answer.headers["content-type"]) == (404, FORMS[accept])
    if accept == "application/json":
        assert answer.json().keys() == {"message", "code", "title"}
        assert answer.json()["code"] == "404 Not Found"
    else:
        assert b"404 Not Found" in answer.body


def test_errors_repeat_no_markup(service: Service) -> None:
    """What a client sent comes back as text, not as HTML."""
    answer = service.ask("GET", "/v2/images?sort_key=%3Cscript%3E")
    assert answer.status == 400
    assert b"<script>" not in answer.body


def test_an_answer_to_head_or_204_is_not_json(service: Service) -> None:
    """Clients parse what says it is JSON, even where there is nothing."""
    image = service.create()
    for method, path in (("HEAD", f"/v1/images/{image['id']}"), ("PUT", f"/v2/images/{image['id']}/tags/t"),
                         ("DELETE", f"/v2/images/{image['id']}")):  # fmt: skip
        answer = service.ask(method, path)
        assert answer.body == b""
        assert "json" not in answer.headers.get("content-type", ""), (method, answer.headers)


# -- discovery -------------------------------------------------------------------------------------------------


def test_versions(service: Service) -> None:
    """`/` and unknown versions: 300; where they were asked for: 200; the same list."""
    found = {path: service.ask("GET", path) for path in ("/", "/v3/images", "/versions", "/v2", "/v2/")}
    assert [answer.status for answer in found.values()] == [300, 300, 200, 200, 200]
    assert len({answer.body for answer in found.values()}) == 1
    versions = found["/"].json()["versions"]
    assert {"v2.0", "v1.1"} <= {one["id"] for one in versions}
    assert [one["id"] for one in versions if one["status"] == "CURRENT"] == [versions[0]["id"]]
    assert all(one["links"][0]["href"].startswith("http://localhost/v") for one in versions)


def test_v1_root(service: Service) -> None:
    """`/v1` leads to `/v1/`, which is the list."""
    answer = service.ask("GET", "/v1")
    assert (answer.status, answer.headers["location"]) == (302, "/v1/")
    assert "images" in service.done(200, service.ask("GET", "/v1/"))


def test_a_version_by_accept(service: Service) -> None:
    """Clients of v1 may name it in Accept and leave it out of the path."""
    image = service.create(name="by accept")
    found = service.ask("GET", "/images?name=by%20accept", Accept="application/vnd.openstack.images-v1")
    assert [one["id"] for one in service.done(200, found)["images"]] == [image["id"]]
    head = service.ask("HEAD", f"/images/{image['id']}", Accept="application/vnd.openstack.images-v1")
    assert (head.status, head.headers["x-image-meta-id"]) == (200, image["id"])


def test_schemas(service: Service) -> None:
    """What glanceclient builds its models from; without additionalProperties it refuses custom ones."""
    schema = service.done(200, service.ask("GET", "/v2/schemas/image"))
    assert schema["additionalProperties"] == {"type": "string"}
    assert service.show(service.active()["id"]).keys() == schema["properties"].keys()
    for name in ("images", "member", "members"):
        assert service.done(200, service.ask("GET", f"/v2/schemas/{name}"))["name"] == name
    assert service.ask("GET", "/v2/schemas/other").status == 404


@over_sqlite
def test_an_empty_id_is_no_image(service: Service) -> None:
    """A client whose variable is empty gets 404, not the list, which it would take for an image."""
    service.create()
    for method in ("GET", "DELETE"):
        assert service.ask(method, "/v2/images/").status == 404


@over_sqlite
def test_the_answer_to_a_create_says_how_to_import(service: Service) -> None:
    """openstacksdk's create with `use_import` refuses by itself if this answer does not."""
    answer = service.json("POST", "/v2/images", {"disk_format": "raw", "container_format": "bare"})
    assert "glance-direct" in answer.headers["openstack-image-import-methods"].split(",")
    stores = service.done(200, service.ask("GET", "/v2/info/stores"))["stores"]
    taking = [store["id"] for store in stores if store.get("read-only") != "true"]
    assert answer.headers["openstack-image-store-ids"].split(",") == taking


@over_sqlite
@pytest.mark.parametrize("path", ["/location", "/locations", "/locations/-", "/locations/0", "/deleted"])
def test_what_is_no_property_is_refused(service: Service, path: str) -> None:
    """Glance's clients read 403 as "locations are not to be had here", as they are where Glance hides them."""
    image = service.create()["id"]
    for op in ("add", "replace", "remove"):
        answer = service.patch(image, {"op": op, "path": path, "value": {"url": "http://x/", "metadata": {}}})
        assert answer.status == 403, answer


# -- patch -----------------------------------------------------------------------------------------------------


def test_patch_in_both_media_types(service: Service) -> None:
    """The same steps, said in two ways, come to the same."""
    one, other = service.create(a="1", b="2"), service.create(a="1", b="2")
    new = service.patch(
        one["id"],
        {"op": "replace", "path": "/name", "value": "new"},
        {"op": "add", "path": "/c~1d~0e", "value": "3"},
        {"op": "remove", "path": "/a"},
        {"op": "replace", "path": "/tags", "value": ["x"]},
        {"op": "replace", "path": "/b", "value": "4"},
    )
    old = service.patch(
        other["id"],
        {"replace": "/name", "value": "new"},
        {"add": "/c~1d~0e", "value": "3"},
        {"remove": "/a"},
        {"replace": "/tags", "value": ["x"]},
        {"replace": "/b", "value": "4"},
        media=PATCH_20,
    )
    for answer in (new, old):
        image = service.done(200, answer)
        assert {"name": "new", "c/d~e": "3", "b": "4", "tags": ["x"]}.items() <= image.items()
        assert "a" not in image
    assert service.show(one["id"]) == new.json()


STEPS: list[tuple[object, int]] = [
    ({"op": "replace", "path": "/name", "value": 5}, 400),
    ({"op": "replace", "path": "/name"}, 400),
    ({"op": "move", "path": "/name", "value": "x"}, 400),
    ({"op": "add", "path": "name", "value": "x"}, 400),
    ({"op": "add", "path": "/", "value": "x"}, 400),
    ({"op": "add", "path": "/a/b", "value": "x"}, 400),
    ({"op": "add", "path": "/tags/-", "value": "x"}, 400),
    ({"op": "add", "path": "/a~2", "value": "x"}, 400),
    ({"op": "add", "path": 5, "value": "x"}, 400),
    ({"path": "/name", "value": "x"}, 400),
    ("text", 400),
    ({"op": "replace", "path": "/status", "value": "active"}, 403),
    ({"op": "replace", "path": "/id", "value": "x"}, 403),
    ({"op": "add", "path": "/locations", "value": []}, 403),
    ({"op": "replace", "path": "/deleted", "value": True}, 403),
    ({"op": "remove", "path": "/name"}, 403),
    ({"op": "remove", "path": "/tags"}, 403),
    ({"op": "replace", "path": "/nothing", "value": "x"}, 409),
    ({"op": "remove", "path": "/nothing"}, 409),
    ({"op": "add", "path": "/k", "value": 5}, 400),
]


@over_sqlite
@pytest.mark.parametrize(("step", "status"), STEPS, ids=lambda value: str(value)[:60])
def test_steps_that_are_refused(service: Service, step: object, status: int) -> None:
    """Nothing of a patch is done when one of its steps cannot be."""
    image = service.create()
    answer = service.patch(image["id"], {"op": "replace", "path": "/min_ram", "value": 5}, step)
    assert answer.status == status, answer
    assert service.show(image["id"]) == image


def test_patches_of_other_kinds(service: Service) -> None:
    """415 says what there is; a body that is no list is 400; an empty list changes nothing."""
    image = service.create()
    answer = service.patch(image["id"], media="application/json")
    assert answer.status == 415
    assert PATCH_20 in answer.headers["accept-patch"]
    assert service.json("PATCH", f"/v2/images/{image['id']}", {}, Content_Type=PATCH_20).status == 400
    assert service.done(200, service.patch(image["id"])) == image


def test_too_many_properties_by_patch(service: Service) -> None:
    """The limit counts what the patch comes to; what is there already may be changed."""
    image = service.create(**{f"k{number}": "v" for number in range(128)})
    assert service.patch(image["id"], {"op": "add", "path": "/more", "value": "x"}).status == 413
    changed = service.patch(image["id"], {"op": "remove", "path": "/k0"}, {"op": "add", "path": "/more", "value": "x"})
    assert changed.status == 200


def test_formats_stay_once_there_is_data(service: Service) -> None:
    """They say what the data is."""
    image = service.active()
    answer = service.patch(image["id"], {"op": "replace", "path": "/disk_format", "value": "qcow2"})
    assert answer.status == 403
    assert service.patch(image["id"], {"op": "replace", "path": "/disk_format", "value": "raw"}).status == 200


def test_racing_patches_are_all_made(service: Service) -> None:
    """Two front ends, eight clients: nobody's property is lost."""
    image = service.create()

    def add(number: int) -> int:
        return service.patch(image["id"], {"op": "add", "path": f"/k{number}", "value": "v"}).status

    done = [Doing(lambda number=number: add(number)) for number in range(8)]  # type: ignore[misc]
    assert [one.result() for one in done] == [200] * 8
    assert {f"k{number}" for number in range(8)} <= service.show(image["id"]).keys()


# -- tags, actions ---------------------------------------------------------------------------------------------


def test_tags(service: Service) -> None:
    """Added and removed by their names, whatever these are."""
    image = service.create()
    path = f"/v2/images/{image['id']}/tags"
    for tag in ("a", "a", "b%2Fc", "%C3%BC%20x"):
        assert service.ask("PUT", f"{path}/{tag}").status == 204
    assert service.show(image["id"])["tags"] == ["a", "b/c", "ü x"]
    assert service.ask("DELETE", f"{path}/b%2Fc").status == 204
    assert service.ask("DELETE", f"{path}/b%2Fc").status == 404
    assert service.ask("PUT", f"{path}/{'x' * 256}").status == 400


def test_deactivated_images(service: Service) -> None:
    """Only what is active is deactivated; v1 gives its data to nobody, v2 to admins."""
    image = service.create()
    path = f"/v2/images/{image['id']}"
    assert service.ask("POST", f"{path}/actions/deactivate").status == 403
    service.upload(image["id"], DATA)
    assert service.ask("POST", f"{path}/actions/deactivate").status == 204
    assert service.ask("POST", f"{path}/actions/deactivate").status == 204
    assert service.show(image["id"])["status"] == "deactivated"
    assert service.ask("GET", f"/v1/images/{image['id']}").status == 403
    assert service.ask("GET", f"{path}/file").body == DATA
    assert service.ask("POST", f"{path}/actions/reactivate").status == 204
    assert service.ask("GET", f"/v1/images/{image['id']}").body == DATA


# -- lists -----------------------------------------------------------------------------------------------------


def ids(images: list[dict[str, Any]]) -> list[str]:
    """Their ids."""
    return [image["id"] for image in images]


def test_pages_follow_next(service: Service) -> None:
    """Until there is none: every image once, in order."""
    mark = some_id()
    made = [service.create(name=f"{mark}-{number}", group=mark)["id"] for number in range(5)]
    found: list[str] = []
    path: str | None = f"/v2/images?group={mark}&limit=2&sort=name:asc"
    while path is not None:
        page = service.done(200, service.ask("GET", path))
        assert page["first"] == f"/v2/images?group={mark}&limit=2&sort=name%3Aasc"
        found += ids(page["images"])
        path = page.get("next")
    assert found == made


def test_filters_of_a_list(service: Service) -> None:
    """Each filter by itself, on images that differ in one thing each."""
    mark = some_id()
    plain = service.create(name=f"{mark},plain", group=mark)
    other = service.create(
        name=f"{mark} other", group=mark, disk_format="qcow2", container_format="ovf", min_ram=512, min_disk=3,
        protected=True, visibility="public", tags=["t", f"u {mark}"], os_type="ü",
    )  # fmt: skip
    hidden = service.create(name=f"{mark} hidden", group=mark, os_hidden=True)
    active = service.active(DATA, name=f"{mark} active", group=mark)
    everything = [active, other, plain]
    rows: dict[str, list[dict[str, Any]]] = {
        "": everything,
        f"name={mark}%20other": [other],
        f'name=in:"{mark},plain",{mark}%20active'.replace('"', "%22"): [active, plain],
        f"id={plain['id']}": [plain],
        f"id=in:{plain['id']},{other['id']}": [other, plain],
        "status=active": [active],
        "status=in:active,queued": everything,
        "disk_format=qcow2": [other],
        "disk_format=in:qcow2,iso": [other],
        "container_format=ovf": [other],
        "min_ram=512": [other],
        "min_disk=3": [other],
        "protected=true": [other],
        "protected=false": [active, plain],
        "visibility=public": [other],
        "visibility=shared": [active, plain],
        "visibility=private": [],
        f"tag=u%20{mark}": [other],
        f"tag=t&tag=u%20{mark}": [other],
        "tag=t&tag=nothing": [],
        "os_type=%C3%BC": [other],
        "os_type=nothing": [],
        "owner=default": everything,
        "owner=other": [],
        f"checksum={active['checksum']}": [active],
        f"os_hash_value={active['os_hash_value']}": [active],
        f"size={len(DATA)}": [active],
        "size_min=1": [active],
        f"size_max={len(DATA) - 1}": [],
        "os_hidden=true": [hidden],
        "os_hidden=false": everything,
        f"created_at=gte:{plain['created_at']}": everything,
        f"created_at=lt:{plain['created_at']}": [],
        "created_at=gt:2000-01-01T00:00:00Z": everything,
        "updated_at=lte:2000-01-01T00:00:00Z": [],
        "updated_at=neq:2000-01-01T00:00:00%2B00:00": everything,
        "member_status=all&min_ram=512": [other],
    }
    for query, expected in rows.items():
        assert ids(service.listed(f"?group={mark}&{query}")) == ids(expected), query


@over_sqlite
@pytest.mark.parametrize(
    "query",
    [
        "limit=-1", "limit=x", "limit=9999999999999999999999", "marker=x", f"marker={NOBODYS_ID}", "visibility=x",
        "sort_key=size&sort=name", "sort_key=nothing", "sort_dir=up", "sort=name:up", "sort_dir=asc&sort_dir=asc",
        "member_status=x",
        "protected=maybe", "os_hidden=1", "size=x", "size_min=-1", "size_min=99999999999999999999", "min_ram=x",
        "created_at=x", "created_at=about:2026-01-01T00:00:00Z", "created_at=gt:", "name=in:",
        "name=in:%22a", "name=in:a,",
        "name=in:%22a%22b", "name=%00", "tag=%00", "%ff=x", "is_public=True", "k%00=v",
        "&".join(f"k{number}=v" for number in range(201)),
    ],
)  # fmt: skip
def test_lists_that_are_refused(service: Service, query: str) -> None:
    """A value that cannot be meant is 400, with what is allowed."""
    answer = service.ask("GET", f"/v2/images?{query}")
    assert answer.status == 400, answer


def test_orders_of_a_list(service: Service) -> None:
    """Both ways of saying it; the newest first if it is not said."""
    mark = some_id()
    b = service.create(name="b", group=mark, disk_format="raw")["id"]
    a = service.create(name="a", group=mark, disk_format="vdi")["id"]
    c = service.create(name="c", group=mark, disk_format="raw")["id"]
    rows = {
        "": [c, a, b],
        "sort=name:asc": [a, b, c],
        "sort=name": [c, b, a],
        "sort_key=name&sort_dir=asc": [a, b, c],
        "sort=disk_format:asc,name:desc": [c, b, a],
        "sort_key=disk_format&sort_key=name&sort_dir=asc&sort_dir=asc": [b, c, a],
        "sort_key=disk_format&sort_key=name&sort_dir=desc": [a, c, b],
        "sort=created_at:asc": [b, a, c],
    }
    for query, expected in rows.items():
        assert ids(service.listed(f"?group={mark}&{query}")) == expected, query
    assert ids(service.listed(f"?group={mark}&sort=name:asc&marker={a}")) == [b, c]
    assert service.listed(f"?group={mark}&limit=0") == []


# -- delete ----------------------------------------------------------------------------------------------------


def test_deleted_images_are_gone(service: Service) -> None:
    """For v2 there is nothing left of one; its id is not given again."""
    image = service.active(DATA)
    path = f"/v2/images/{image['id']}"
    assert service.ask("DELETE", path).status == 204
    for method, more in (("GET", ""), ("DELETE", ""), ("GET", "/file"), ("GET", "/members")):
        assert service.ask(method, path + more).status == 404
    assert service.json("POST", "/v2/images", {"id": image["id"]}).status == 409


def test_protected_images_stay(service: Service) -> None:
    """Until they are protected no more."""
    image = service.create(protected=True)
    assert service.ask("DELETE", f"/v2/images/{image['id']}").status == 403
    service.patch(image["id"], {"op": "replace", "path": "/protected", "value": False})
    assert service.ask("DELETE", f"/v2/images/{image['id']}").status == 204


def test_members_who_accept_and_reject(service: Service) -> None:
    """Only shared images have members; the rest of their story is told in test_matrix.py."""
    image, public = service.create(), service.create(visibility="public")
    path = f"/v2/images/{image['id']}/members"
    member = service.done(200, service.json("POST", path, {"member": "tenant"}))
    assert {"member_id": "tenant", "image_id": image["id"], "status": "pending"}.items() <= member.items()
    assert service.json("POST", path, {"member": "tenant"}).status == 409
    for answer in (
        service.json("POST", f"/v2/images/{public['id']}/members", {"member": "tenant"}),
        service.ask("GET", f"/v2/images/{public['id']}/members"),
    ):
        assert (answer.status, b"Only shared images have members" in answer.body) == (403, True), answer
    bodies: list[object] = [{}, [], {"member": ""}, {"member": 5}, {"member": "x" * 256}]
    for body in bodies:
        assert service.json("POST", path, body).status == 400, body
    assert service.done(200, service.ask("GET", path))["members"] == [member]
    assert service.done(200, service.ask("GET", f"{path}/tenant")) == member
    accepted = service.json("PUT", f"{path}/tenant", {"status": "accepted"})
    assert service.done(200, accepted)["status"] == "accepted"
    for status in ("maybe", 5, None):
        assert service.json("PUT", f"{path}/tenant", {"status": status}).status == 400
    assert service.json("PUT", f"{path}/nobody", {"status": "accepted"}).status == 404
    assert service.ask("DELETE", f"{path}/tenant").status == 204
    assert service.ask("DELETE", f"{path}/tenant").status == 404

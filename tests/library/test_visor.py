"""VISOR's API: every route, attribute, filter and status of it, on SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.harness.http import Body
from tests.library.service import NOBODYS_ID, OCTETS, Service, over_sqlite, some_id
from tests.library.visor import META, NEW, Visor, image_of, xml_of

DATA = bytes(range(256)) * 300
MD5 = hashlib.md5(DATA).hexdigest()
TIMES = ("created_at", "updated_at", "uploaded_at")
BRIEF = {"_id", "uri", "name", "architecture", "type", "format", "store", "size", "created_at"}


@pytest.fixture(scope="module")
def visor(service: Service) -> Visor:
    """The view of a library that others use, too."""
    return Visor(service)


# -- make ------------------------------------------------------------------------------------------------------


def test_an_image_with_data(visor: Visor) -> None:
    """200 with everything there is to know."""
    image = visor.made(DATA, format="iso", type="machine", store="fake", access="private", os_family="linux")
    for name in TIMES:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", image[name]), name
    expected = {**NEW, "status": "available", "size": len(DATA), "checksum": MD5, "format": "iso", "type": "machine",
        "store": "fake", "access": "private", "os_family": "linux", "owner": "default",
        "uri": f"http://localhost/visor/images/{image['_id']}"}  # fmt: skip
    assert expected.items() == {name: image[name] for name in image if name not in ("_id", *TIMES)}.items()


def test_a_reservation_that_gets_its_data(visor: Visor) -> None:
    """Locked and public at first; PUT of data makes it available; another one is refused and changes nothing."""
    image = visor.made()
    assert (image["status"], image["access"]) == ("locked", "public")
    assert not {"size", "checksum", "format", "store", "kernel", "uploaded_at", "location"} & image.keys()
    empty = visor.ask("GET", f"/images/{image['_id']}")
    assert (empty.status, empty.body, empty.headers["content-type"]) == (200, b"", OCTETS)
    done = image_of(visor.put(image["_id"], DATA, name="other"))
    assert (done["status"], done["name"], done["checksum"]) == ("available", "other", MD5)
    assert visor.put(image["_id"], b"other", name="third").status == 409
    assert visor.seen(image["_id"])["name"] == "other"
    assert visor.ask("GET", f"/images/{image['_id']}").body == DATA


def test_data_in_chunks(visor: Visor) -> None:
    """Its size is what came."""
    assert visor.made(iter([DATA, DATA]))["size"] == 2 * len(DATA)


REFUSED: list[tuple[dict[str, str], Body, int]] = [
    ({"name": ""}, None, 400),
    ({"name": "x" * 256}, None, 400),
    ({"architecture": ""}, None, 400),
    ({"architecture": "sparc"}, None, 400),
    ({"access": "secret"}, None, 400),
    ({"format": "floppy"}, None, 400),
    ({"type": "toaster"}, None, 400),
    ({"status": "ready"}, None, 400),
    ({"store": "nowhere"}, None, 400),
    ({"store": "nowhere"}, DATA, 400),
    ({"size": "x"}, None, 400),
    ({"size": "-1"}, None, 400),
    ({"size": str(2**70)}, None, 400),
    ({"checksum": "x"}, None, 400),
    ({"_id": NOBODYS_ID}, None, 400),
    ({"uri": "http://localhost/x"}, None, 400),
    ({"created_at": "2012-01-01"}, None, 400),
    ({"updated_at": "2012-01-01"}, None, 400),
    ({"accessed_at": "2012-01-01"}, None, 400),
    ({"access_count": "1"}, None, 400),
    ({"kernel": NOBODYS_ID}, None, 400),
    ({"ramdisk": "x/../y"}, None, 400),
    ({"kernel_id": NOBODYS_ID}, None, 400),
    ({"location": "http://away.example.org/"}, None, 400),
    ({"location": "http://example.org/missing"}, None, 404),
    ({"location": "http://example.org/x", "store": "fake"}, None, 400),
    ({"location": "file:///etc/passwd"}, None, 400),
    ({"location": "http://example.org/x"}, DATA, 400),
    ({"_Content_Type": "text/plain"}, DATA, 400),
    ({"_Content_Type": ""}, DATA, 400),
    ({"_Content_MD5": "x"}, DATA, 400),
    ({f"k{number}": "v" for number in range(129)}, None, 400),
    ({"k" * 256: "v"}, None, 400),
    ({"": "v"}, None, 400),
]


@over_sqlite
@pytest.mark.parametrize(("given", "data", "status"), REFUSED, ids=lambda value: str(value)[:50])
def test_images_that_are_refused(visor: Visor, given: dict[str, str], data: Body, status: int) -> None:
    """With {code, message}; and nothing is made."""
    before = len(visor.listed())
    answer = visor.post(data, **given)
    assert answer.status == status, answer
    told = answer.json()
    assert (told.keys(), told["code"]) == ({"code", "message"}, status)
    assert len(visor.listed()) == before


def test_what_is_mandatory(visor: Visor) -> None:
    """A name and an architecture."""
    for missing in NEW:
        answer = visor.send("POST", "/images", None, **{name: value for name, value in NEW.items() if name != missing})
        assert answer.status == 400
        assert missing in answer.json()["message"]


FAILING: list[tuple[dict[str, str], bytes, int]] = [
    ({"size": str(len(DATA) + 1)}, DATA, 400),
    ({"checksum": "d" * 32}, DATA, 400),
    ({"_Content_MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, DATA, 400),
    ({"format": "qcow2"}, DATA, 400),
    ({}, b"QFI\xfb", 400),
    ({}, b"disk full", 503),
]


@over_sqlite
@pytest.mark.parametrize(("given", "data", "status"), FAILING, ids=lambda value: str(value)[:50])
def test_data_that_fails(visor: Visor, given: dict[str, str], data: bytes, status: int) -> None:
    """Its image says error, has no data, and takes other data then, of which nothing older is expected."""
    name = some_id()
    answer = visor.post(data, name=name, **given)
    assert (answer.status, answer.json()["code"]) == (status, status), answer
    (image,) = visor.listed(f"?name={name}")
    assert image["status"] == "error"
    assert visor.ask("GET", f"/images/{image['_id']}").body == b""
    assert visor.service.show(image["_id"])["status"] == "killed"
    done = image_of(visor.put(image["_id"], DATA, format="none"))
    assert (done["status"], done["size"], done["checksum"]) == ("available", len(DATA), MD5)


def test_checksums_that_hold(visor: Visor) -> None:
    """Announced as an attribute, or in Content-MD5."""
    assert visor.made(DATA, checksum=MD5.upper(), size=str(len(DATA)))["checksum"] == MD5
    assert visor.made(b"", _Content_MD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    reserved = visor.made(checksum="d" * 32)
    assert visor.put(reserved["_id"], DATA).status == 400
    assert visor.put(reserved["_id"], DATA).status == 200


def test_kernels_and_ramdisks(visor: Visor) -> None:
    """Images that name them: by id or URI, of the type or of Amazon's format; anything else is 400."""
    kernel, ramdisk = visor.made(type="kernel"), visor.made(format="ari")
    plain = visor.made()
    image = visor.made(kernel=kernel["_id"], ramdisk=ramdisk["uri"])
    assert (image["kernel"], image["ramdisk"]) == (kernel["_id"], ramdisk["_id"])
    assert ramdisk["type"] == "ramdisk"
    assert {"kernel_id": kernel["_id"], "ramdisk_id": ramdisk["_id"]}.items() <= visor.service.show(
        image["_id"]
    ).items()
    for wrong in ({"kernel": plain["_id"]}, {"kernel": ramdisk["_id"]}, {"ramdisk": kernel["_id"]}):
        assert visor.post(**wrong).status == 400, wrong
        assert visor.put(image["_id"], **wrong).status == 400, wrong
    assert "kernel" not in image_of(visor.put(image["_id"], kernel=""))


# -- change ----------------------------------------------------------------------------------------------------


def test_what_is_given_changes(visor: Visor) -> None:
    """And nothing else; what is empty goes."""
    image = visor.made(DATA, os="linux", kept="x")
    changed = image_of(visor.put(image["_id"], name="new", architecture="i386", access="private", os="", more="5"))
    gone = {**image, "name": "new", "architecture": "i386", "access": "private", "more": 5}
    del gone["os"]
    assert changed["updated_at"] >= image["updated_at"]
    assert {**changed, "updated_at": ""} == {**gone, "updated_at": ""}


UNCHANGED: list[tuple[dict[str, str], int]] = [
    ({}, 400),
    ({"name": ""}, 400),
    ({"architecture": ""}, 400),
    ({"architecture": "z80"}, 400),
    ({"_id": NOBODYS_ID}, 400),
    ({"uri": "x"}, 400),
    ({"status": "error"}, 400),
    ({"size": "1"}, 400),
    ({"checksum": "d" * 32}, 400),
    ({"format": "vmdk"}, 400),
    ({"store": "nowhere"}, 400),
    ({"location": "http://example.org/x"}, 409),
]


@over_sqlite
@pytest.mark.parametrize(("given", "status"), UNCHANGED, ids=lambda value: str(value)[:50])
def test_changes_that_are_refused(visor: Visor, given: dict[str, str], status: int) -> None:
    """All of the request: nothing of it is done."""
    image = visor.made(DATA, format="iso")
    assert visor.put(image["_id"], **given, **({"os": "x"} if given else {})).status == status
    assert visor.listed(f"?_id={image['_id']}") == [image]


def test_what_an_image_is_already_may_be_said_again(visor: Visor) -> None:
    """A client that sends all back that it may."""
    image = visor.made(DATA, format="iso")
    same = {name: str(image[name]) for name in ("status", "size", "checksum", "format", "store", "owner", "access")}
    assert image_of(visor.put(image["_id"], **same))["size"] == len(DATA)


# -- look ------------------------------------------------------------------------------------------------------


def test_head_and_get(visor: Visor) -> None:
    """The same metadata in headers; GET with the data."""
    image = visor.made(DATA, cores="4")
    shown = {name: str(value) for name, value in image.items()}
    assert visor.seen(image["_id"]) == shown
    answer = visor.ask("GET", f"/images/{image['_id']}")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, DATA, OCTETS)
    assert answer.headers["x-stream"] == "Goliath"
    assert shown.items() <= {name.removeprefix(META): value for name, value in answer.headers.items()}.items()


def test_lists(visor: Visor) -> None:
    """Brief and in detail."""
    image = visor.made(DATA, name=some_id(), format="iso", type="machine", os="linux")
    (brief,) = visor.listed(f"?name={image['name']}", "/images")
    assert brief == {name: image[name] for name in BRIEF}
    assert visor.listed(f"?name={image['name']}") == [image]


FILTERS = [
    "_id", "uri", "name", "architecture", "owner", "status", "size", "checksum", "access", "type", "format", "store",
    "kernel", "created_at", "uploaded_at", "mark",
]  # fmt: skip


def test_every_attribute_is_a_filter(visor: Visor) -> None:
    """By equality, with what is shown; what no image has finds none."""
    mark, kernel = some_id(), visor.made(type="kernel")
    facts = {"architecture": "i386", "access": "private", "format": "iso", "type": "machine", "kernel": kernel["_id"]}
    image = visor.made(DATA, name=mark, mark=mark, **facts)
    visor.made(name="another", mark=mark)
    for name in FILTERS:
        query = f"?{name}={image[name]}" + ("" if name in ("name", "_id") else f"&name={mark}")
        assert visor.listed(query) == [image], name
        if name not in ("size", "name"):
            assert visor.listed(f"?{name}=other&name={mark}") == [], name
    assert len(visor.listed(f"?mark={mark}")) == 2
    assert visor.listed(f"?format=none&mark={mark}")[0]["name"] == "another"
    assert visor.listed("?accessed_at=x") == visor.listed("?nothing=x") == []


def test_lists_are_sorted(visor: Visor) -> None:
    """By _id unless told otherwise; by any attribute, custom ones too, up and down."""
    mark = some_id()
    facts = [("b", "i386", "2"), ("c", "x86_64", "1"), ("a", "x86_64", "3")]
    made = [visor.made(mark=mark, name=name, architecture=kind, rank=rank) for name, kind, rank in facts]
    ids = sorted(image["_id"] for image in made)
    assert [image["_id"] for image in visor.listed(f"?mark={mark}")] == ids
    for key in ("name", "rank", "architecture", "_id", "uri", "created_at", "owner", "status", "access", "checksum"):
        up = visor.listed(f"?mark={mark}&sort={key}")
        assert [image.get(key) for image in up] == sorted((image.get(key) for image in made), key=str), key
        assert visor.listed(f"?mark={mark}&sort={key}&dir=desc") == up[::-1], key


@over_sqlite
@pytest.mark.parametrize("query", ["dir=up", "sort=store", "size=big", "name=%00", "sort=%00", "name=%ff"])
def test_queries_that_are_refused(visor: Visor, query: str) -> None:
    """400, in the client's form."""
    assert visor.ask("GET", f"/images?{query}").json()["code"] == 400
    assert xml_of(visor.ask("GET", f"/images?{query}&format=xml")).findtext("code") == "400"


def test_an_empty_list(visor: Visor) -> None:
    """404, as VISOR says it."""
    answer = visor.ask("GET", "/images?name=nobody-has-this")
    assert (answer.status, answer.json()["code"]) == (404, 404)


# -- forms -----------------------------------------------------------------------------------------------------

FORMS = [
    ({}, "", "json"),
    ({"Accept": "application/json"}, "", "json"),
    ({"Accept": "*/*"}, "", "json"),
    ({"Accept": "image/png"}, "", "json"),
    ({"Accept": "application/xml"}, "", "xml"),
    ({"Accept": "text/xml;charset=utf-8"}, "", "xml"),
    ({"Accept": "application/json;q=0.5, application/xml"}, "", "xml"),
    ({"Accept": "application/xml;q=0.5, application/json"}, "", "json"),
    ({"Accept": "application/xml"}, "&format=json", "json"),
    ({}, "&format=xml", "xml"),
    ({}, "&format=iso&format=xml", "xml"),
]


@over_sqlite
@pytest.mark.parametrize(("headers", "query", "form"), FORMS, ids=str)
def test_the_form_of_an_answer(visor: Visor, headers: dict[str, str], query: str, form: str) -> None:
    """By Accept, or by ?format=, which is no filter then."""
    image = visor.made(DATA, name=some_id(), format="iso")
    answer = visor.ask("GET", f"/images?name={image['name']}{query}", None, headers)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == f"application/{form}; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    if form == "json":
        assert [found["_id"] for found in answer.json()["images"]] == [image["_id"]]
    else:
        root = xml_of(answer)
        assert (root.tag, root.findtext("images/item/_id")) == ("results", image["_id"])


def test_one_image_in_xml(visor: Visor) -> None:
    """Of POST, PUT and DELETE."""
    xml = {"Accept": "application/xml"}
    answer = visor.ask("POST", "/images", DATA, {META + "name": "a<b>&\"'ü".encode().decode("latin-1"), **xml,
        META + "architecture": "i386", "Content-Type": OCTETS})  # fmt: skip
    image = xml_of(answer)
    assert image.findtext("image/name") == "a<b>&\"'ü"
    assert image.findtext("image/size") == str(len(DATA))
    path = f"/images/{image.findtext('image/_id')}"
    assert xml_of(visor.ask("PUT", path, None, {META + "os": "x", **xml})).findtext("image/os") == "x"
    assert xml_of(visor.ask("DELETE", path, None, xml)).findtext("image/status") == "available"
    assert xml_of(visor.ask("GET", path, None, xml)).findtext("code") == "404"


HOSTILE = ["</name><status>x</status>", "<![CDATA[x]]>", "&amp;&#0;", "a\r\nb\tc", "\x01\x1b\ufffe", "]]>", "\u2028😀"]


@over_sqlite
@pytest.mark.parametrize("evil", HOSTILE, ids=ascii)
def test_no_value_becomes_markup_or_a_header(visor: Visor, evil: str) -> None:
    """Values, and names, that came by v2, whose JSON may hold anything."""
    name = "key " + evil
    image = visor.service.create(name=evil, architecture="i386", mark=some_id(), **{name: evil})
    root = xml_of(visor.ask("GET", f"/images/detail?_id={image['id']}&format=xml"))
    items = root.findall("images/item")
    kept = re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", evil)
    assert (len(items), items[0].findtext("name")) == (1, kept)
    assert len(items[0].findall("status")) == 1
    assert [one.text for one in items[0] if one.tag.startswith("key_x0020_")] == [kept]
    (listed,) = visor.listed(f"?_id={image['id']}")
    assert (listed["name"], listed[name]) == (evil, evil)
    seen = visor.seen(image["id"])
    assert not any(char in seen["name"] for char in "\r\n\0\x01\x1b")
    assert (seen["_id"], seen["status"]) == (image["id"], "locked")


def test_values_that_read_as_numbers(visor: Visor) -> None:
    """Are numbers in JSON where nothing is lost; the name stays text."""
    given = {"a": "4", "b": "-7", "c": "1.5", "d": "007", "e": "nan", "f": "1e5", "g": "9" * 30, "h": "true"}
    image = visor.made(**{**given, "name": "12"})
    expected = {**given, "a": 4, "b": -7, "c": 1.5, "name": "12"}
    assert expected.items() <= image.items()


# -- what there is not -----------------------------------------------------------------------------------------


@over_sqlite
@pytest.mark.parametrize(
    "path", ["", "/", "/nothing", "/images/a/b", "/users", "/images/%00", "/images/%ff", "/images/x"]
)
def test_paths_that_are_none(visor: Visor, path: str) -> None:
    """404 in VISOR's form."""
    answer = visor.ask("GET", path)
    assert (answer.status, answer.json()["code"]) == (404, 404), answer
    if not path.startswith("/images/") or path.endswith("b"):
        assert answer.json() == {"code": 404, "message": "Invalid operation or path."}


@over_sqlite
@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/images", "GET, POST"),
        ("DELETE", "/images", "GET, POST"),
        ("HEAD", "/images", "GET, POST"),
        ("POST", "/images/detail", "GET"),
        ("POST", "/images/x", "GET, HEAD, PUT, DELETE"),
        ("GET", "/all", "DELETE"),
        ("POST", "/status", "GET, HEAD"),
    ],
)
def test_methods_that_are_none(visor: Visor, method: str, path: str, allow: str) -> None:
    """405 with those that there are."""
    answer = visor.ask(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


@over_sqlite
@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT", "DELETE"])
def test_an_image_that_is_not_there(visor: Visor, method: str) -> None:
    """404: of HEAD in headers, without a body."""
    gone = visor.made()["_id"]
    assert visor.ask("DELETE", f"/images/{gone}").status == 200
    for image_id in (some_id(), gone, "evil\u00e9%0d%0aX-Evil:%20y".encode("ascii", "ignore").decode()):
        answer = visor.send(method, f"/images/{image_id}", None, **({"os": "x"} if method == "PUT" else {}))
        assert answer.status == 404
        assert "x-evil" not in answer.headers
        if method == "HEAD":
            assert (answer.body, answer.headers["x-error-code"]) == (b"", "404")
            assert answer.headers["x-error-message"].startswith("No image found")
        else:
            assert answer.json()["code"] == 404


def test_the_heartbeat(visor: Visor) -> None:
    """OK."""
    answer = visor.ask("GET", "/status")
    assert (answer.status, answer.body) == (200, b"OK")


# -- delete ----------------------------------------------------------------------------------------------------


def test_delete(visor: Visor) -> None:
    """200 with what it was; a protected image stays."""
    image = visor.made(DATA)
    assert image_of(visor.ask("DELETE", f"/images/{image['_id']}")) == image
    kept = visor.service.create(protected=True)
    assert visor.ask("DELETE", f"/images/{kept['id']}").status == 403
    visor.service.patch(kept["id"], {"op": "replace", "path": "/protected", "value": False})


# -- one library, three views ----------------------------------------------------------------------------------


def test_an_image_of_visors_in_the_other_views(visor: Visor) -> None:
    """The same name, size, checksum, formats, visibility, owner, properties and bytes."""
    made = visor.made(DATA, format="iso", access="private", os="linux")
    image = visor.service.show(made["_id"])
    expected = {"name": "n", "status": "active", "size": len(DATA), "checksum": MD5, "disk_format": "iso",
        "container_format": "bare", "visibility": "private", "owner": "default", "os": "linux",
        "architecture": "x86_64"}  # fmt: skip
    assert expected.items() <= image.items()
    for path in (f"/v1/images/{made['_id']}", f"/v2/images/{made['_id']}/file"):
        assert visor.service.ask("GET", path).body == DATA
    v1 = visor.service.ask("HEAD", f"/v1/images/{made['_id']}").headers
    assert (v1["etag"], v1["x-image-meta-property-os"]) == (MD5, "linux")


def test_images_of_glances_in_visors_view(visor: Visor) -> None:
    """In its words; what VISOR has no word for is close to it, or a custom attribute."""
    fields: dict[str, Any] = {
        "name": some_id(),
        "disk_format": "aki",
        "container_format": "aki",
        "os": "x",
        "tags": ["t"],
    }
    image = visor.service.create(**fields, visibility="public", kernel_id="k", status_="s")
    shown = {"format": "aki", "type": "kernel", "access": "public", "status": "locked", "kernel": "k", "os": "x"}
    (listed,) = visor.listed(f"?name={fields['name']}")
    assert shown.items() <= listed.items()
    assert visor.service.upload(image["id"], DATA).status == 204
    assert visor.seen(image["id"])["status"] == "available"
    visor.service.ask("POST", f"/v2/images/{image['id']}/actions/deactivate")
    assert visor.seen(image["id"])["status"] == "locked"
    assert visor.put(image["id"], DATA).status == 409
    assert visor.listed(f"?name={fields['name']}&status=locked")
    assert visor.listed(f"?name={fields['name']}&status=available") == []
    hidden = visor.service.create(name=fields["name"], os_hidden=True)
    assert hidden["id"] not in [one["_id"] for one in visor.listed(f"?name={fields['name']}")]


@over_sqlite
@pytest.mark.parametrize("name", ["status", "size", "_id", "location", "uri"])
def test_no_property_hides_an_attribute(visor: Visor, name: str) -> None:
    """Of what Glance's clients call as VISOR calls its own."""
    answer = visor.service.ask("POST", "/v1/images", None, **{f"x_image_meta_property_{name}": "evil"})
    image_id = visor.service.done(201, answer)["image"]["id"]
    assert "evil" not in visor.seen(image_id).values()
    assert "evil" not in visor.listed(f"?_id={image_id}")[0].values()


def test_xml_is_one_document(visor: Visor) -> None:
    """However many there are."""
    mark = some_id()
    for _ in range(3):
        visor.made(mark=mark)
    answer = visor.ask("GET", f"/images?mark={mark}&format=xml")
    assert answer.body.startswith(b'<?xml version="1.0" encoding="UTF-8"?><results>')
    assert len(ElementTree.fromstring(answer.body).findall("images/item")) == 3

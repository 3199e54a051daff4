"""Who is asking, in VISOR's view: users who sign, and everybody else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.harness.mover import Mover
from tests.library.conftest import FAKE
from tests.library.service import OCTETS, Service, some_id
from tests.library.visor import META, NEW, Visor, authorization, image_of, xml_of

DATA = b"data" * 1000
MD5 = base64.b64encode(hashlib.md5(DATA).digest()).decode()
USERS = [
    {"access_key": "ann", "secret_key": "s3cret", "email": "ann@example.org"},
    {"access_key": "bob", "secret_key": "0ther", "email": ""},
    {"access_key": "root", "secret_key": "r00t", "tenant": "ops", "roles": ["admin"]},
]


def write(path: Path, users: object, mode: int = 0o600) -> None:
    """The file of users, anew."""
    beside = path.with_name("new")
    beside.write_text(json.dumps({"users": users}) if not isinstance(users, str) else users)
    beside.chmod(mode)
    beside.replace(path)


@pytest.fixture(scope="module")
def closed(module_room: Path) -> Iterator[Service]:
    """A service with users."""
    state = module_room / "state"
    state.mkdir(mode=0o700)
    write(state / "visor-users.json", USERS)
    with ExitStack() as stack:
        mover = Mover(module_room, {}, front_ends=2, program=FAKE)
        stack.callback(mover.close)
        yield Service(mover.start())


@pytest.fixture(scope="module")
def ann(closed: Service) -> Visor:
    """A user."""
    return Visor(closed, "ann", "s3cret")


@pytest.fixture(scope="module")
def bob(closed: Service) -> Visor:
    """Another one."""
    return Visor(closed, "bob", "0ther")


def test_a_signed_request(ann: Visor) -> None:
    """Of every kind: with attributes, data, a query, and a type."""
    image = ann.made(DATA, os="linux", access="private", owner="bob", _Content_MD5=MD5)
    assert image["owner"] == "ann"
    assert ann.listed(f"?_id={image['_id']}&format=json") == [image]
    assert ann.ask("GET", f"/images/{image['_id']}").body == DATA
    assert image_of(ann.put(image["_id"], name="new"))["name"] == "new"
    assert ann.ask("DELETE", f"/images/{image['_id']}").status == 200


def test_a_path_without_the_prefix(ann: Visor) -> None:
    """As VISOR's own clients sign it, behind a proxy that adds it."""
    headers = {"Date": formatdate(usegmt=True)}
    headers["Authorization"] = ann.signed("HEAD", "/images/" + ann.made()["_id"], headers)
    assert ann.ask("HEAD", "/images/" + ann.made()["_id"], None, headers).status == 403
    image_id = ann.made()["_id"]
    headers["Authorization"] = authorization("ann", "s3cret", "HEAD", f"/images/{image_id}", headers)
    assert ann.ask("HEAD", f"/images/{image_id}", None, headers).status == 200


FORGED = [
    (None, "Authorization not provided."),
    ("", "Authorization not provided."),
    ("Basic YTpi", "No access key found in Authorization."),
    ("VISOR", "No access key found in Authorization."),
    ("VISOR :x", "No access key found in Authorization."),
    ("VISOR eve:x", "No user found with access key 'eve'."),
    ("VISOR ann:x", "Invalid authorization, signatures do not match."),
    ("VISOR ann:", "Invalid authorization, signatures do not match."),
    ("VISOR ann:\u00e9", "Invalid authorization, signatures do not match."),
]


@pytest.mark.parametrize(("sent", "message"), FORGED, ids=str)
def test_requests_that_are_not_signed(closed: Service, sent: str | None, message: str) -> None:
    """403 with VISOR's text, also from this host, for every route but the heartbeat; HEAD says it in headers."""
    visor = Visor(closed)
    headers = {"Date": formatdate(usegmt=True)} | ({} if sent is None else {"Authorization": sent})
    for method, path in (("GET", "/images"), ("POST", "/images"), ("DELETE", "/all"), ("GET", f"/images/{some_id()}")):
        answer = visor.ask(method, path, None, headers)
        assert (answer.status, answer.json()) == (403, {"code": 403, "message": message})
    assert xml_of(visor.ask("GET", "/images?format=xml", None, headers)).findtext("message") == message
    answer = visor.ask("HEAD", f"/images/{some_id()}", None, headers)
    assert (answer.status, answer.headers["x-error-code"], answer.headers["x-error-message"]) == (403, "403", message)
    assert visor.ask("GET", "/status", None, headers).status == 200


def test_what_is_signed_holds(ann: Visor) -> None:
    """Another method, path, attribute, type, checksum, date or secret than was signed is 403."""
    signed = {
        "Date": formatdate(usegmt=True),
        "Content-Type": OCTETS,
        **{META + key: value for key, value in NEW.items()},
    }
    sent = {**signed, "Authorization": ann.signed("POST", "/visor/images", signed)}
    later = formatdate(timeval=None, usegmt=True, localtime=False).replace("GMT", "+0000")
    changed = [
        {META + "name": "other"}, {META + "more": "x"}, {"Content-Type": "text/plain"}, {"Date": later},
        {"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
        {"Authorization": authorization("ann", "0ther", "POST", "/visor/images", signed)},
        {"Authorization": authorization("ann", "s3cret", "PUT", "/visor/images", signed)},
        {"Authorization": authorization("ann", "s3cret", "POST", "/visor/all", signed)},
        {"Authorization": authorization("bob", "s3cret", "POST", "/visor/images", signed)},
    ]  # fmt: skip
    for one in changed:
        assert ann.ask("POST", "/images", None, {**sent, **one}).status == 403, one
    assert ann.ask("POST", "/images", None, sent).status == 200


@pytest.mark.parametrize("date", [None, "yesterday", "Mon, 02 Jul 2012 10:00:00 GMT", "Fri, 02 Jul 2100 10:00:00 GMT"])
def test_old_requests(ann: Visor, date: str | None) -> None:
    """A request that was recorded cannot be sent again later: its date is signed, and must be near."""
    headers = {} if date is None else {"Date": date}
    headers["Authorization"] = authorization("ann", "s3cret", "GET", "/visor/images", headers)
    answer = ann.service.ask("GET", "/visor/images", None, **headers)
    assert (answer.status, "Date" in answer.json()["message"]) == (403, True)


def test_whose_images_are_seen(closed: Service, ann: Visor, bob: Visor) -> None:
    """Public ones and one's own; `owner` looks for one of them; another's private image is not there."""
    mark = some_id()
    mine, theirs = ann.made(mark=mark, access="private")["_id"], bob.made(mark=mark, access="private")["_id"]
    public = bob.made(mark=mark)["_id"]
    assert {image["_id"] for image in ann.listed(f"?mark={mark}")} == {mine, public}
    assert [image["_id"] for image in ann.listed(f"?mark={mark}&owner=bob")] == [public]
    assert [image["_id"] for image in ann.listed(f"?mark={mark}&access=private")] == [mine]
    assert ann.ask("GET", f"/images/{theirs}").status == 404
    assert ann.put(theirs, os="x").status == ann.ask("DELETE", f"/images/{theirs}").status == 404
    assert ann.put(public, os="x").status == ann.ask("DELETE", f"/images/{public}").status == 403
    root = Visor(closed, "root", "r00t")
    assert {image["_id"] for image in root.listed(f"?mark={mark}")} == {mine, theirs, public}
    assert image_of(root.put(theirs, owner="ann"))["owner"] == "ann"
    assert root.made()["owner"] == "ops"


def test_a_kernel_that_is_somebody_elses(ann: Visor, bob: Visor) -> None:
    """Is none for whoever may not see it."""
    kernel = bob.made(type="kernel", access="private")["_id"]
    assert ann.post(kernel=kernel).status == 400
    assert bob.post(kernel=kernel).status == 200


def test_all_of_a_users_images(ann: Visor, bob: Visor) -> None:
    """DELETE of all is of one's own."""
    ann.made(DATA, access="private")
    kept = bob.made()["_id"]
    assert ann.ask("DELETE", "/all").status == 200
    assert [image for image in ann.listed() if image["owner"] == "ann"] == []
    assert bob.seen(kept)


def test_images_of_users_are_their_tenants(closed: Service, ann: Visor) -> None:
    """In the other views."""
    assert closed.show(ann.made()["_id"])["owner"] == "ann"


BROKEN = [
    ("{", 0o600),
    ('{"users": [{"access_key": "ann"}]}', 0o600),
    ('{"users": [], "more": 1}', 0o600),
    ([USERS[0], USERS[0]], 0o600),
    ([{"access_key": "a:b", "secret_key": "x"}], 0o600),
    ([{"access_key": "ann", "secret_key": ""}], 0o600),
    (USERS, 0o644),
]


@pytest.mark.parametrize(("users", "mode"), BROKEN, ids=lambda value: str(value)[:40])
def test_a_file_that_cannot_be_used(closed: Service, ann: Visor, users: object, mode: int) -> None:
    """Lets nobody in, 503, until it is mended; the log says why, and no secret."""
    file = closed.mover.state_dir / "visor-users.json"
    try:
        write(file, users, mode)
        assert ann.ask("GET", "/images").status == 503
        assert Visor(closed).ask("GET", "/images").status == 503
        assert "visor-users.json" in closed.mover.log()
        assert "s3cret" not in closed.mover.log()
    finally:
        write(file, USERS)
    assert ann.made()


def test_users_change_at_once(closed: Service, ann: Visor) -> None:
    """Without a restart: none is nobody, no file is this host."""
    file = closed.mover.state_dir / "visor-users.json"
    try:
        write(file, [])
        assert ann.ask("GET", "/images").status == 403
        file.unlink()
        assert Visor(closed).made()["owner"] == "default"
        assert Visor(closed).ask("GET", "/images", None, {"X-Forwarded-For": "127.0.0.1"}).status == 403
        assert Visor(closed).ask("GET", "/images", None, {"Origin": "https://evil.example"}).status == 403
    finally:
        write(file, USERS)
    assert ann.made()


def test_tokens_close_this_view_too(closed: Service, ann: Visor) -> None:
    """With a table of tokens and no users, this view is not the way round it."""
    tokens, file = closed.mover.state_dir / "tokens.json", closed.mover.state_dir / "visor-users.json"
    try:
        tokens.write_text('{"tokens": []}')
        file.unlink()
        assert Visor(closed).ask("GET", "/images").status == 403
        assert Visor(closed).ask("DELETE", "/all").status == 403
    finally:
        tokens.unlink()
        write(file, USERS)
    assert ann.made()

"""The image library from the client's side: the Images API v2, over one connection at a time."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

from mover.client.errors import ClientError, LocalError, VerificationError

OCTETS = "application/octet-stream"
PATCH = "application/openstack-images-v2.1-json-patch"
PIECE_BYTES = 1 << 20
# Of one answer of the server's; a body may take as long as it keeps coming.
TIMEOUT_S = 60.0
# Hashing and flushing what was uploaded, before the answer: an image of a terabyte takes its time.
PUBLISH_S = 3600.0

Image = dict[str, Any]
Job = dict[str, Any]
Moved = Callable[[int], None]


class LibraryRefused(ClientError):
    """The server answered with an error."""

    def __init__(self, what: str, status: int, reason: str) -> None:
        super().__init__(what, f"{status} {reason}", _ADVICE.get(status, "the server's log says more"))
        self.status = status


class LibraryUnreachable(ClientError):
    """The server cannot be reached, or the connection broke off."""


_ADVICE = {
    400: "correct what is asked for",
    401: "give a token with --token-file",
    403: "it is another tenant's, or protected, or not in a state for this",
    404: "see mover image list, and mover image jobs",
    409: "it has its data already, or somebody else is at it",
    413: "free space in the store, or raise the limit",
    415: "say what the file is with --disk-format",
}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """As http.client asks for it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


class Library:
    """A library at `url`; `token` goes with every request. Raises ClientError for all that goes wrong."""

    def __init__(
        self, url: str, token: str | None = None, unix_socket: Path | None = None, ca_file: Path | None = None
    ) -> None:
        """Raises ValueError for what is no URL of a service, OSError for a `ca_file` that is none."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL of a service")
        if parts.username is not None or parts.path.strip("/") or parts.query:
            raise ValueError("it has more than a host and a port")
        _ = parts.port  # raises ValueError for what is no number
        self._place = parts.netloc
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._unix_socket = unix_socket
        self._headers = {} if token is None else {"X-Auth-Token": token}

    # -- metadata ----------------------------------------------------------------------------------------------

    def images(self, filters: Sequence[tuple[str, str]] = (), limit: int | None = None) -> Iterator[Image]:
        """All images that the filters let through, page by page."""
        target: str | None = (
            f"/v2/images?{urlencode([*filters, ('limit', str(min(limit or 200, 200)))], quote_via=quote)}"
        )
        left = limit
        while target is not None:
            page = self.ask("list images", "GET", target)
            for image in page["images"]:
                if left == 0:
                    return
                left = None if left is None else left - 1
                yield image
            target = page.get("next")

    def find(self, name: str) -> Image:
        """The image of this id, or the only one of this name."""
        if name:
            with contextlib.suppress(LibraryRefused):
                return self.show(name)
        quoted = re.sub(r'(["\\])', r"\\\1", name)
        found = list(self.images([("name", f'in:"{quoted}"')], 2)) if name else []
        if len(found) != 1:
            why = "no image has this id or name" if not found else "more than one image has this name"
            raise ClientError(f"find image {name}", why, "see mover image list, and name its id")
        return found[0]

    def show(self, image_id: str) -> Image:
        """One image."""
        found: Image = self.ask(f"show image {image_id}", "GET", f"/v2/images/{quote(image_id, safe='')}")
        return found

    def create(self, fields: Mapping[str, Any]) -> Image:
        """A new image, without data."""
        made: Image = self.ask("create an image", "POST", "/v2/images", fields, "application/json")
        return made

    def change(self, image_id: str, steps: Sequence[Mapping[str, Any]]) -> Image:
        """Patch an image."""
        changed: Image = self.ask(f"change image {image_id}", "PATCH", f"/v2/images/{image_id}", list(steps), PATCH)
        return changed

    def delete(self, image_id: str) -> None:
        """Delete an image."""
        self.ask(f"delete image {image_id}", "DELETE", f"/v2/images/{image_id}")

    def members(self, image_id: str) -> list[dict[str, Any]]:
        """Whom an image is shared with."""
        found: list[dict[str, Any]] = self.ask("list members", "GET", f"/v2/images/{image_id}/members")["members"]
        return found

    def share(self, image_id: str, tenant: str) -> None:
        """Offer an image to a tenant."""
        body = {"member": tenant}
        self.ask(f"share image {image_id}", "POST", f"/v2/images/{image_id}/members", body, "application/json")

    def unshare(self, image_id: str, tenant: str) -> None:
        """Offer it no more."""
        self.ask(f"unshare image {image_id}", "DELETE", f"/v2/images/{image_id}/members/{quote(tenant, safe='')}")

    def answer_offer(self, image_id: str, tenant: str, status: str) -> None:
        """As a tenant, say `accepted` or `rejected`."""
        target = f"/v2/images/{image_id}/members/{quote(tenant, safe='')}"
        self.ask(f"answer for image {image_id}", "PUT", target, {"status": status}, "application/json")

    def ask(self, what: str, method: str, target: str, body: object = None, kind: str = "") -> Any:
        """One request; the JSON of its answer, None if there is none."""
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers if not kind else {**self._headers, "Content-Type": kind}
        with self._connection(what) as connection:
            connection.request(method, target, data, headers)
            answer = connection.getresponse()
            text = answer.read()
            _check(what, answer, text)
            return json.loads(text) if text else None

    def stores(self) -> list[dict[str, Any]]:
        """Where data can be, with what only an admin is told if the caller is one."""
        try:
            answer = self.ask("list stores", "GET", "/v2/info/stores/detail")
        except LibraryRefused as error:
            if error.status != 403:
                raise
            answer = self.ask("list stores", "GET", "/v2/info/stores")
        found: list[dict[str, Any]] = answer["stores"]
        return found

    # -- jobs --------------------------------------------------------------------------------------------------

    def begin_import(self, image_id: str, method: Mapping[str, Any], stores: Sequence[str], everywhere: bool) -> str:
        """Begin a job that brings an image's data, or copies of them; its id. `everywhere` is all stores."""
        body: dict[str, Any] = {"method": dict(method)}
        if stores:
            body["stores"] = list(stores)
        if everywhere:
            body["all_stores"] = True
        return self._begin(f"import image {image_id}", f"/v2/images/{image_id}/import", body)

    def begin_export(self, image_id: str, target: str) -> str:
        """Begin a job that writes an image onto a disk; its id."""
        return self._begin(f"export image {image_id}", f"/v2/images/{image_id}/export", {"target": target})

    def _begin(self, what: str, target: str, body: Mapping[str, Any]) -> str:
        with self._connection(what) as connection:
            headers = {**self._headers, "Content-Type": "application/json"}
            connection.request("POST", target, json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            _check(what, answer, answer.read())
            return (answer.getheader("Location") or "").rpartition("/")[2]

    def job(self, job_id: str) -> Job:
        """One job, as /v2/tasks shows it."""
        found: Job = self.ask(f"look at job {job_id}", "GET", f"/v2/tasks/{quote(job_id, safe='')}")
        return found

    def jobs(self, image_id: str | None = None) -> Iterator[Job]:
        """An image's jobs, the newest first; without one all there are, for admins."""
        target: str | None = "/v2/tasks?limit=200" if image_id is None else f"/v2/images/{image_id}/tasks"
        while target is not None:
            page = self.ask("list jobs", "GET", target)
            yield from page["tasks"]
            target = page.get("next")

    def cancel(self, job_id: str) -> None:
        """Have a job cancelled; it has ended when it says so."""
        self.ask(f"cancel job {job_id}", "DELETE", f"/v2/tasks/{quote(job_id, safe='')}")

    # -- data --------------------------------------------------------------------------------------------------

    def received(self, image_id: str) -> int:
        """How many bytes of an interrupted upload the server has."""
        what = f"look at image {image_id}"
        with self._connection(what) as connection:
            connection.request("HEAD", f"/v2/images/{image_id}/file", None, self._headers)
            answer = connection.getresponse()
            _check(what, answer, answer.read())
            return int(answer.getheader("Upload-Offset", "0"))

    def upload(self, image_id: str, file: BinaryIO, offset: int, moved: Moved) -> None:
        """Send a file's bytes from `offset` on; what breaks off can go on later."""
        what = f"upload image {image_id}"
        size = os.fstat(file.fileno()).st_size
        file.seek(offset)
        headers = {"Content-Type": OCTETS, "Content-Length": str(size - offset)}
        if size:
            headers["Content-Range"] = f"bytes {offset}-{max(size - 1, offset)}/{size}"
        with self._connection(what) as connection:
            connection.request(
                "PUT", f"/v2/images/{image_id}/file", _counted(_read(file), moved), {**self._headers, **headers}
            )
            assert connection.sock is not None
            connection.sock.settimeout(PUBLISH_S)
            answer = connection.getresponse()
            _check(what, answer, answer.read())

    def download(self, image: Image, path: Path, resume: bool, moved: Moved) -> str:
        """Write an image's data to `path`, by way of a file beside it; the hash that it has, and was compared with."""
        beside = path.with_name(path.name + ".part")
        algorithm, expected = _expected(image)
        hashed = hashlib.new(algorithm)
        try:
            with beside.open("r+b" if resume and beside.exists() else "w+b") as file:
                for piece in self._pieces(image, file):
                    hashed.update(piece)
                    moved(len(piece))
                file.flush()
                os.fsync(file.fileno())
            if hashed.hexdigest() != expected:
                raise VerificationError(f"image {image['id']}", algorithm, expected, hashed.hexdigest(), str(beside))
            beside.replace(path)
        except OSError as error:
            raise LocalError.from_os(path, "write", error) from error
        return f"{algorithm} {expected}"

    def _pieces(self, image: Image, file: BinaryIO) -> Iterator[bytes]:
        """The image's bytes: those that the file has, then the server's, which are written to it."""
        yield from _read(file)
        at = file.tell()
        if at >= image["size"]:
            return
        what, headers = f"download image {image['id']}", {**self._headers, **({"Range": f"bytes={at}-"} if at else {})}
        with self._connection(what) as connection:
            connection.request("GET", f"/v2/images/{image['id']}/file", None, headers)
            answer = connection.getresponse()
            if answer.status != (206 if at else 200):
                _check(what, answer, answer.read())
                raise LibraryRefused(what, answer.status, "instead of the data")
            while piece := answer.read(PIECE_BYTES):
                _write(file, piece)
                yield piece

    @contextlib.contextmanager
    def _connection(self, what: str) -> Iterator[http.client.HTTPConnection]:
        if self._unix_socket is not None:
            connection: http.client.HTTPConnection = _UnixConnection(self._unix_socket)
        elif self._tls is not None:
            connection = http.client.HTTPSConnection(self._place, timeout=TIMEOUT_S, context=self._tls)
        else:
            connection = http.client.HTTPConnection(self._place, timeout=TIMEOUT_S)
        try:
            yield connection
        except (OSError, http.client.HTTPException) as error:
            raise LibraryUnreachable(what, *_unreachable(error)) from error
        finally:
            connection.close()


def _unreachable(error: OSError | http.client.HTTPException) -> tuple[str, str]:
    """Why, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate: {error.verify_message}", "name who vouches for it with --ca-file, or check --url"
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return why, "check --url, and whether `mover serve` runs there"


def _expected(image: Image) -> tuple[str, str]:
    if image["os_hash_value"]:
        return image["os_hash_algo"], image["os_hash_value"]
    if image["checksum"]:
        return "md5", image["checksum"]
    raise ClientError(f"download image {image['id']}", f"it is {image['status']}, and has no data", "upload it first")


def _read(file: BinaryIO) -> Iterator[bytes]:
    try:
        while piece := file.read(PIECE_BYTES):
            yield piece
    except OSError as error:  # not the server's, whose connection may be open around this
        raise LocalError.from_os(file.name, "read", error) from error


def _write(file: BinaryIO, piece: bytes) -> None:
    """All of it goes to the system, so that what it says is about the file, and now."""
    try:
        file.write(piece)
        file.flush()
    except OSError as error:
        raise LocalError.from_os(file.name, "write", error, "make room, and go on with --resume") from error


def _counted(pieces: Iterator[bytes], moved: Moved) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        moved(len(piece))


def _check(what: str, answer: http.client.HTTPResponse, text: bytes) -> None:
    if answer.status >= 300:
        raise LibraryRefused(what, answer.status, _reason(text) or answer.reason)


def _reason(text: bytes) -> str:
    """The sentence of an error, which is HTML for those who accept anything."""
    lines = [line.strip() for line in text.decode(errors="replace").splitlines()]
    found = [line for line in lines if line.endswith("<br /><br />")]
    return unescape(found[0].removesuffix("<br /><br />")) if found else ""

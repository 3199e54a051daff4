"""A source at a URL: what its server may do to who reads it. The server is real, the faults are scripted."""

from __future__ import annotations

import errno
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from config.url_rules import UrlRefused, UrlRules
from tests.harness.certificates import Authority
from tests.harness.sources import Asked, Fault, Sources, sources
from tests.harness.waiting import PATIENCE_S
from workers.store.urls import connection as url_connection
from workers.store.urls.answers import Found
from workers.store.urls.connection import resolve
from workers.store.urls.source import ATTEMPTS, Missing, Unreachable, UrlSource

DATA = random.Random(1).randbytes(1_000_000)
LOOPBACK = ("127.0.0.0/8", "::1")


@pytest.fixture(scope="module")
def one_server() -> Iterator[Sources]:
    with sources() as server:
        yield server


@pytest.fixture
def server(one_server: Sources) -> Sources:
    one_server.fault = lambda asked: False
    one_server.sources.clear()
    one_server.seen.clear()
    one_server.connections = 0
    return one_server


class Reader:
    """A source whose pauses are counted and not waited for."""

    def __init__(
        self, url: str, *ports: int, allow: tuple[str, ...] = LOOPBACK, resolver: object = resolve, ca_file: str = ""
    ) -> None:
        self.pauses: list[float] = []
        rules = UrlRules(allow, ports, ca_file)
        self.source = UrlSource(url, rules, resolver, lambda stop, pause_s: self.pauses.append(pause_s))  # type: ignore[arg-type]

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()

    def find(self, expected: str = "") -> Found:
        return self.source.find(expected)

    def read(self, offset: int = 0, length: int = len(DATA)) -> bytes:
        buffer = bytearray(length)
        self.source.read_into(memoryview(buffer), offset)
        return bytes(buffer)


def first_times(count: int, fault: Fault) -> Fault:
    """The fault, for the first requests of each path and last byte."""
    seen: dict[str, int] = {}

    def sometimes(asked: Asked) -> bool:
        key = f"{asked.path} {asked.headers.get('Range', '').rpartition('-')[2]}"
        seen[key] = seen.get(key, 0) + 1
        return fault(asked) if seen[key] <= count else False

    return sometimes


def cut(asked: Asked, at: int = 300_000) -> bool:
    asked.cut_at = at
    return False


def changed(**headers: str | None) -> Fault:
    def fault(asked: Asked) -> bool:
        asked.changes = {name.replace("_", "-"): value for name, value in headers.items()}
        return False

    return fault


def vanish(asked: Asked) -> bool:
    """The server dies before it answers."""
    asked.connection.shutdown(socket.SHUT_RDWR)
    asked.close_connection = True
    return True


def test_ranges_are_read_by_many_threads_on_connections_that_stay_open(server: Sources) -> None:
    with Reader(server.put("/a", DATA), server.port) as reader:
        assert reader.find() == Found(len(DATA), True, '"1"')
        pieces: dict[int, bytes] = {}

        def read(number: int) -> None:
            for at in range(number * 50_000, len(DATA), 200_000):
                pieces[at] = reader.read(at, 50_000)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert b"".join(pieces[at] for at in sorted(pieces)) == DATA
        assert len(server.seen) == 21
        assert server.connections <= 4


PASSING: dict[str, Fault] = {
    "500": lambda asked: asked.answer(500),
    "503": lambda asked: asked.answer(503),
    "429": lambda asked: asked.answer(429),
    "cut": cut,
    "cut in the first bytes": lambda asked: cut(asked, 3),
    "gone before the answer": vanish,
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_fails_for_a_moment_is_asked_for_again(server: Sources, fault: str) -> None:
    server.fault = first_times(2, PASSING[fault])
    with Reader(server.put("/a", DATA), server.port) as reader:
        assert reader.find().size == len(DATA)
        assert reader.read() == DATA
        assert reader.pauses
        assert max(reader.pauses) <= 2


def test_a_source_that_drops_goes_on_where_it_was(server: Sources) -> None:
    with Reader(server.put("/a", DATA), server.port) as reader:
        reader.find()
        server.fault = cut  # every time, after 300 000 bytes
        assert reader.read() == DATA
        assert server.seen[2:] == [f"GET /a bytes={at}-999999" for at in (300_000, 600_000, 900_000)]


def test_a_server_is_left_alone_as_long_as_it_asks_for_and_given_up_in_the_end(server: Sources) -> None:
    server.fault = lambda asked: asked.answer(503, Retry_After="7")
    with Reader(server.put("/a", DATA), server.port) as reader:
        with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:\d+ cannot be read: it answers with status 503"):
            reader.find()
        assert reader.pauses == [7.0] * (ATTEMPTS - 1)


BAD: dict[str, tuple[Fault, str]] = {
    "another range": (changed(Content_Range=f"bytes 1-999999/{len(DATA)}"), "another range than was asked for"),
    "no Content-Range": (changed(Content_Range=None), "a range without saying which"),
    "junk for a range": (changed(Content_Range="bytes=0-9"), "a range without saying which"),
    "a range that cannot be": (changed(Content_Range="bytes 9-0/5"), "a range that cannot be"),
    "packed": (changed(Content_Encoding="gzip"), "sends the data packed"),
    "several ranges": (changed(Content_Type="multipart/byteranges; boundary=x"), "several ranges"),
    "another length": (changed(Content_Length="17"), "another range than was asked for"),
    "redirects without end": (lambda asked: asked.redirect(asked.path), "redirects more than 5 times"),
    "a redirect to nowhere": (lambda asked: asked.answer(302), "redirects without saying where"),
    "status 418": (lambda asked: asked.answer(418), "answers with status 418"),
}


@pytest.mark.parametrize("fault", BAD)
def test_answers_that_cannot_be_used_are_errors_at_once(server: Sources, fault: str) -> None:
    with Reader(server.put("/a", DATA), server.port) as reader:
        reader.find()
        server.fault, why = BAD[fault]
        with pytest.raises(Unreachable, match=why):
            reader.read()
        assert reader.pauses == []


CHANGES: dict[str, Callable[[Sources], object]] = {
    "another ETag": lambda server: server.put("/a", DATA, etag='"2"'),
    "no ETag any more": lambda server: server.put("/a", DATA, etag=""),
    "another size": lambda server: server.put("/a", DATA + b"x"),
    "no ranges any more": lambda server: server.put("/a", DATA, ranges=False),
    "cut to less than is read": lambda server: server.put("/a", DATA[:7]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changes_is_an_error_and_never_a_mixture(server: Sources, change: str) -> None:
    with Reader(server.put("/a", DATA), server.port) as reader:
        reader.find()

        def fault(asked: Asked) -> bool:
            """It breaks off, and is another one when it is asked for again."""
            server.fault = lambda asked: False
            cut(asked)
            source = server.sources["/a"]
            CHANGES[change](server)
            asked._send(source)
            return True

        server.fault = fault
        with pytest.raises(OSError, match="has changed") as stale:
            reader.read()
        assert stale.value.errno == errno.ESTALE


def test_a_source_without_an_etag_is_told_by_its_date_and_expected_as_it_was(server: Sources) -> None:
    url = server.put("/a", DATA, etag='W/"7"', modified="Mon, 02 Nov 2026 10:00:00 GMT")
    with Reader(url, server.port) as reader:
        version = reader.find().version
        assert version == 'W/"7" Mon, 02 Nov 2026 10:00:00 GMT'
        reader.find(version)
        server.put("/a", DATA, etag='W/"7"', modified="Mon, 02 Nov 2026 11:00:00 GMT")
        with pytest.raises(OSError, match="has changed"):
            reader.read()
        with pytest.raises(OSError, match="has changed"):
            reader.find(version)


def test_a_source_that_is_missing_or_kept_from_us_says_so(server: Sources) -> None:
    with Reader(server.url("/none?signature=secret"), server.port) as reader:
        with pytest.raises(Missing, match="has nothing at the URL") as missing:
            reader.find()
        assert missing.value.errno == errno.ENOENT
        server.fault = lambda asked: asked.answer(403)
        with pytest.raises(Missing, match="does not let Mover read the URL") as missing:
            reader.find()
        assert "secret" not in str(missing.value)
        assert reader.pauses == []


def test_a_slow_server_is_not_waited_for_for_ever(server: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_connection, "HEAD_S", 0.2)
    monkeypatch.setattr(url_connection, "BYTES_S", 0.2)
    release = threading.Event()

    def hang(asked: Asked) -> bool:
        release.wait(PATIENCE_S)
        return True

    def drip(asked: Asked) -> bool:
        """An answer whose head never ends."""
        try:
            while not release.wait(0.02):
                asked.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        except OSError:
            pass
        asked.close_connection = True
        return True

    def stall(asked: Asked) -> bool:
        asked.send_response(206)
        asked.send_header("ETag", '"1"')
        asked.send_header("Content-Range", f"bytes 0-{len(DATA) - 1}/{len(DATA)}")
        asked.send_header("Content-Length", str(len(DATA)))
        asked.end_headers()
        asked.wfile.write(DATA[:1000])
        return hang(asked)

    try:
        for fault in (hang, drip, stall):
            server.fault = lambda asked: False
            with Reader(server.put("/a", DATA), server.port) as reader:
                reader.find()
                server.fault = first_times(1, fault)
                assert reader.read() == DATA
                assert len(reader.pauses) == 1
    finally:
        release.set()


def test_heads_without_measure_are_refused(server: Sources) -> None:
    def huge(asked: Asked) -> bool:
        asked.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")
        return True

    server.fault = huge
    with Reader(server.put("/a", DATA), server.port) as reader, pytest.raises(Unreachable, match="no HTTP"):
        reader.find()


def test_without_ranges_all_of_it_is_read_in_order_even_without_a_size(server: Sources) -> None:
    for chunked in (False, True):
        with Reader(server.put("/a", DATA, ranges=False, chunked=chunked), server.port) as reader:
            assert reader.find() == Found(None if chunked else len(DATA), False, '"1"')
            stream, got, buffer = reader.source.stream(), b"", bytearray(300_000)
            while count := stream.read_into(memoryview(buffer)):
                got += buffer[:count]
            assert got == DATA
            stream.close()
            server.fault = cut
            stream = reader.source.stream()
            assert stream.read_into(memoryview(buffer)) == 300_000
            with pytest.raises(Unreachable, match="no ranges to go on with"):
                stream.read_into(memoryview(buffer))
            stream.close()
            server.fault = lambda asked: False


# -- redirects, and names that lead elsewhere -----------------------------------------------------------------


def test_a_redirect_is_followed_and_asked_again_when_what_it_gave_has_expired(server: Sources) -> None:
    server.put("/there", DATA)
    signatures: list[str] = []

    def fault(asked: Asked) -> bool:
        if asked.path == "/here":
            signatures.append(f"s={len(signatures)}")
            return asked.redirect(f"/there?{signatures[-1]}")
        return not asked.path.endswith(signatures[-1]) and asked.answer(403)

    server.fault = fault
    with Reader(server.url("/here"), server.port) as reader:
        reader.find()
        assert reader.read(0, 1000) == DATA[:1000]
        assert len(signatures) == 1
        signatures.append("another")
        assert reader.read(0, 1000) == DATA[:1000]
        assert len(signatures) == 3


def redirected_to(url: str) -> Fault:
    return lambda asked: asked.path == "/here" and asked.redirect(url)


@pytest.mark.parametrize("where", ["127.0.0.1", "[::1]", "localhost", "0.0.0.0", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_redirect_to_this_host_is_refused_and_nobody_is_asked_there(server: Sources, where: str) -> None:
    """The server's own name is allowed; what it redirects to is not."""
    server.fault = redirected_to(f"http://{where}:{server.port}/inside")
    server.put("/inside", DATA)
    here = f"http://source.example.org:{server.port}/here"
    names = {"source.example.org": ["127.0.0.1"]}
    resolver = lambda host, port: names.get(host) or resolve(host, port)  # noqa: E731
    reader = Reader(here, server.port, allow=("source.example.org",), resolver=resolver)
    with reader, pytest.raises(UrlRefused, match=r"is not read|no IPv4 address"):
        reader.find()
    assert [line for line in server.seen if "inside" in line] == []


def test_a_name_is_resolved_once_for_each_connection_and_that_address_is_connected_to(server: Sources) -> None:
    """A name that means a public address when it is looked at, and this host when it is looked at again."""
    asked: list[str] = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    url = server.put("/a", DATA).replace("127.0.0.1", "rebinding.example.org")
    with Reader(url, server.port, allow=("127.0.0.2",), resolver=resolver) as reader:
        connected: list[object] = []
        real = socket.socket.connect

        class Noting(socket.socket):
            def connect(self, address: object) -> None:
                connected.append(address)
                real(self, address)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "socket", Noting)
            with pytest.raises((UrlRefused, OSError)):
                reader.find()
        # 127.0.0.2 was judged and connected to, where nobody listens; the second answer was refused.
        assert connected == [("127.0.0.2", server.port)]
        assert asked == ["rebinding.example.org"] * 2


def test_a_name_that_leads_here_the_second_time_is_refused_when_a_connection_is_made_anew(server: Sources) -> None:
    addresses = [["127.0.0.1"], ["127.0.0.1"], ["::1"]]
    url = server.put("/a", DATA).replace("127.0.0.1", "rebinding.example.org")
    resolver = lambda host, port: addresses.pop(0)  # noqa: E731
    with Reader(url, server.port, allow=("127.0.0.1",), resolver=resolver) as reader:
        reader.find()
        server.fault = cut
        with pytest.raises(UrlRefused, match="::1"):
            reader.read()


def test_the_environment_s_proxies_are_not_asked(server: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with Reader(server.put("/a", DATA), server.port) as reader:
            assert reader.find().size == len(DATA)


# -- TLS -------------------------------------------------------------------------------------------------------


def test_https_is_verified_by_the_authorities_that_are_set(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with sources(context) as server:
        url = server.put("/a", DATA)
        with Reader(url, server.port, ca_file=str(authority.certificate)) as reader:
            reader.find()
            assert reader.read() == DATA
            server.fault = lambda asked: asked.redirect(f"http://127.0.0.1:{server.port}/a")
            with pytest.raises(UrlRefused, match="from https to http"):
                reader.find()
        with Reader(url, server.port) as reader:
            with pytest.raises(Unreachable, match="its certificate is not accepted"):
                reader.find()
            assert reader.pauses == []
        other = url.replace("127.0.0.1", "other.example.org")
        resolver = lambda host, port: ["127.0.0.1"]  # noqa: E731
        reader = Reader(other, server.port, ca_file=str(authority.certificate), resolver=resolver)
        with reader, pytest.raises(Unreachable, match="its certificate is not accepted: Hostname mismatch"):
            reader.find()

"""Export URLs: every form, every mistake, and that the canonical form names the same export again."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from config.export import Export
from config.export_url import ExportUrlError, parse_export


def unix(socket: str, name: str = "", bitmap: str | None = None) -> Export:
    """An export on a Unix socket, without TLS."""
    return Export(transport="unix", socket=socket, name=name, bitmap=bitmap)


def tcp(host: str, port: int = 10809, name: str = "", bitmap: str | None = None) -> Export:
    """An export over TCP, without TLS."""
    return Export(transport="tcp", host=host, port=port, name=name, bitmap=bitmap)


@pytest.mark.parametrize(
    ("url", "export"),
    [
        ("nbd:unix:/run/a.sock", unix("/run/a.sock")),
        ("nbd:unix:/run/a.sock:exportname=disk", unix("/run/a.sock", "disk")),
        ("nbd:unix:/run/a:b.sock:exportname=d:exportname=e", unix("/run/a:b.sock", "d:exportname=e")),
        ("nbd:unix:/run/a%20b:exportname=c%20d?bitmap=e", unix("/run/a%20b", "c%20d?bitmap=e")),
        ("nbd:unix:/run/a.sock:exportname=", unix("/run/a.sock")),
        ("nbd:unix://run//./a.sock/", unix("/run/a.sock")),
        ("nbd:host.example:10810", tcp("host.example", 10810)),
        ("file:///disk.raw", Export("file", path="/disk.raw")),
        ("file:////var//lib/a%20b%25/", Export("file", path="/var/lib/a b%")),
        ("nbd:HOST.Example:1:exportname=Disk/One", tcp("host.example", 1, "Disk/One")),
        ("nbd:[::1]:10809:exportname=a", tcp("::1", 10809, "a")),
        ("nbd:127.0.0.1:65535", tcp("127.0.0.1", 65535)),
        ("nbd://host", tcp("host")),
        ("nbd://host/", tcp("host")),
        ("nbd://host:1234/disk", tcp("host", 1234, "disk")),
        ("nbd://host//disk/", tcp("host", name="/disk/")),
        ("nbd://HOST/a%20b%2Fc%25", tcp("host", name="a b/c%")),
        ("nbd://host/a%2520b", tcp("host", name="a%20b")),
        ("nbd://h%6Fst/%C3%A9", tcp("host", name="é")),
        ("nbd://host/é+f", tcp("host", name="é+f")),
        ("nbd://[2001:DB8:0:0::1]/x", tcp("2001:db8::1", name="x")),
        ("nbd://[fe80::1%25eth0]:1/x", tcp("fe80::1%eth0", 1, "x")),
        ("nbd://host/disk?bitmap=backup-1", tcp("host", name="disk", bitmap="backup-1")),
        ("nbd+unix:///?socket=/run/a.sock", unix("/run/a.sock")),
        ("nbd+unix://?socket=/run/a.sock", unix("/run/a.sock")),
        ("nbd+unix:///disk?socket=/run/a%26b", unix("/run/a&b", "disk")),
        ("nbd+unix:///disk?bitmap=b%20c&socket=/run/./a=b", unix("/run/a=b", "disk", "b c")),
        ("nbds://host", Export(transport="tcp", host="host", tls=True)),
        (
            "nbds://host/d?tls-certificates=/etc/pki//mover",
            Export(transport="tcp", host="host", name="d", tls=True, tls_certificates="/etc/pki/mover"),
        ),
        (
            "nbds://al%40ice@host:1/d?tls-psk-file=/etc/psk",
            Export(
                transport="tcp", host="host", port=1, name="d", tls=True, tls_psk_file="/etc/psk", tls_username="al@ice"
            ),
        ),
        (
            "nbds+unix://alice@/d?socket=/run/a&tls-psk-file=/etc/psk&bitmap=b",
            Export(
                transport="unix",
                socket="/run/a",
                name="d",
                bitmap="b",
                tls=True,
                tls_psk_file="/etc/psk",
                tls_username="alice",
            ),
        ),
    ],
)
def test_every_form_names_its_export(url: str, export: Export) -> None:
    """Every documented form of a URL is understood."""
    assert parse_export(url) == export


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "must be one of"),
        ("http://host/", "must be one of"),
        ("NBD://host/", "must be one of"),
        ("file:disk.raw", "file:///PATH"),
        ("file://host/disk.raw", "file:///PATH"),
        ("file:///disk.raw?whole", "has a '\\?', which is written %3F"),
        ("file:///disk.raw#1", "has a '#', which is written %23"),
        ("file:///a/../b", "must not hold '..'"),
        ("file:///a%00b", "must not hold a NUL"),
        ("file:///" + "x" * 4095, "path is 4096 bytes long, at most 4095"),
        ("nbd:", "no host"),
        ("nbd:host", "no port in 'host'"),
        ("nbd:host:", "bad port ''"),
        ("nbd:host:0", "bad port '0'"),
        ("nbd:host:65536", "bad port '65536'"),
        ("nbd:host:+1", r"bad port '\+1'"),
        ("nbd:host:\u0661", "bad port '\u0661'"),
        ("nbd:host:000080", "bad port"),
        ("nbd:host:80/disk", "bad port '80/disk'"),
        ("nbd:::1:80", "IPv6 address is written"),
        ("nbd:unix:run/a.sock", "socket path 'run/a.sock' must be absolute"),
        ("nbd:unix:", "socket path '' must be absolute"),
        ("nbd:unix:/a/../b", r"must not hold '\.\.'"),
        ("nbd:unix:/a\0b", "must not hold a NUL"),
        ("nbd:unix:/a:exportname=b\0", "export name .* must not hold a NUL"),
        ("nbd:unix:/" + 107 * "a", "socket path is 108 bytes long, at most 107"),
        ("nbd:unix:/a:exportname=" + 4097 * "b", "export name is 4097 bytes long, at most 4096"),
        ("nbd:unix:/\udcff", "not valid UTF-8"),
        ("nbd:///disk", "no host"),
        ("nbd://:1/disk", "no host"),
        ("nbd://ho st/disk", "bad host 'ho st'"),
        ("nbd://-host/", "bad host"),
        ("nbd://host:x/", "bad port 'x'"),
        ("nbd://::1/", "IPv6 address is written"),
        ("nbd://[::1/", "IPv6 address is written"),
        ("nbd://[::1]80/", "IPv6 address is written"),
        ("nbd://[::g]/", "bad IPv6 address '::g'"),
        ("nbd://host/%zz", "bad escape '%zz'"),
        ("nbd://host/%", "bad escape '%'"),
        ("nbd://host/%ff", "not UTF-8"),
        ("nbd://host/%00", "NUL"),
        ("nbd://host/" + 4097 * "a", "4097 bytes"),
        ("nbd://host/a#b", "written %23"),
        ("nbd://host/?socket=/a", "unknown query key 'socket'"),
        ("nbd://host/?tls-certificates=/a", "unknown query key 'tls-certificates'"),
        ("nbd://host/?x=1", "unknown query key 'x': nbd:// knows bitmap"),
        ("nbd://host/?bitmap=a&bitmap=b", "'bitmap' is given twice"),
        ("nbd://host/?bitmap=a&", "unknown query key ''"),
        ("nbd://host/?bitmap", "bitmap is empty"),
        ("nbd://host/?bitmap=" + 4079 * "a", "bitmap name is 4079 bytes long, at most 4078"),
        ("nbd://alice@host/", "user name is for TLS"),
        ("nbds://@host/", "user name before '@' is empty"),
        ("nbds://host/?tls-certificates=pki", "tls-certificates 'pki' must be absolute"),
        ("nbds://host/?tls-certificates=/a&tls-psk-file=/b", "exclude each other"),
        ("nbd+unix:///disk", "no socket"),
        ("nbd+unix:///disk?socket=", "socket path '' must be absolute"),
        ("nbd+unix:///disk?socket=a", "socket path 'a' must be absolute"),
        ("nbd+unix:///disk?socket=/a%00", "NUL"),
        ("nbd+unix://run/a.sock?socket=/a", "'run' stands where nothing may"),
    ],
)
def test_a_url_that_names_no_export_is_told_why(url: str, told: str) -> None:
    """The error holds the URL and names what is wrong with it, in one line of bounded length."""
    with pytest.raises(ExportUrlError, match=told) as caught:
        parse_export(url)
    assert caught.value.url == url
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_limits_are_reached() -> None:
    """The longest socket path and the longest export name are accepted."""
    socket, name = "/" + 106 * "a", 2048 * "é"
    assert parse_export(f"nbd:unix:{socket}:exportname={name}") == unix(socket, name)


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
segments = names.filter(lambda text: text not in ("", ".", "..") and "/" not in text and len(text.encode()) < 50)
sockets = st.lists(segments, min_size=1, max_size=2).map(lambda parts: "/" + "/".join(parts))
hosts = st.one_of(
    st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9-]{0,6}[a-z0-9]){0,2}", fullmatch=True).filter(
        lambda host: ".-" not in host
    ),
    st.ip_addresses().map(str),
)
bitmaps = st.none() | names.filter(bool)
exports = st.one_of(
    st.builds(unix, sockets, names, bitmaps),
    st.builds(tcp, hosts, st.integers(1, 65535), names, bitmaps),
)


def with_bitmap(export: Export) -> str:
    """The canonical URL of `export`, its bitmap included."""
    mark = "&" if "?" in export.key else "?"
    return export.key + ("" if export.bitmap is None else f"{mark}bitmap={quote(export.bitmap, safe='')}")


@given(exports)
def test_the_canonical_url_names_the_same_export(export: Export) -> None:
    """An export's key is itself a URL, of that very export: so no two exports share one."""
    assert parse_export(with_bitmap(export)) == export


@given(sockets, names)
def test_old_and_standard_form_name_the_same_export(socket: str, name: str) -> None:
    """Whichever form names an export on a Unix socket, it is the same export."""
    if ":exportname=" not in socket:
        old = parse_export(f"nbd:unix:{socket}:exportname={name}")
        assert old.key == parse_export(f"nbd+unix:///{quote(name)}?socket={quote(socket)}").key


@given(st.text() | st.text("nbd:/+unixs@[]%?&=#0123456789abcdef.", max_size=40).map(lambda rest: "nbd" + rest))
def test_any_text_is_an_export_or_an_export_url_error(text: str) -> None:
    """Whatever the text, nothing but ExportUrlError comes out of it, and what is understood is canonical."""
    try:
        export = parse_export(text)
    except ExportUrlError:
        return
    assert parse_export(export.key).key == export.key


def test_a_name_is_never_taken_for_a_part_of_the_path() -> None:
    """Two disks whose paths and names read the same when put together have different keys."""
    assert unix("/a", "b/c").key != unix("/a/b", "c").key


@pytest.mark.parametrize("mark", "&%#?=+ é@:")
def test_marks_of_a_url_survive_in_the_canonical_one(mark: str) -> None:
    """A name or path that holds what a URL cuts at is escaped in the key."""
    for export in (unix(f"/a{mark}20", f"b{mark}20"), tcp("::1", name=f"{mark}20")):
        assert parse_export(export.key) == export


def test_a_whole_file_and_a_raw_one_are_two_exports() -> None:
    raw = parse_export("file:///a/b%3F")
    whole = replace(raw, whole_file=True)
    assert (raw.key, whole.key) == ("file:///a/b%3F", "file:///a/b%3F?whole")
    assert parse_export(raw.key) == raw


def test_tls_makes_another_address() -> None:
    """An export over TLS is another one than at the same address without, and its key says so."""
    secure = parse_export("nbds://h/x")
    assert secure.key != tcp("h", name="x").key
    assert parse_export(secure.key) == secure


def test_the_bitmap_makes_no_other_disk() -> None:
    """A worker is shared by tickets with and without a bitmap."""
    assert tcp("h", bitmap="b").key == tcp("h").key

"""The rules for URLs: a table of what attackers write, and of what is read."""

from __future__ import annotations

import pytest

from config.settings import LibrarySettings
from config.url_rules import Target, UrlRefused, UrlRules, check_addresses, parse_redirect, parse_url, rules_of

RULES = rules_of(LibrarySettings())

REFUSED_URLS = {
    "no scheme": "example.org/x",
    "file": "file:///etc/passwd",
    "filesystem": "filesystem:///etc/passwd",
    "swift+config": "swift+config://ref/container/object",
    "gopher": "gopher://example.org/",
    "ftp": "ftp://example.org/x",
    "s3": "s3://bucket/object",
    "user": "http://user@example.org/",
    "user and password": "http://user:secret@example.org/",
    "user that looks like a host": "http://example.org:80@10.0.0.1/",
    "password in a later part": "http://example.org@10.0.0.1:80/",
    "another port": "http://example.org:22/",
    "port 0": "http://example.org:0/",
    "a large port": "http://example.org:99999/",
    "no host": "http:///x",
    "a space": "http://example.org/a b",
    "a line's end": "http://example.org/\r\nHost: 10.0.0.1",
    "a tab": "http://exam\tple.org/",
    "a backslash": "http://example.org\\@10.0.0.1/",
    "letters that are not ASCII": "http://exämple.org/",
    "digits that are not ASCII": "http://\uff11\uff12\uff17.0.0.1/",
    "too long": "http://example.org/" + "x" * 2048,
    "percent in the host": "http://127%2e0.0.1/",
    "loopback": "http://127.0.0.1/",
    "another loopback": "http://127.9.8.7/",
    "decimal": "http://2130706433/",
    "octal": "http://0177.0.0.1/",
    "leading zeros": "http://127.000.000.001/",
    "hexadecimal": "http://0x7f000001/",
    "hexadecimal parts": "http://0x7f.0.0.0x1/",
    "hexadecimal in capitals": "http://0X7F.0.0.1/",
    "two parts": "http://127.1/",
    "a dot at the end": "http://127.0.0.1./",
    "zero": "http://0.0.0.0/",
    "zero in short": "http://0/",
    "private 10": "http://10.1.2.3/",
    "private 172": "http://172.31.255.255/",
    "private 192": "http://192.168.0.1/",
    "link-local, where clouds keep credentials": "http://169.254.169.254/latest/meta-data/",
    "CGNAT": "http://100.64.0.1/",
    "multicast": "http://224.0.0.1/",
    "broadcast": "http://255.255.255.255/",
    "benchmarks": "http://198.18.0.1/",
    "examples": "http://192.0.2.1/",
    "IPv6 loopback": "http://[::1]/",
    "IPv6 loopback at length": "http://[0:0:0:0:0:0:0:1]/",
    "IPv6 unspecified": "http://[::]/",
    "IPv6 link-local": "http://[fe80::1]/",
    "IPv6 link-local with a scope": "http://[fe80::1%25eth0]/",
    "IPv6 private": "http://[fd00::1]/",
    "IPv6 site-local": "http://[fec0::1]/",
    "IPv6 multicast": "http://[ff02::1]/",
    "IPv4 in IPv6": "http://[::ffff:127.0.0.1]/",
    "IPv4 in IPv6, in hexadecimal": "http://[::ffff:7f00:1]/",
    "IPv4 in IPv6, of old": "http://[::127.0.0.1]/",
    "IPv4 translated": "http://[::ffff:0:127.0.0.1]/",
    "6to4": "http://[2002:7f00:1::]/",
    "6to4 of a private address": "http://[2002:a00:1::1]/",
    "NAT64": "http://[64:ff9b::7f00:1]/",
    "NAT64 of a cloud's credentials": "http://[64:ff9b::a9fe:a9fe]/",
    "NAT64 of one's own": "http://[64:ff9b:1::7f00:1]/",
    "ISATAP": "http://[2600::5efe:7f00:1]/",
    "Teredo": "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "IPv6 examples": "http://[2001:db8::1]/",
    "no public IPv6": "http://[4000::1]/",
    "a bracket too few": "http://[::1/",
    "a future address": "http://[v1.a]/",
    "an empty label": "http://example..org/",
}  # fmt: skip

READ_URLS = {
    "http://example.org": ("http", "example.org", 80, "/"),
    "HTTPS://Example.ORG./a?b=c#d": ("https", "example.org", 443, "/a?b=c"),
    "http://93.184.216.34:80/": ("http", "93.184.216.34", 80, "/"),
    "http://[2600:1406::17]/": ("http", "2600:1406::17", 80, "/"),
    "http://xn--exmple-cua.org/a%20b": ("http", "xn--exmple-cua.org", 80, "/a%20b"),
    "http://[64:ff9b::5db8:d822]/": ("http", "64:ff9b::5db8:d822", 80, "/"),
    "http://1and1.example.org/": ("http", "1and1.example.org", 80, "/"),
}


@pytest.mark.parametrize("attack", REFUSED_URLS)
def test_what_may_not_be_read_is_refused_and_no_secret_is_shown(attack: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        parse_url(REFUSED_URLS[attack], RULES)
    assert "secret" not in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("url", READ_URLS)
def test_what_may_be_read_leads_where_it_says(url: str) -> None:
    target = parse_url(url, RULES)
    assert target[1:] == READ_URLS[url]
    assert "#" not in target.url


SPOILING = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.100.0.1", "0.0.0.0", "224.1.1.1", "::1", "::"]
SPOILING += ["::ffff:10.0.0.1", "fe80::1", "fd12::1", "ff0e::1", "2002:a9fe:a9fe::", "64:ff9b::a00:1"]


@pytest.mark.parametrize("address", SPOILING)
def test_one_address_that_may_not_be_read_spoils_a_name(address: str) -> None:
    check_addresses("example.org", ["93.184.216.34", "2600:1406::17"], RULES)
    with pytest.raises(UrlRefused, match="is not read: it is"):
        check_addresses("example.org", ["93.184.216.34", address], RULES)


def test_hosts_and_networks_that_are_allowed_may_be_read() -> None:
    rules = UrlRules(allow=("10.0.0.0/8", "Mirror.example.org", "::1", "fd00::/8"), ports=(80, 8080))
    for url in ("http://10.9.8.7:8080/", "http://[::1]/", "http://[fd00::5]/", "http://[::ffff:10.0.0.1]/"):
        parse_url(url, rules)
    check_addresses("mirror.example.org", ["127.0.0.1"], rules)
    check_addresses("other.example.org", ["10.0.0.1"], rules)
    for host, address in (("other.example.org", "127.0.0.1"), ("x.mirror.example.org", "192.168.0.1")):
        with pytest.raises(UrlRefused):
            check_addresses(host, [address], rules)
    for url in ("http://127.0.0.1/", "http://[2002:c0a8:1::]/", "http://10.0.0.1:443/", "http://11.0.0.1:22/"):
        with pytest.raises(UrlRefused):
            parse_url(url, rules)


def test_without_ports_no_url_is_read() -> None:
    with pytest.raises(UrlRefused, match=r"port 80 is not allowed: library\.url_ports has none"):
        parse_url("http://example.org/", UrlRules())


def redirected(url: str, location: str) -> Target:
    return parse_redirect(parse_url(url, RULES), location, RULES)


def test_redirects_are_judged_like_the_urls_of_clients() -> None:
    assert redirected("http://example.org/a/b", "c?d").path == "/a/c?d"
    assert redirected("http://example.org/", "//example.com/x").host == "example.com"
    assert redirected("http://example.org/", "https://example.org/").scheme == "https"
    for location in (
        "http://127.0.0.1/",
        "//[::1]/",
        "file:///etc/passwd",
        "http://a:b@example.org/",
        "http://2130706433",
    ):
        with pytest.raises(UrlRefused, match="the server redirects"):
            redirected("http://example.org/", location)
    with pytest.raises(UrlRefused, match="from https to http"):
        redirected("https://example.org/", "http://example.org/")

"""What tickets may name: hosts by their names and networks, paths by where their links lead, and no way round."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from config.allow import check_export, check_host, roots_of
from config.errors import ConfigError, shown
from config.export import Export
from config.export_url import ExportUrlError, parse_export
from config.load import load
from config.roots import NotAllowed, Roots, handle, pin
from config.settings import AllowSettings, ServeSettings, Settings


@pytest.fixture(params=["tmp_path", "room"])
def disks(request: pytest.FixtureRequest) -> Path:
    """The only directory that is allowed; beside it is `secret/key`. One is in /tmp, one in /dev/shm."""
    top: Path = request.getfixturevalue(request.param)
    directory = top / "disks"
    (top / "secret").mkdir()
    (top / "secret" / "key").write_text("secret")
    (directory / "deep").mkdir(parents=True)
    (directory / "disk").write_text("disk")
    return directory


def under(*roots: Path | str, private: tuple[str, ...] = ()) -> Roots:
    return Roots(files=tuple(map(str, roots)), private=private)


@pytest.mark.parametrize("path", ["disk", "deep", "deep/not-there-yet", "not/there/at/all", ""])
def test_what_is_beneath_a_directory_is_allowed_whether_it_is_there_or_not(disks: Path, path: str) -> None:
    assert under(disks).file(str(disks / path)) == str(disks / path).rstrip("/")


@pytest.mark.parametrize(
    ("link", "to"),
    [
        ("link", "../secret/key"),
        ("link", "{top}/secret/key"),
        ("deep/link", "../../secret/key"),
        ("link", "deep/../../secret/key"),
        ("link", "/proc/self/root{top}/secret/key"),
        ("link", "/proc/self/cwd"),
        ("link", "/dev/zero"),
        ("link", "/"),
        ("link", "{top}/disksmore"),
    ],
)
def test_a_link_that_leads_out_is_not_allowed_however_it_does(disks: Path, link: str, to: str) -> None:
    (disks / link).symlink_to(to.format(top=disks.parent))
    with pytest.raises(NotAllowed, match=r"leads to .* allow.files: it is not beneath") as refused:
        under(disks).file(str(disks / link))
    assert (refused.value.key, shown(str(disks / link)) in refused.value.what) == ("allow.files", True)


def test_a_directory_that_is_a_link_leads_out_too(disks: Path) -> None:
    (disks / "away").symlink_to("../secret")
    (disks / "chain").symlink_to("away")
    for path in ("away/key", "chain/key", "away/not-there"):
        with pytest.raises(NotAllowed):
            under(disks).file(str(disks / path))


@pytest.mark.parametrize("path", ["{disks}more/x", "/", "{top}", "/proc/self/root{top}/secret/key", "{top}/secret/key"])
def test_a_name_that_only_looks_alike_is_not_beneath(disks: Path, path: str) -> None:
    with pytest.raises(NotAllowed):
        under(disks).file(path.format(disks=disks, top=disks.parent))


def test_links_that_stay_within_and_roots_that_are_links_are_allowed(disks: Path) -> None:
    (disks / "link").symlink_to("deep/../disk")
    (disks.parent / "alias").symlink_to("disks")
    found = under(disks.parent / "alias").file(str(disks.parent / "alias" / "link"))
    assert found == str(disks / "disk")
    assert under(disks).file(f"/proc/self/root{disks}/disk") == str(disks / "disk")


def test_a_link_in_a_circle_is_nowhere(disks: Path) -> None:
    (disks / "one").symlink_to("other")
    (disks / "other").symlink_to("one")
    place = under(disks).file(str(disks / "one"))
    with pytest.raises(OSError, match="Too many levels"):
        os.open(place, os.O_RDONLY)


def test_a_single_path_can_be_allowed_and_nothing_beside_it(disks: Path) -> None:
    allowed = under(disks / "disk")
    assert allowed.file(str(disks / "disk")) == str(disks / "disk")
    for path in ("disk2", "deep", "."):
        with pytest.raises(NotAllowed):
            allowed.file(os.path.normpath(disks / path))


def test_movers_own_state_is_never_served_whatever_is_allowed(disks: Path) -> None:
    (disks / "link").symlink_to("deep")
    allowed = under("/", private=(str(disks / "link"),))
    for path in ("deep", "deep/tickets", "link/tickets"):
        with pytest.raises(NotAllowed, match="own state"):
            allowed.file(str(disks / path))


def test_nothing_is_allowed_by_an_empty_list() -> None:
    with pytest.raises(NotAllowed, match=r"allow.files: that is empty"):
        Roots().file("/disk")


class FakeDev:
    """A /dev with a volume group: the links, and who may make some in which directory."""

    links: ClassVar = {
        "/dev/vg/disk": "../dm-3",
        "/rhev/disk": "/dev/vg/disk",
        "/dev/vg/out": "/etc/key",
        "/dev/vg/null": "/dev/null",
        "/rhev/dm": "/dev/dm-4",
        "/dev/shm/disk": "/dev/dm-3",
    }
    modes: ClassVar = {
        "/dev/vg": stat.S_IFDIR | 0o755,
        "/dev/shm": stat.S_IFDIR | 0o1777,
        "/dev/dm-3": stat.S_IFBLK | 0o660,
        "/dev/dm-4": stat.S_IFBLK | 0o660,
        "/dev/null": stat.S_IFCHR | 0o666,
    }

    def realpath(self, path: str) -> str:
        path = os.path.normpath(path)
        while path in self.links:
            path = os.path.normpath(os.path.join(os.path.dirname(path), self.links[path]))
        return path

    def readlink(self, path: str) -> str:
        if path in self.links:
            return self.links[path]
        raise OSError(errno.EINVAL, "no link")

    def lstat(self, path: str) -> SimpleNamespace:
        if path in self.modes:
            return SimpleNamespace(st_uid=0, st_mode=self.modes[path])
        raise OSError(errno.ENOENT, "not there")


def test_a_directory_of_devices_allows_those_that_its_links_lead_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a volume group: /dev/vg/disk -> ../dm-3, and /rhev/disk -> /dev/vg/disk. Others may not make such links."""
    fake = FakeDev()
    monkeypatch.setattr(os.path, "realpath", fake.realpath)
    monkeypatch.setattr(os, "readlink", fake.readlink)
    monkeypatch.setattr(os, "lstat", fake.lstat)
    allowed = under("/dev/vg", "/dev/shm")
    assert allowed.file("/dev/vg/disk") == allowed.file("/rhev/disk") == "/dev/dm-3"
    for path in ("/dev/dm-3", "/dev/vg/out", "/dev/vg/null", "/rhev/dm", "/dev/sda", "/dev/shm/disk"):
        with pytest.raises(NotAllowed):
            allowed.file(path)
    with pytest.raises(NotAllowed):
        under("/rhev").file("/rhev/disk")


# -- opening ---------------------------------------------------------------------------------------------------


def test_a_pinned_file_stays_the_same_when_others_take_its_place(disks: Path) -> None:
    fd = pin(str(disks / "disk"))
    (disks / "disk").rename(disks / "deep" / "moved")
    (disks / "disk").symlink_to("../secret/key")
    assert Path(handle(fd)).read_text() == "disk"
    os.close(fd)


@pytest.mark.parametrize("swap", ["directory", "file"])
def test_a_link_that_was_swapped_in_after_the_look_is_not_opened(disks: Path, swap: str) -> None:
    (disks / "deep" / "key").write_text("mine")
    place = under(disks).file(str(disks / "deep" / "key"))
    if swap == "directory":
        (disks / "deep").rename(disks / "was")
        (disks / "deep").symlink_to("../secret")
    else:
        (disks / "deep" / "key").unlink()
        (disks / "deep" / "key").symlink_to("../../secret/key")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError) as failed:
        os.close(pin(place))
    assert failed.value.errno == errno.ESTALE
    assert os.listdir("/proc/self/fd") == before


# -- hosts and exports -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "hosts"),
    [
        ("nbd.example", "nbd.example"),
        ("nbd.example", "NBD.Example"),
        ("10.1.2.3", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3"),
        ("fd00::7", "fd00::/8"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("anything", "*"),
    ],
)
def test_a_host_is_allowed_by_its_name_its_address_or_its_network(host: str, hosts: str) -> None:
    check_host(host, ("else", hosts))


@pytest.mark.parametrize(
    "host",
    ["nbd.example.evil", "x.nbd.example", "11.1.2.3", "10.1", "167772163", "0x0a010203", "::ffff:11.1.2.3", "fe00::1",
     "localhost", "2130706433", "127.1"],
)  # fmt: skip
def test_every_other_host_is_not_and_no_other_way_of_writing_one_is_the_same(host: str) -> None:
    with pytest.raises(NotAllowed, match=r"allow\.nbd_hosts"):
        check_host(host, ("nbd.example", "10.0.0.0/8", "fd00::/8", "127.0.0.0/8"))


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("file:///etc/shadow", "allow.files"),
        ("file:///var/lib/libvirt/images%2f..%2fx", None),
        ("file:///var/lib/libvirt/images/../../../../etc/shadow", None),
        ("file:///var/lib/libvirt/images/%00/x", None),
        ("file:///var/lib/libvirt/images/%2e%2e/x", None),
        ("file:////proc/1/root/etc/shadow", "allow.files"),
        ("file:///dev/sda", "allow.files"),
        ("nbd:unix:/home/x.sock", "allow.nbd_sockets"),
        ("nbd+unix:///x?socket=/etc/passwd", "allow.nbd_sockets"),
        ("nbd://10.0.0.5:10809/x", "allow.nbd_hosts"),
        ("nbds://localhost/x?tls-certificates=/root", "allow.tls_files"),
        ("nbds+unix://me@/x?socket=/run/x&tls-psk-file=/etc/shadow", "allow.tls_files"),
    ],
)
def test_the_defaults_keep_a_host_that_runs_it_as_root(url: str, key: str | None) -> None:
    """What is no URL at all (`..`, NUL) is refused before."""
    settings = Settings()
    if key is None:
        with pytest.raises(ExportUrlError):
            parse_export(url)
        return
    with pytest.raises(NotAllowed) as refused:
        check_export(parse_export(url), settings.allow, roots_of(settings))
    assert refused.value.key == key


@pytest.mark.parametrize(
    "export",
    [
        Export("file", path="/var/lib/libvirt/images/vm.qcow2"),
        Export("file", path="/mnt/3f2a/disk"),
        Export("unix", socket="/run/vdsm/nbd/x.sock"),
        Export("unix", socket="/var/run/x.sock"),
        Export("unix", socket="/tmp/x.sock"),
        Export("tcp", host="localhost"),
        Export("tcp", host="127.0.0.1", tls=True, tls_certificates="/etc/pki/qemu"),
    ],
)
def test_the_defaults_let_pass_what_agents_use(export: Export) -> None:
    settings = Settings(serve=ServeSettings(state_dir="/var/lib/mover"))
    check_export(export, settings.allow, roots_of(settings))


# -- settings ----------------------------------------------------------------------------------------------------


def test_lists_come_from_the_file_and_from_the_environment(tmp_path: Path) -> None:
    """In the environment, commas separate; nothing between them is an error, nothing at all an empty list."""
    file = tmp_path / "mover.toml"
    file.write_text('[allow]\nfiles = ["/a", "/b,c"]\n')
    environ = {"MOVER_ALLOW_NBD_HOSTS": "nbd.example, 10.0.0.0/8", "MOVER_ALLOW_TLS_FILES": ""}
    found = load({}, environ, file).allow
    assert found == AllowSettings(("/a", "/b,c"), AllowSettings().nbd_sockets, ("nbd.example", "10.0.0.0/8"), ())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('files = ["images"]', "must be an absolute path"),
        ('files = ["/a/../b"]', "must be an absolute path"),
        ('nbd_sockets = ["/a\\u0000"]', "must be an absolute path"),
        ('files = "/a"', "must be a list of texts"),
        ('files = [""]', "must be a list of texts"),
        ("files = [5]", "must be a list of texts"),
        ('nbd_hosts = ["10.0.0.1/8"]', "whose address ends where its mask does"),
        ('nbd_hosts = ["*.example"]', "must be a host's name"),
        ('nbd_hosts = ["http://x"]', "must be a host's name"),
    ],
)
def test_an_entry_that_can_mean_nothing_is_an_error(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "mover.toml"
    file.write_text(f"[allow]\n{line}\n")
    with pytest.raises(ConfigError, match=why):
        load({}, {}, file)

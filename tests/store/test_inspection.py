"""What images say of themselves is looked at once, safely: honest ones are measured, hostile ones refused unopened."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.waiting import PROGRAM_S
from tests.store.shop import IMAGE, MIB, assert_published, assert_refused, listing, shop, store_in
from workers.image.file_export import read_all
from workers.lane.store_format import Published, Why
from workers.store.backing import Refusal
from workers.store.inspection import qemu_img
from workers.store.inspection.claims import Declared, inspect
from workers.store.inspection.qemu_img import CONFINE, Unreadable

GIB = 1024 * MIB
SECRET = "/etc/passwd"


class File:
    """As much of a part as inspection needs."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR)

    def fileno(self) -> int:
        return self._fd

    def read(self, buffer: memoryview, offset: int) -> None:
        read_all(self._fd, buffer, offset)

    def close(self) -> None:
        os.close(self._fd)


def look(path: Path, disk_format: str | None, container: str = "bare", backing_files: bool = False) -> int | None:
    file = File(path)
    try:
        return inspect(file, path.stat().st_size, Declared(disk_format, container, backing_files))
    finally:
        file.close()


def refusal(path: Path, disk_format: str, backing_files: bool = False) -> str:
    with pytest.raises(Refusal) as refused:
        look(path, disk_format, backing_files=backing_files)
    assert refused.value.why is Why.WRONG_FORMAT
    return refused.value.message


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """An image as qemu-img makes it: `make("qcow2", "1G", "-o", "…")`."""

    def made(image_format: str, size: str, *options: str) -> Path:
        path = tmp_path / f"image-{len(os.listdir(tmp_path))}"
        command = ["qemu-img", "create", "-q", "-f", image_format, *options, str(path)]
        subprocess.run([*command, size] if size else command, check=True)
        return path

    return made


def patched(path: Path, offset: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return path


# -- honest ones ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disk_format", "qemu_format", "options"),
    [
        ("qcow2", "qcow2", ()),
        ("qcow2", "qcow2", ("-o", "compat=0.10")),
        ("qcow2", "qcow2", ("-o", "cluster_size=2M,lazy_refcounts=on,extended_l2=on")),
        ("vmdk", "vmdk", ()),
        ("vmdk", "vmdk", ("-o", "subformat=streamOptimized")),
        ("vdi", "vdi", ()),
        ("vhdx", "vhdx", ()),
    ],
)
def test_the_virtual_size_of_each_format_is_found(
    make: Callable[..., Path], disk_format: str, qemu_format: str, options: tuple[str, ...]
) -> None:
    assert look(make(qemu_format, "3G", *options), disk_format) == 3 * GIB


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
def test_a_vhd_is_known_by_its_head_or_by_its_end(make: Callable[..., Path], subformat: str) -> None:
    found = look(make("vpc", "17M", "-o", f"subformat={subformat},force_size=on"), "vhd")
    assert found == 17 * MIB


def test_raw_disks_kernels_and_what_is_in_other_containers_are_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(random.Random(1).randbytes(70_000))
    for disk_format in ("raw", "ami", "aki", "ari"):
        assert look(path, disk_format) == 70_000
    for container in ("ova", "ovf", "docker"):
        assert look(path, "qcow2", container) is None
    assert look(path, None) is None
    path.write_bytes(b"")
    assert look(path, "raw") == 0


def test_an_iso_is_an_iso_and_a_raw_disk(tmp_path: Path) -> None:
    path = tmp_path / "iso"
    path.write_bytes(bytes(0x8001) + b"CD001" + bytes(4000))
    assert look(path, "iso") == path.stat().st_size
    assert look(path, "raw") == path.stat().st_size
    assert "declared as qcow2, and is iso" in refusal(path, "qcow2")


# -- what was declared -----------------------------------------------------------------------------------------------


def test_an_image_of_another_format_than_declared_is_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    """A raw disk that is a qcow2 image would have its reader open whatever the guest writes into its header."""
    made = {name: make(name, "8M") for name in ("qcow2", "vmdk", "vdi", "vhdx", "qed", "qcow")}
    raw = made["raw"] = tmp_path / "raw"
    raw.write_bytes(b"nothing that is known")
    for declared in ("raw", "ami", "aki", "ari", "iso", "qcow2", "vmdk", "vdi", "vhdx", "vhd", "ploop"):
        for name, path in made.items():
            if name != declared and not (name == "raw" and declared in ("ami", "aki", "ari")):
                assert f"declared as {declared}" in refusal(path, declared)


# -- hostile ones ----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    """qemu-img must not be asked at all."""

    def asked(fd: int, image_format: str) -> None:
        raise AssertionError("qemu-img was let near it")

    monkeypatch.setattr("workers.store.inspection.claims.info", asked)


@pytest.mark.usefixtures("no_qemu")
class TestRefusedUnopened:
    """Found by the image's own header."""

    @pytest.mark.parametrize("backing", [SECRET, "json:{}", "nbd://127.0.0.1:1/x", "ssh://host/x", "relative"])
    def test_a_backing_file(self, make: Callable[..., Path], backing: str) -> None:
        path = make("qcow2", "1M")
        patched(path, 8, struct.pack(">QI", 0x400, len(backing)))
        patched(path, 0x400, backing.encode())
        assert "backing file" in refusal(path, "qcow2")

    def test_an_external_data_file(self, make: Callable[..., Path], tmp_path: Path) -> None:
        path = make("qcow2", "1M", "-o", f"data_file={tmp_path}/data")
        assert "external data file" in refusal(path, "qcow2")
        assert look(path, "qcow2", backing_files=True) is None  # allowed, and still not opened

    def test_features_that_nobody_knows(self, make: Callable[..., Path]) -> None:
        assert "unknown incompatible features" in refusal(
            patched(make("qcow2", "1M"), 72, struct.pack(">Q", 1 << 40)), "qcow2"
        )

    def test_a_huge_l1_table(self, make: Callable[..., Path]) -> None:
        for entries in (4 * MIB + 1, 1 << 31, (1 << 32) - 1):
            assert "L1 table" in refusal(patched(make("qcow2", "1M"), 36, struct.pack(">I", entries)), "qcow2")

    def test_an_l1_table_beyond_the_file(self, make: Callable[..., Path]) -> None:
        assert "L1 table" in refusal(patched(make("qcow2", "1M"), 40, struct.pack(">Q", 1 << 50)), "qcow2")

    def test_a_size_beyond_what_there_can_be(self, make: Callable[..., Path]) -> None:
        assert "L1 table" in refusal(patched(make("qcow2", "1M"), 24, struct.pack(">Q", (1 << 64) - 1)), "qcow2")

    @pytest.mark.parametrize("bits", [0, 8, 22, 63, 1 << 31])
    def test_clusters_of_no_size(self, make: Callable[..., Path], bits: int) -> None:
        assert "clusters" in refusal(patched(make("qcow2", "1M"), 20, struct.pack(">I", bits)), "qcow2")

    def test_huge_refcount_and_snapshot_tables(self, make: Callable[..., Path]) -> None:
        for offset, data in (
            (56, struct.pack(">I", 1 << 31)),
            (60, struct.pack(">I", 1 << 31)),
            (48, b"\x7f" + bytes(7)),
        ):
            assert "too large" in refusal(patched(make("qcow2", "1M"), offset, data), "qcow2")

    @pytest.mark.parametrize("version", [0, 4, (1 << 32) - 1])
    def test_versions_that_there_are_not(self, make: Callable[..., Path], version: int) -> None:
        assert "version" in refusal(patched(make("qcow2", "1M"), 4, struct.pack(">I", version)), "qcow2")

    @pytest.mark.parametrize("length", [4, 5, 71, 100])
    def test_a_header_that_is_cut(self, make: Callable[..., Path], length: int) -> None:
        path = make("qcow2", "1M")
        os.truncate(path, length)
        assert refusal(path, "qcow2")

    @pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
    def test_a_vmdk_that_is_a_descriptor_of_other_files(self, make: Callable[..., Path], subformat: str) -> None:
        assert "names its extents" in refusal(make("vmdk", "8M", "-o", f"subformat={subformat}"), "vmdk")

    def test_a_vmdk_descriptor_with_extents_that_are_not_its_own(self, tmp_path: Path) -> None:
        path = tmp_path / "vmdk"
        extents = f'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "{SECRET}" 0\n'
        path.write_text(extents)
        assert "names its extents" in refusal(path, "vmdk")
        path.write_text(f"# a comment\n\n{extents}")
        assert "names its extents" in refusal(path, "vmdk")
        assert "declared as raw, and is vmdk" in refusal(path, "raw")

    def test_a_sparse_vmdk_whose_descriptor_names_others(self, make: Callable[..., Path]) -> None:
        path = make("vmdk", "8M")
        at, descriptor = 512, make("vmdk", "8M").read_bytes()[512 : 512 + 2048].rstrip(b"\0").decode()
        bad = [
            descriptor.replace("RW 16384 SPARSE", 'RW 8 FLAT "/etc/passwd" 0\nRW 16384 SPARSE'),
            descriptor.replace("parentCID=ffffffff", f'parentCID=12345678\nparentFileNameHint="{SECRET}"'),
            descriptor.replace("monolithicSparse", "monolithicFlat"),
            descriptor.replace("monolithicSparse", "custom"),
            f'version=1\ncreateType="monolithicSparse"\nRW 8 SPARSE "{SECRET}"\n',
        ]
        assert all(one != descriptor for one in bad)
        for one in bad:
            assert refusal(patched(path, at, one.encode().ljust(2048, b"\0")), "vmdk")
        patched(path, at, descriptor.encode().ljust(2048, b"\0"))
        assert refusal(patched(path, 12, bytes(8)), "vmdk")  # of no capacity: qemu would take the extents for it

    def test_a_vmdk_descriptor_of_any_length(self, make: Callable[..., Path]) -> None:
        assert "descriptor has" in refusal(patched(make("vmdk", "8M"), 36, struct.pack("<Q", 1 << 40)), "vmdk")

    def test_a_redo_log(self, tmp_path: Path) -> None:
        path = tmp_path / "cowd"
        path.write_bytes(b"COWD" + bytes(4000))
        assert "redo log" in refusal(path, "vmdk")


def test_what_qemu_img_cannot_read_is_refused_in_its_words_without_our_paths(make: Callable[..., Path]) -> None:
    path = make("vdi", "8M")
    message = refusal(patched(path, 0x40 + 4, b"\xff" * 32), "vdi")
    assert "qemu-img says" in message
    assert "/proc" not in message


def test_random_damage_never_takes_more_than_a_refusal(make: Callable[..., Path]) -> None:
    """Of each format, bytes of the header changed at random: measured or refused, in time, and nothing else."""
    dice = random.Random(7)
    for name, declared in (("qcow2", "qcow2"), ("vmdk", "vmdk"), ("vpc", "vhd"), ("vhdx", "vhdx"), ("vdi", "vdi")):
        whole = make(name, "64M").read_bytes()
        for _ in range(6):
            path = make("raw", "1")
            damaged = bytearray(whole)
            for _ in range(dice.randint(1, 20)):
                damaged[dice.randrange(4, min(len(damaged), 4096))] = dice.randrange(256)
            path.write_bytes(damaged[: dice.choice([len(damaged), dice.randrange(1, len(damaged))])])
            try:
                look(path, declared)
            except Refusal as refused:
                assert refused.why is Why.WRONG_FORMAT


def test_a_bomb_is_measured_not_unpacked(tmp_path: Path) -> None:
    """A gigabyte of zeros in a few compressed clusters, and a disk of 2^50 bytes without any: their size is told."""
    plain, bomb = tmp_path / "plain", tmp_path / "bomb"
    with plain.open("wb") as file:
        file.truncate(256 * MIB)
        file.write(b"x" * MIB)
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", str(plain), str(bomb)], check=True)
    assert bomb.stat().st_size < MIB
    assert look(bomb, "qcow2") == 256 * MIB
    huge = tmp_path / "huge"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", str(huge), "1P"], check=True)
    assert look(huge, "qcow2") == 1 << 50


# -- the confined process --------------------------------------------------------------------------------------------


def confined(program: str, image: str = os.devnull) -> subprocess.CompletedProcess[str]:
    """A program in Python; `image` may be a directory, beneath which it may read."""
    fd = os.open(image, os.O_RDONLY)
    command = [sys.executable, "-I", "-S", CONFINE, "--read", str(fd), sys.executable, "-I", "-S", "-c", program]
    try:
        return subprocess.run(
            command, env={}, cwd="/", pass_fds=[fd], capture_output=True, text=True, timeout=PROGRAM_S
        )
    finally:
        os.close(fd)


def test_a_confined_process_has_no_network_no_capabilities_no_files_to_write_and_limits(tmp_path: Path) -> None:
    done = confined("print(open('/proc/net/dev').read().count(':'), open('/proc/self/status').read())", "/proc")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 ")  # loopback, and it is down
    status = dict(line.split(":", 1) for line in done.stdout.splitlines()[1:] if ":" in line)
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0 or os.geteuid() != 0
    assert status["NoNewPrivs"].strip() == "1"
    assert confined(f"open({str(tmp_path / 'x')!r}, 'w').write('x' * 10000)").returncode != 0
    assert not (tmp_path / "x").exists() or (tmp_path / "x").stat().st_size == 0
    assert confined("import os; print(dict(os.environ))").stdout.strip() in ("{}", "{'LC_CTYPE': 'C.UTF-8'}")
    assert confined("x = bytearray(3 * 1024 ** 3)").returncode != 0
    spinning = confined("import resource; print(resource.getrlimit(resource.RLIMIT_CPU)[1])")
    assert int(spinning.stdout) <= 10


def test_a_confined_process_opens_its_image_and_no_other_file(tmp_path: Path) -> None:
    """Where the kernel has Landlock, as this one must."""
    image, other = tmp_path / "image", tmp_path / "other"
    image.write_text("mine")
    other.write_text("not mine")
    assert confined(f"print(open({str(image)!r}).read())", str(image)).stdout == "mine\n"
    for path in (other, "/etc/passwd", "/proc/self/environ"):
        refused = confined(f"open({str(path)!r})", str(image))
        assert "PermissionError" in refused.stderr, path
    assert "PermissionError" in confined(f"import os; os.listdir({str(tmp_path)!r})", str(image)).stderr


def test_a_qemu_img_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = tmp_path / "qemu-img"
    hangs.write_text("#!/bin/sh\nexec sleep 1000\n")
    hangs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(qemu_img, "PATIENCE_S", 0.3)
    with pytest.raises(Unreadable, match=r"within 0\.3 s"):
        qemu_img.info(0, "qcow2")


def test_without_qemu_img_only_formats_that_need_none_are_taken(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make("qcow2", "1M")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refusal, match="not installed"):
        look(image, "qcow2")
    raw = tmp_path / "raw"
    raw.write_bytes(b"x")
    assert look(raw, "raw") == 1


# -- through a worker ------------------------------------------------------------------------------------------------


async def test_a_refused_format_leaves_nothing_and_may_be_tried_again(
    loop: object, room: Path, make: Callable[..., Path], tmp_path: Path
) -> None:
    good = make("qcow2", "7G").read_bytes()
    backed = make("qcow2", "", "-b", str(make("raw", "1M")), "-F", "raw").read_bytes()
    async with shop(store_in(room)) as image:
        for data in (b"no qcow2", backed, good[:100]):
            answer = await image.put(data, disk_format="qcow2", container_format="bare")
            assert_refused(answer, Why.WRONG_FORMAT)
            assert listing(room) == []
        answer = await image.put(good, disk_format="qcow2", container_format="bare")
        assert_published(answer, room / IMAGE, good)
        assert isinstance(answer, Published)
        assert answer.virtual_size == 7 * GIB
    (room / IMAGE).unlink()
    async with shop(store_in(room)) as image:
        answer = await image.put(backed, disk_format="qcow2", container_format="bare", backing_files=True)
        assert_published(answer, room / IMAGE, backed)
        assert isinstance(answer, Published)
        assert answer.virtual_size == MIB

"""Jobs whose connections break, whose servers die, hang, and answer with errors: they go on, or say what failed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mover.client import Client, ClientError, Progress, RangeError, download, link, stream, upload
from tests.client.conftest import DISK_BYTES, Served, assert_same_disk, client, make_disk, url
from tests.client.proxy import Proxy
from tests.harness.fixtures import Images, StartMover
from tests.harness.patterns import MIB, pattern

pytestmark = pytest.mark.nbd

Moment = Callable[[], object]


def at_progress(shares: list[float], action: Callable[[int], object]) -> Callable[[Progress], None]:
    """A progress callback that acts once at each share of the job, with the number of the moment."""
    waiting = list(enumerate(sorted(shares)))

    def tell(now: Progress) -> None:
        if now.phase == "data" and waiting and now.done >= waiting[0][1] * now.data:
            action(waiting.pop(0)[0])

    return tell


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_a_download_goes_on_over_broken_connections(image_format: str, served: Served, room: Path) -> None:
    """Broken at random places again and again, it completes with the right bytes, and counts what it tried again."""
    with Proxy(served.mover.tcp) as proxy:
        proxy.cut(every=2 * MIB)
        with Client(proxy.url("disk"), patience_s=20) as disk:
            report = download(disk, room / "copy", image_format=image_format, verify=True)
        assert proxy.cuts > 1
    assert report.retries
    assert_same_disk(room / "copy", served.source, image_format)


def test_a_stream_goes_on_over_broken_connections(served: Served, room: Path) -> None:
    """In order, too."""
    with Proxy(served.mover.tcp) as proxy, (room / "copy").open("wb") as file:
        proxy.cut(every=2 * MIB)
        with Client(proxy.url("disk"), patience_s=20) as disk:
            stream.download(disk, file.fileno(), verify=True)
        assert proxy.cuts > 1
    assert_same_disk(room / "copy", served.source)


def test_an_upload_goes_on_over_broken_connections(images: Images, start_mover: StartMover, room: Path) -> None:
    """Also where the answer to a flush is lost."""
    source = make_disk(room / "source")
    target = images.pattern("target", 9, DISK_BYTES)
    mover = start_mover({"disk": images.qemu_nbd(target)})
    with Proxy(mover.tcp) as proxy:
        proxy.cut(every=3 * MIB)
        with Client(proxy.url("disk"), patience_s=20) as disk:
            report = upload(disk, source, buffer_bytes=MIB, verify=True)
        assert proxy.cuts > 1
    assert report.retries
    assert_same_disk(target, source)


@pytest.mark.slow
def test_jobs_go_on_when_the_service_is_killed_and_started_again(
    images: Images, start_mover: StartMover, room: Path
) -> None:
    """The whole of `mover serve`, in the middle of a download and of an upload."""
    source = make_disk(room / "source")
    target = images.pattern("target", 9, DISK_BYTES)
    mover = start_mover({"disk": images.qemu_nbd(source, read_only=True), "target": images.qemu_nbd(target)})

    def kill_and_start(_: int) -> None:
        for process in mover.family():
            process.kill()
        mover.process.wait()
        mover.launch()

    # By its Unix socket: the port is another one afterwards.
    slow: dict[str, Any] = {"bandwidth": 40 * MIB, "buffer_bytes": 65536}
    with Client(url(mover), unix_socket=mover.unix, patience_s=20) as disk:
        download(disk, room / "copy", progress=at_progress([0.4], kill_and_start), **slow)
    assert_same_disk(room / "copy", source)
    with Client(url(mover, "target"), unix_socket=mover.unix, patience_s=20) as disk:
        upload(disk, source, progress=at_progress([0.5], kill_and_start), **slow)
    assert_same_disk(target, source)


def test_an_upload_writes_again_what_the_nbd_server_lost(images: Images, start_mover: StartMover, room: Path) -> None:
    """The NBD server dies, and with it everything that was not flushed; nothing of it is missing at the end."""
    source = make_disk(room / "source")
    target = images.pattern("target", 9, DISK_BYTES)
    server = images.qemu_nbd(target)
    mover = start_mover({"disk": server})

    def lose(_: int) -> None:
        server.kill()
        with target.open("r+b") as file:
            file.write(pattern(7, 0, DISK_BYTES))
        server.start()

    with client(mover) as disk:
        report = upload(disk, source, buffer_bytes=65536, bandwidth=10 * MIB, progress=at_progress([0.5], lose))
    assert report.retries
    assert_same_disk(target, source)


@pytest.mark.parametrize("verb", ["download", "upload"])
def test_errors_of_the_disk_pass(verb: str, images: Images, start_mover: StartMover, room: Path) -> None:
    """One request in ten fails, at random: the job does not."""
    source = make_disk(room / "source")
    other = images.pattern("other", 9, DISK_BYTES)
    served_file = source if verb == "download" else other
    faulty = images.nbdkit(
        "faulty", "file", str(served_file), "error-pread-rate=10%", "error-pwrite-rate=10%", filters=["error"]
    )
    mover = start_mover({"disk": faulty})
    with client(mover) as disk:
        if verb == "download":
            report = download(disk, room / "copy")
        else:
            report = upload(disk, source, buffer_bytes=256 * 1024)
    assert report.retries
    assert_same_disk(room / "copy" if verb == "download" else other, source)


@pytest.mark.parametrize("verb", ["download", "upload"])
def test_a_disk_that_fails_for_good_is_named_with_its_range(
    verb: str, images: Images, start_mover: StartMover, room: Path
) -> None:
    """The error says which bytes of which image, and what the server said."""
    source = make_disk(room / "source")
    which = "pread" if verb == "download" else "pwrite"
    broken = images.nbdkit("broken", "file", str(source), f"error-{which}-rate=100%", filters=["error"])
    mover = start_mover({"disk": broken})

    def move(disk: Client) -> None:
        if verb == "download":
            download(disk, room / "copy")
        else:
            upload(disk, make_disk(room / "other", stamp=5))

    with client(mover, patience_s=0.3) as disk, pytest.raises(RangeError) as failed:
        move(disk)
    error = failed.value
    assert error.length > 0
    assert error.operation == {"download": "read", "upload": "write"}[verb]
    assert f"bytes {error.offset} to {error.offset + error.length - 1} of http://" in str(error)
    assert not (room / "copy").exists()
    assert list(room.glob(".copy*")) == []  # nothing had come


def test_a_server_that_hangs_is_given_up(
    images: Images, start_mover: StartMover, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing comes for too long the range is tried again; the job goes on when the server does."""
    monkeypatch.setattr(link, "SILENCE_S", 0.3)
    source = make_disk(room / "source")
    server = images.qemu_nbd(source, read_only=True)
    mover = start_mover({"disk": server})
    moments = iter([server.pause])

    def hang(now: Progress) -> None:
        if now.phase == "data" and now.done > now.data // 3:
            for pause in moments:
                pause()
        if now.retries >= 2:
            server.resume()

    with client(mover) as disk:
        report = download(disk, room / "copy", bandwidth=60 * MIB, buffer_bytes=65536, progress=hang)
    assert report.retries >= 2
    assert_same_disk(room / "copy", source)


def test_a_callback_that_fails_ends_the_job(served: Served, room: Path) -> None:
    """With its own error, all threads ended, and what was moved kept."""

    def fail(now: Progress) -> None:
        if now.done:
            raise RuntimeError("no more")

    with client(served.mover) as disk, pytest.raises(RuntimeError, match="no more"):
        download(disk, room / "copy", bandwidth=20 * MIB, buffer_bytes=65536, progress=fail)
    assert not (room / "copy").exists()
    with client(served.mover) as disk:
        report = download(disk, room / "copy", resume=True)
    assert report.resumed
    assert_same_disk(room / "copy", served.source)


@pytest.mark.slow
def test_random_harm(images: Images, start_mover: StartMover, room: Path) -> None:
    """Connections cut, workers and front ends killed, NBD servers restarted, at random: every byte arrives."""
    luck = random.Random(3)
    source = make_disk(room / "source")
    target = images.pattern("target", 9, DISK_BYTES)
    server = images.qemu_nbd(target)
    reading = images.qemu_nbd(source, read_only=True)
    mover = start_mover({"target": server, "disk": reading}, front_ends=2)
    with Proxy(mover.tcp) as proxy:

        def restart(which: object) -> None:
            assert which in (server, reading)
            (server if which is server else reading).kill()
            (server if which is server else reading).start()

        harms: list[Moment] = [
            proxy.cut_all,
            lambda: mover.kill_worker(),
            lambda: luck.choice(mover.children()).kill(),
            lambda: restart(server),
            lambda: restart(reading),
        ]
        shares = [luck.random() for _ in range(4)]
        with Client(proxy.url("target"), patience_s=30) as disk:
            upload(disk, source, buffer_bytes=65536, bandwidth=20 * MIB,
                   progress=at_progress(shares, lambda _: luck.choice(harms)()), verify=True)  # fmt: skip
        assert_same_disk(target, source)
        with Client(proxy.url("disk"), patience_s=30) as disk:
            download(disk, room / "copy", buffer_bytes=65536, bandwidth=20 * MIB,
                     progress=at_progress(shares, lambda _: luck.choice(harms)()), verify=True)  # fmt: skip
        assert_same_disk(room / "copy", source)


def test_a_client_error_is_one_line(served: Served) -> None:
    """What failed, why, what to do."""
    with client(served.mover, "nobody" * 10) as disk, pytest.raises(ClientError) as failed:
        disk.options()
    assert str(failed.value).count(": ") >= 2
    assert "\n" not in str(failed.value)
    assert "nobody" * 10 not in str(failed.value)  # an id is as good as a password

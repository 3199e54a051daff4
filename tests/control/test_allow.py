"""Nobody reaches what the allow-lists leave out, whichever way the ticket comes; what the settings name is free."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.control.agent import Agent
from tests.harness.fixtures import Images, StartMover
from tests.harness.http import Answer
from tests.harness.mover import Mover, Tables
from tests.harness.waiting import wait_until
from tests.tickets.vdsm import Vdsm

MIB = 1 << 20


class Place:
    """`disks` is allowed for files and sockets; `secret/key` is not, and is what everything here tries to read."""

    def __init__(self, room: Path) -> None:
        self.disks, self.secret = room / "disks", room / "secret" / "key"
        self.transfers = room / "transfers"
        for directory in (self.disks / "deep", self.secret.parent, self.transfers):
            directory.mkdir(parents=True)
        self.secret.write_bytes(b"secret" * 1000)
        (self.disks / "deep" / "disk").write_bytes(b"disk" * 1000)
        self.agent = Agent(room / "control")
        self.vdsm = Vdsm(room / "tickets")

    def settings(self, **allow: list[str]) -> Tables:
        lists = {"files": [str(self.disks)], "nbd_sockets": [str(self.disks)], "nbd_hosts": ["localhost"]}
        serve = {
            "control_socket": str(self.agent.path),
            "ticket_socket": str(self.vdsm.path),
            "transfer_dir": str(self.transfers),
        }
        return {"serve": serve, "allow": {**lists, **allow}, "worker": {"reconnect_s": 0.2, "settle_s": 0.2}}

    def put(self, ticket_id: str, **ticket: object) -> Answer:
        """imageio's way."""
        return self.vdsm.ask("PUT", ticket_id, {"uuid": ticket_id, "timeout": 300, **ticket})

    def turn(self) -> None:
        """The directory `deep` becomes a link to that of the secret."""
        (self.disks / "deep").rename(self.disks / "was")
        (self.disks / "deep").symlink_to("../secret")

    def register(self, transfer_id: str, **config: str) -> str | None:
        """CloudStack's way; why it was refused, or None."""
        answer = self.agent.ask("register", transfer_id=transfer_id, config=config)
        assert answer["status"] in ("ok", "error"), answer
        message: str | None = answer.get("message")
        return message


@pytest.fixture
def place(room: Path) -> Place:
    return Place(room)


@pytest.fixture
def mover(place: Place, start_mover: StartMover) -> Mover:
    return start_mover({"own": f"file://{place.secret}"}, place.settings())


def paths_out(place: Place) -> dict[str, str]:
    """Ways to the secret, by a name, and what else is not allowed."""
    links = {
        "link": str(place.secret),
        "relative": "../secret/key",
        "through-proc": f"/proc/self/root{place.secret}",
        "cwd": "/proc/self/cwd/Makefile",
        "directory": "../secret",
    }
    for name, to in links.items():
        (place.disks / name).symlink_to(to)
    inside = {name: str(place.disks / name) for name in links}
    inside["directory"] += "/key"
    outside = {"itself": str(place.secret), "by-proc": f"/proc/self/root{place.secret}", "zero": "/dev/zero"}
    return inside | outside | {"alike": f"{place.disks}more/key", "passwd": "/etc/passwd"}


def test_every_way_out_is_refused_to_cloudstack_with_the_path_and_the_setting(place: Place, mover: Mover) -> None:
    """As a file and as a socket; the id is unknown afterwards, and a way within is none of these."""
    for name, path in paths_out(place).items():
        for config, setting in (
            ({"backend": "file", "file": path}, "allow.files"),
            ({"socket": path}, "allow.nbd_sockets"),
        ):
            message = place.register(name, **config)
            assert message is not None, name
            assert path in message
            assert setting in message
            assert mover.ask("GET", f"/images/{name}").status == 404
    for path in ("deep/../../secret/key", "..", "deep\0"):
        assert place.register("bad", backend="file", file=f"{place.disks}/{path}") is not None, path
    assert place.register("good", backend="file", file=f"{place.disks}/deep/disk") is None
    assert mover.ask("GET", "/images/good").body == b"disk" * 1000
    assert "ticket refused" in mover.log()


def test_every_way_out_is_a_403_to_imageio(place: Place, mover: Mover) -> None:
    """As a file, a socket, a host, and as the credentials for one."""
    urls = [f"file://{path}" for path in paths_out(place).values()]
    urls += [f"nbd:unix:{place.secret}", "nbd:10.0.0.1:10809", f"nbd+unix:///x?socket={place.disks}/link"]
    urls += [f"nbds://localhost/x?tls-certificates={place.secret.parent}"]
    for number, url in enumerate(urls):
        answer = place.put(f"out-{number}", url=url, size=6000, ops=["read"])
        assert answer.status == 403, (url, answer)
        assert "allow." in answer.body.decode()
        assert mover.ask("GET", f"/images/out-{number}").status == 404
    assert place.put("in", url=f"file://{place.disks}/deep/disk", size=4000, ops=["read"]).status == 200
    assert mover.ask("GET", "/images/in").body == b"disk" * 1000


def test_a_transfer_s_file_that_names_a_way_out_is_no_transfer(place: Place, mover: Mover) -> None:
    """Its id is unknown to clients, and the log says why."""
    for name, path in paths_out(place).items():
        (place.transfers / name).write_text(json.dumps({"backend": "file", "file": path}))
        assert mover.ask("GET", f"/images/{name}").status == 404, name
    (place.transfers / "host").write_text(json.dumps({"host": "10.0.0.1", "port": 10809}))
    assert mover.ask("GET", "/images/host").status == 404
    assert "allow.nbd_hosts" in mover.log()
    (place.transfers / "good").write_text(json.dumps({"backend": "file", "file": str(place.disks / "deep" / "disk")}))
    assert mover.ask("GET", "/images/good").status == 200


def test_what_the_settings_name_is_free(place: Place, mover: Mover) -> None:
    """The operator's own image is served from anywhere; a ticket for the same path is refused all the same."""
    assert mover.ask("GET", "/images/own").body == place.secret.read_bytes()
    assert place.register("same", backend="file", file=str(place.secret)) is not None


@pytest.mark.parametrize("when", ["before the first request", "between two requests"])
def test_a_path_that_is_turned_after_the_ticket_was_installed_is_not_followed(
    when: str, place: Place, mover: Mover
) -> None:
    """The client gets an error and never a byte of the secret; nothing is written there."""
    assert place.register("whole", backend="file", file=f"{place.disks}/deep/disk") is None
    url = f"file://{place.disks}/deep/disk"
    assert place.put("raw", url=url, size=4000, ops=["write"]).status == 200
    if when == "between two requests":
        assert mover.ask("GET", "/images/whole").status == mover.ask("GET", "/images/raw").status == 200
    place.turn()
    answer = mover.ask("GET", "/images/whole")
    assert answer.status in (500, 502), answer
    assert mover.ask("PUT", "/images/whole", b"mine").status in (500, 502)
    # A file that was open goes on until it is looked at again.
    wait_until("the raw file is let go", lambda: mover.ask("GET", "/images/raw").status == 502)
    assert "outside of allow.files" in mover.ask("GET", "/images/raw").json()["error"]
    assert mover.ask("PUT", "/images/raw", b"mine").status == 502
    assert place.secret.read_bytes() == b"secret" * 1000
    assert [path.name for path in place.secret.parent.iterdir()] == ["key"]


def test_movers_own_state_is_not_served_whatever_is_allowed(place: Place, start_mover: StartMover) -> None:
    """Its directory holds the tickets of everybody."""
    mover = start_mover({}, place.settings(files=["/"]))
    state = next(path for path in mover.state_dir.iterdir() if path.is_file())
    (place.disks / "state").symlink_to(mover.state_dir)
    for path in (state, place.disks / "state" / state.name):
        message = place.register("state", backend="file", file=str(path))
        assert message is not None
        assert "own state" in message


def test_lists_that_a_reload_changes_judge_what_is_installed_then(place: Place, mover: Mover) -> None:
    """Both ways: what was refused is taken, and what was taken is refused."""

    def put(ticket_id: str, path: Path) -> int:
        return place.put(ticket_id, url=f"file://{path}", size=4000, ops=["read"]).status

    inside = place.disks / "deep" / "disk"
    assert (put("one", inside), put("two", place.secret)) == (200, 403)
    mover.configure(place.settings(files=[str(place.secret.parent)]))
    mover.signal(signal.SIGHUP)
    wait_until("the lists have changed", lambda: "changed=allow.files" in mover.log())
    assert (put("three", inside), put("four", place.secret)) == (403, 200)
    assert mover.ask("GET", "/images/four").status == 200


@pytest.mark.nbd
def test_tickets_that_a_restart_does_not_allow_any_more_are_not_served(
    place: Place, start_mover: StartMover, images: Images
) -> None:
    """The lists are those of the configuration that is in force, not of the one when a ticket was installed."""
    server = images.qemu_nbd(images.hole("disk", MIB), tcp=True)
    mover = start_mover({}, place.settings(nbd_hosts=["127.0.0.1"]))
    url = server.uri()
    assert place.put("host", url=url, size=MIB, ops=["read"]).status == 200
    assert place.register("file", backend="file", file=f"{place.disks}/deep/disk") is None
    assert mover.ask("GET", "/images/host").status == mover.ask("GET", "/images/file").status == 200
    mover.signal(signal.SIGTERM)
    mover.wait_for_end()
    mover.configure(place.settings(files=["/nowhere"]))
    mover.start()
    assert mover.ask("GET", "/images/host").status == 404
    answer = mover.ask("GET", "/images/file")
    assert (answer.status, "outside of allow.files" in answer.json()["error"]) == (502, True)

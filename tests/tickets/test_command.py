"""`mover ticket`, against a real Mover: tables for people, JSON for scripts, and a status for both."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness.mover import PROGRAM, ROOT, Mover
from tests.harness.servers import NbdServer, qemu_nbd
from tests.harness.waiting import PROGRAM_S
from tests.tickets.vdsm import Vdsm, nbd_url

pytestmark = pytest.mark.nbd

MIB = 1 << 20


class Command:
    """`mover ticket` on the host of `mover`."""

    def __init__(self, mover: Mover, vdsm: Vdsm, disk: NbdServer) -> None:
        self.mover, self.vdsm, self.disk = mover, vdsm, disk

    def run(self, *arguments: str | Path, socket: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it."""
        where = [] if "--config" in arguments else [f"--socket={socket or self.vdsm.path}"]
        command = [*PROGRAM, "ticket", *map(str, arguments), *where]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PROGRAM_S)

    def says(self, *arguments: str | Path) -> str:
        """Run it to a good end; what it printed."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """One Mover for all tests, and a disk of one MiB."""
    room = tmp_path_factory.mktemp("command")
    (room / "disk.raw").write_bytes(bytes(MIB))
    vdsm, disk = Vdsm(room / "tickets.sock"), qemu_nbd(room, "disk", room / "disk.raw")
    with closing(disk), closing(Mover(room, {}, {"serve": {"ticket_socket": str(vdsm.path)}})) as mover:
        yield Command(mover.start(), vdsm, disk.start())


def test_a_ticket_from_end_to_end(command: Command, tmp_path: Path) -> None:
    """Added, shown, listed, extended and cancelled: each in one line of a shell."""
    (tmp_path / "token").write_text("a-token-of-some-length\n")
    options = ["--ops=write", "--size=1MiB", "--timeout=100", "--sparse", "--transfer-id=nightly"]
    ticket = command.says("add", nbd_url(command.disk), *options, f"--token-file={tmp_path}/token").strip()
    state = command.vdsm.look(ticket)
    wanted = {"ops": ["write"], "size": MIB, "timeout": 100, "sparse": True, "transfer_id": "nightly", "token": True}
    assert {key: state[key] for key in wanted} == wanted
    bearer = "Bearer a-token-of-some-length"
    assert command.mover.ask("PUT", f"/images/{ticket}", bytes(4096), Authorization=bearer).status == 200
    [header, row] = command.says("list").splitlines()
    assert header.split()[:3] == ["id", "state", "ops"]
    assert [ticket, "idle", "write", "1.0", "MiB", "4.0", "KiB", "0"] == row.split()[:8]
    assert json.loads(command.says("list", "--json"))[0]["uuid"] == ticket
    shown = command.says("show", ticket)
    assert "state:        idle" in shown
    assert "token:        required" in shown
    assert json.loads(command.says("show", "--json", ticket))["uuid"] == ticket
    assert command.says("extend", ticket, "5000") == ""
    assert json.loads(command.says("extend", "--json", ticket, "9000"))["expires"] > state["expires"] + 8000
    assert command.says("cancel", ticket) == ""
    assert command.says("list", "--json") == "[]\n"


def test_a_ticket_has_limits_and_an_owner(command: Command) -> None:
    """A rate, a number of requests, and the certificate that it is for."""
    limits = ["--bytes-per-second=2MiB", "--requests-most=3", "--subject=CN=appliance"]
    ticket = command.says("add", nbd_url(command.disk), *limits).strip()
    state = command.vdsm.look(ticket)
    wanted = {"bytes_per_second": 2 * MIB, "requests_most": 3, "subject": "CN=appliance"}
    assert {key: state[key] for key in wanted} == wanted
    shown = command.says("show", ticket)
    assert "subject:      CN=appliance" in shown
    assert "limits:       2.0 MiB a second, 3 requests at once" in shown
    assert command.mover.ask("GET", f"/images/{ticket}").status == 403
    command.says("cancel", ticket)


def test_the_socket_is_that_of_the_settings(command: Command, tmp_path: Path) -> None:
    """The same file that `mover serve` reads."""
    config = tmp_path / "mover.toml"
    config.write_text(f'[serve]\nticket_socket = "{command.vdsm.path}"\n')
    assert json.loads(command.says("list", "--json", "--config", config)) == []
    config.write_text("")
    done = command.run("list", "--config", config)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "name its socket with --socket" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["show", "nobody"], 1, "mover: ticket show: No such ticket"),
        (["extend", "nobody", "5"], 1, "mover: ticket extend: No such ticket"),
        (["cancel", ""], 2, "mover: ticket: an empty id means all tickets: name one"),
        (["add", "ftp://x/"], 2, "mover: ticket add: Invalid ticket: Invalid value for 'url'"),
        (["add", "nbd:unix:/run/x", "--id", "a/b"], 2, "mover: ticket add: Invalid ticket id"),
        (["add", "nbd:unix:/run/x", "--size", "many"], 2, "mover: ticket add: argument --size"),
        (["extend", "nobody", "-5"], 2, "mover: "),
    ],
)
def test_what_is_wrong_is_one_line(command: Command, arguments: list[str], status: int, told: str) -> None:
    """And its own status."""
    done = command.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1), done
    assert done.stderr.startswith(told), done.stderr


def test_nobody_there_is_status_3(command: Command, tmp_path: Path) -> None:
    """A socket that is not there, and a file that is none."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        done = command.run("list", socket=path)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert done.stderr.startswith(f"mover: ticket: cannot reach {path}: ")


@pytest.mark.parametrize("action", ["", "add", "list", "show", "extend", "cancel"])
def test_help_has_an_example(command: Command, action: str) -> None:
    """For each action."""
    done = subprocess.run([*PROGRAM, "ticket", *action.split(), "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert f"example:\n  mover ticket {action}" in done.stdout

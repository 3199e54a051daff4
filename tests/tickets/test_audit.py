"""Who may use the control sockets, what the audit log says of it, and that no secret is in any log."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import ControlSettings
from mover.control.audit import short
from mover.control.peers import Peer, Peers
from mover.serve.errors import CannotStart
from tests.control.agent import Agent
from tests.harness.fixtures import StartMover
from tests.harness.mover import ROOT
from tests.harness.servers import NbdServer
from tests.harness.waiting import wait_until
from tests.tickets.conftest import BYTES
from tests.tickets.vdsm import Vdsm, nbd_url

TOKEN = "a-token-of-some-length"
NOBODY = pwd.getpwnam("nobody")


def peer(uid: int, *groups: int) -> Peer:
    return Peer(1, uid, frozenset(groups))


def test_without_lists_the_file_s_mode_decides() -> None:
    """Whoever could connect may."""
    assert Peers(ControlSettings()).allows(peer(12345, 67890))


def test_lists_name_users_and_groups() -> None:
    """By name and by number; root and the service's own user always may; any of a peer's groups counts."""
    peers = Peers(ControlSettings(users=("nobody", "4242"), groups=("daemon", "4343")))
    daemon = 1
    allowed = [peer(0), peer(os.geteuid()), peer(NOBODY.pw_uid), peer(4242), peer(7, daemon), peer(7, 8, 4343)]
    assert [one for one in allowed if not peers.allows(one)] == []
    assert not peers.allows(peer(7, 8))


@pytest.mark.parametrize("settings", [ControlSettings(("no-such",)), ControlSettings((), ("no-such",))])
def test_a_name_that_nobody_has_keeps_the_service_from_starting(settings: ControlSettings) -> None:
    """It would keep somebody out who was meant to be let in."""
    with pytest.raises(CannotStart, match=r"control\.\w+s: there is no 'no-such' here"):
        Peers(settings)


@pytest.mark.parametrize(
    ("secret", "shown"),
    [("6ff7b5f4-93f9-4b2e-8a5e-8ab2a1a0f7a1", "6ff7b5f4.."), ("vda-backup", "vda.."), ("vm", ".."), ("", "..")],
)
def test_an_id_is_cut_short(secret: str, shown: str) -> None:
    """To a third at most."""
    assert short(secret) == shown


@pytest.mark.nbd
def test_the_audit_log_has_every_change(vdsm: Vdsm, room: Path, start_mover: StartMover, disk: NbdServer) -> None:
    """Who did what to which ticket, also where only errors are logged; no id and no token is in any log."""
    agent = Agent(room / "control.sock")
    serve = {"ticket_socket": str(vdsm.path), "control_socket": str(agent.path)}
    mover = start_mover({}, {"serve": serve}, 2, program=(sys.executable, "-m", "mover"))
    ticket = vdsm.install(nbd_url(disk), BYTES, "read", token=TOKEN)
    assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0").status == 401
    for _ in range(4):
        assert mover.ask("GET", f"/images/{ticket}", Range="bytes=0-0", Authorization=f"Bearer {TOKEN}").status == 206
    vdsm.extend(ticket, 100)
    vdsm.remove(ticket)
    short_lived = vdsm.install(nbd_url(disk), BYTES, "read", timeout=0)
    wait_until("it has expired", lambda: vdsm.look(short_lived)["expired"])
    agent.register("of-cloudstack", disk)
    agent.unregister("of-cloudstack")
    found = re.findall(r"mover\.audit: (\w+(?: \w+)?) transfer=(\d+)(?: ticket=(\S+))?(?: by=(\S+))?", mover.log())
    pytest_ = Path("/proc/self/comm").read_text().strip()
    assert found == [
        ("installed", "1", short(ticket), pytest_),
        ("wrong token", "1", "", ""),
        ("first used", "1", short(ticket), ""),
        ("extended", "1", short(ticket), pytest_),
        ("canceled", "1", short(ticket), pytest_),
        ("installed", "2", short(short_lived), pytest_),
        ("expired", "2", short(short_lived), "expiry"),
        ("installed", "3", "of-c..", pytest_),
        ("removed", "3", "of-c..", pytest_),
    ]
    assert f"pid={os.getpid()} uid={os.getuid()}" in mover.log()
    mover.stop_clean()
    for secret in (ticket, short_lived, "of-cloudstack", TOKEN):
        assert secret not in mover.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_who_is_not_on_the_list_is_refused(vdsm: Vdsm, room: Path, start_mover: StartMover) -> None:
    """On both sockets, and it is written down; a member of the first group gets in."""
    agent = Agent(room / "control.sock")
    serve = {"ticket_socket": str(vdsm.path), "control_socket": str(agent.path)}
    mover = start_mover({}, {"serve": serve, "control": {"groups": ["daemon"]}})
    room.chmod(0o755)
    assert {vdsm.path.stat().st_gid, agent.path.stat().st_gid} == {1}
    assert {path.stat().st_mode & 0o777 for path in (vdsm.path, agent.path)} == {0o660}
    for path in (vdsm.path, agent.path):
        path.chmod(0o666)  # past the first hurdle

    def ask_as(group: int, path: Path, text: str) -> str:
        code = (
            "import os,socket,sys; os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(65534);"
            "s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[2]); s.sendall(sys.argv[3].encode());"
            "print(s.recv(99999).decode())"
        )
        command = ["/usr/bin/python3", "-c", code, str(group), str(path), text]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    listing = "GET /tickets/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert ask_as(65534, vdsm.path, listing).startswith("HTTP/1.1 403")
    assert ask_as(1, vdsm.path, listing).startswith("HTTP/1.1 200")
    status = '{"action": "status"}\n'
    assert "this user may not use the control socket" in ask_as(65534, agent.path, status)
    assert '"active_transfers":0' in ask_as(1, agent.path, status)
    assert len(re.findall(r"mover\.audit: refused .*uid=65534", mover.log())) == 2

"""Root is given up: every process serves as another user, without capabilities, and reaches what its groups may."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import subprocess
from pathlib import Path

import pytest

from tests.harness.certificates import Authority, tables
from tests.harness.fixtures import Images, StartMover
from tests.harness.mover import PROGRAM, ROOT, Mover, Tables
from tests.harness.patterns import MIB, pattern
from tests.harness.waiting import PATIENCE_S, wait_until

pytestmark = [
    pytest.mark.nbd,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give root up"),
]

USER, GROUP = "nobody", "disk"
SIZE = 2 * MIB


def status(pid: int) -> dict[str, list[str]]:
    """The fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: values.split() for name, _, values in (line.partition(":") for line in lines)}


def assert_unprivileged(mover: Mover) -> None:
    """All of its processes are the user's."""
    user, group = pwd.getpwnam(USER), grp.getgrnam(GROUP)
    pids = [mover.pid, *(child.pid for child in mover.children())]
    assert len(pids) >= 4  # supervisor, two front ends, and the worker or a spare
    for pid in pids:
        found = status(pid)
        assert found["Uid"] == [str(user.pw_uid)] * 4
        assert found["Gid"] == [str(user.pw_gid)] * 4
        assert set(map(int, found["Groups"])) == {user.pw_gid, group.gr_gid}
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(found[kind][0], 16) == 0, (kind, pid)
        assert found["NoNewPrivs"] == ["1"]


def test_every_process_serves_as_the_user(images: Images, room: Path, start_mover: StartMover) -> None:
    """Also those that are started later; an NBD socket that only a group may open is opened, another one is not."""
    room.chmod(0o755)
    server = images.qemu_nbd(images.pattern("disk", 1, SIZE))
    secret = images.qemu_nbd(images.pattern("secret", 2, SIZE))
    os.chown(server.socket, 0, grp.getgrnam(GROUP).gr_gid)
    server.socket.chmod(0o660)
    secret.socket.chmod(0o600)
    settings = {"serve": {"user": USER, "groups": [GROUP]}}
    mover = start_mover({"disk": server, "secret": secret}, settings, front_ends=2)
    assert mover.ask("GET", "/images/disk").body == pattern(1, 0, SIZE)
    body = pattern(1, 0, SIZE, 7)
    assert mover.ask("PUT", "/images/disk", body, unix=True).status == 200
    assert mover.ask("GET", "/images/disk").body == body
    refused = mover.ask("GET", "/images/secret")
    assert (refused.status, "Permission denied" in refused.json()["error"]) == (502, True)
    assert_unprivileged(mover)
    assert mover.ask("GET", "/readyz").status == 200
    os.kill(mover.front_end_pids()[0], signal.SIGKILL)
    mover.kill_worker(server)
    wait_until("both front ends are back", lambda: len(mover.front_end_pids()) == 2)
    wait_until("they serve", lambda: mover.ask("GET", "/readyz", unix=True).status == 200)
    assert mover.ask("GET", "/images/disk").body == body
    assert_unprivileged(mover)
    assert mover.unix.stat().st_gid == pwd.getpwnam(USER).pw_gid
    assert mover.state_dir.stat().st_uid == pwd.getpwnam(USER).pw_uid
    assert mover.stop() == 0


def test_a_token_that_root_adds_lets_its_holder_in(room: Path, start_mover: StartMover) -> None:
    """The table is the service's to read, whoever wrote it, and stays so when it is written again."""
    room.chmod(0o755)
    mover = start_mover({}, {"serve": {"user": USER}}, front_ends=1)
    command = [*PROGRAM, "token", "add", "--state-dir", str(mover.state_dir), "--user"]
    for name in ("one", "two"):
        added = subprocess.run([*command, name], cwd=ROOT, text=True, capture_output=True, timeout=60, check=True)
        answer = mover.ask("GET", "/v2/images", X_Auth_Token=added.stdout.strip())
        assert answer.status == 200, answer.body
        for file in ("tokens.json", ".tokens.json.lock"):
            assert (mover.state_dir / file).stat().st_uid == pwd.getpwnam(USER).pw_uid
    lock, elsewhere = mover.state_dir / ".tokens.json.lock", room / "made-by-root"
    lock.unlink()
    lock.symlink_to(elsewhere)
    assert subprocess.run([*command, "three"], cwd=ROOT, capture_output=True, timeout=60, check=False).returncode != 0
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"user": "no-such-user"}, "no-such-user"), ({"user": "root"}, "that is root"),
     ({"user": USER, "groups": ["no-such-group"]}, "no-such-group")],
)  # fmt: skip
def test_who_cannot_be_is_an_error(settings: dict[str, str | list[str]], why: str, start_mover: StartMover) -> None:
    """Status 3 and one line, and nothing was opened."""
    mover = start_mover({}, {"serve": settings}, wait=False)
    mover.launch()
    assert mover.process.wait(PATIENCE_S) == 3
    assert f"mover: cannot serve as user {settings['user']}: " in mover.log()
    assert why in mover.log()
    assert not mover.unix.exists()


def test_a_state_directory_of_another_user_is_told(room: Path, start_mover: StartMover) -> None:
    """What root has left behind cannot be written: said at the start, not at the first ticket."""
    room.chmod(0o755)
    mover = start_mover({}, {"serve": {"user": USER}}, wait=False)
    mover.state_dir.mkdir(0o700)
    mover.launch()
    assert mover.process.wait(PATIENCE_S) == 3
    assert "it is not writable" in mover.log()


def test_a_key_that_only_root_may_read_is_not_renewed_and_that_is_said(room: Path, start_mover: StartMover) -> None:
    """Root reads it before it is given up; afterwards the old one stays in force, and the log says what to do."""
    room.chmod(0o755)
    pair = Authority(room).issue("host")
    pair.key.chmod(0o600)
    settings: Tables = {"serve": {"user": USER}, "tls": tables(pair)}
    mover = start_mover({}, settings)
    mover.signal(signal.SIGHUP)
    wait_until("the log says so", lambda: "certificates not renewed" in mover.log())
    assert f"may not be read by user {pwd.getpwnam(USER).pw_uid}: let its group read it" in mover.log()
    os.chown(pair.key, 0, pwd.getpwnam(USER).pw_gid)
    pair.key.chmod(0o640)
    mover.signal(signal.SIGHUP)
    wait_until("it is renewed", lambda: "certificates renewed" in mover.log())
    assert mover.stop() == 0

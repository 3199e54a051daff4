"""`python3 -m imageserver`, copied to where an agent has it: Mover in the place of CloudStack's own server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.control.agent import Agent, ok
from tests.harness.fixtures import Images
from tests.harness.http import ask
from tests.harness.mover import READY, ROOT
from tests.harness.patterns import pattern
from tests.harness.waiting import wait_until

# The system's, which knows nothing of Mover.
PYTHON = "/usr/bin/python3"


@pytest.fixture
def scripts(room: Path) -> Path:
    """The agent's directory with the package in it; nothing else is on its path."""
    directory = room / "scripts"
    shutil.copytree(ROOT / "mover" / "imageserver", directory / "imageserver")
    return directory


@pytest.fixture
def programs(room: Path) -> Path:
    """A directory for PATH that holds `mover`, as `ln -s` puts it there."""
    directory = room / "bin"
    directory.mkdir()
    program = directory / "mover"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m mover "$@"\n')
    program.chmod(0o755)
    return directory


@pytest.mark.nbd
def test_cloudstack_s_sequence(
    scripts: Path, programs: Path, room: Path, images: Images, agent: Agent, endings: ExitStack
) -> None:
    """Started by its command line, polled until it answers, a disk up and down, and SIGTERM ends that very process."""
    disk = images.qemu_nbd(images.hole("disk.raw", 8 << 20))
    command = [PYTHON, "-m", "imageserver", "--listen", "127.0.0.1", "--port", "0"]
    command += ["--control-socket", str(agent.path)]
    environ = {"PATH": f"{programs}:/usr/bin:/bin", "XDG_STATE_HOME": str(room), "HOME": str(room)}
    environ["MOVER_SERVE_STATE_DIR"] = str(room / "state")
    log = room / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, cwd=scripts, env=environ, stdout=file, stderr=file)
    endings.callback(server.wait)
    endings.callback(server.kill)
    wait_until("the control socket is there", agent.path.exists)
    assert agent.ask("status") == ok(0)
    ready = READY.search(log.read_text())
    assert ready is not None, log.read_text()
    address = ("127.0.0.1", int(ready[1]))
    assert agent.register("7a3e", disk) == ok(1)
    body = pattern(5, 0, 8 << 20)
    assert ask(address, "PUT", "/images/7a3e", body).json()["flushed"] is False
    assert ask(address, "POST", "/images/7a3e/flush").status == 200
    assert ask(address, "GET", "/images/7a3e").body == body
    assert agent.unregister("7a3e") == ok(0)
    assert ask(address, "GET", "/images/7a3e").status == 404
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    assert not agent.path.exists()


def test_without_mover_it_says_so(scripts: Path, room: Path) -> None:
    """One line and status 3."""
    environ = {**os.environ, "PATH": str(room)}
    result = subprocess.run(
        [PYTHON, "-m", "imageserver"], cwd=scripts, env=environ, text=True, capture_output=True, timeout=60, check=False
    )
    assert result.returncode == 3
    assert result.stderr == "mover: cannot start: there is no program `mover` in PATH, link it there\n"

"""`python3 -m imageserver`, copied to where an agent has it: Mover in the place of CloudStack's own server."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.control.agent import Agent, ok
from tests.control.start import PYTHON, install, start
from tests.harness.certificates import Authority
from tests.harness.fixtures import Images
from tests.harness.http import Secure, ask
from tests.harness.patterns import pattern
from tests.harness.waiting import PATIENCE_S, PROGRAM_S


@pytest.mark.nbd
def test_cloudstack_s_sequence(room: Path, images: Images, agent: Agent, endings: ExitStack) -> None:
    """Started by its command line, polled until it answers, a disk up and down, and SIGTERM ends that very process."""
    disk = images.qemu_nbd(images.hole("disk.raw", 8 << 20))
    server, address = start(room, agent, endings)
    assert agent.ask("status") == ok(0)
    assert agent.register("7a3e", disk) == ok(1)
    body = pattern(5, 0, 8 << 20)
    assert ask(address, "PUT", "/images/7a3e", body).json()["flushed"] is False
    assert ask(address, "POST", "/images/7a3e/flush").status == 200
    assert ask(address, "GET", "/images/7a3e").body == body
    assert agent.unregister("7a3e") == ok(0)
    assert ask(address, "GET", "/images/7a3e").status == 404
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE_S) == 0
    assert not agent.path.exists()


@pytest.mark.nbd
def test_cloudstack_s_sequence_over_tls(room: Path, images: Images, agent: Agent, endings: ExitStack) -> None:
    """The agent's TLS flags reach Mover: its clients speak HTTPS, and its control socket is what it was."""
    disk = images.qemu_nbd(images.hole("disk.raw", 8 << 20))
    authority = Authority(room)
    server, (host, port) = start(room, agent, endings, tls=authority.issue("host"))
    address = Secure(host, port, authority.client_context())
    assert agent.register("7a3e", disk) == ok(1)
    body = pattern(5, 0, 8 << 20)
    assert ask(address, "PUT", "/images/7a3e", body).status == 200
    assert ask(address, "GET", "/images/7a3e").body == body
    assert agent.unregister("7a3e") == ok(0)
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE_S) == 0


def test_without_mover_it_says_so(room: Path) -> None:
    """One line and status 3."""
    scripts, _ = install(room)
    environ = {**os.environ, "PATH": str(room)}
    result = subprocess.run(
        [PYTHON, "-m", "imageserver"],
        cwd=scripts,
        env=environ,
        text=True,
        capture_output=True,
        timeout=PROGRAM_S,
        check=False,
    )
    assert result.returncode == 3
    assert result.stderr == "mover: cannot start: there is no program `mover` in PATH, link it there\n"

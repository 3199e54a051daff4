"""Mover started as CloudStack's agent starts its server: `python3 -m imageserver …`, in a directory of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.control.agent import Agent
from tests.harness.certificates import Pair
from tests.harness.mover import READY, ROOT
from tests.harness.waiting import wait_until

# The system's, which knows nothing of Mover.
PYTHON = "/usr/bin/python3"


def install(room: Path, flags: Sequence[str] = ()) -> tuple[Path, Path]:
    """The agent's directory with the package in it, and a directory for PATH with `mover`; `flags` are an operator's.

    Nothing else is on the agent's path.
    """
    scripts, programs = room / "scripts", room / "bin"
    shutil.copytree(ROOT / "mover" / "imageserver", scripts / "imageserver")
    programs.mkdir()
    program = programs / "mover"
    more = " ".join(flags)
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m mover "$@" {more}\n')
    program.chmod(0o755)
    return scripts, programs


def start(
    room: Path, agent: Agent, endings: ExitStack, flags: Sequence[str] = (), tls: Pair | None = None
) -> tuple[subprocess.Popen[bytes], tuple[str, int]]:
    """The agent's command line, run; the process, and its address once it answers `status`.

    With `tls`, an agent that wants TLS with this certificate; `flags` are an operator's own.
    """
    scripts, programs = install(room, flags)
    command = [PYTHON, "-m", "imageserver", "--listen", "127.0.0.1", "--port", "0"]
    command += ["--control-socket", str(agent.path)]
    if tls is not None:
        command += ["--tls-enabled", "--tls-cert-file", str(tls.certificate), "--tls-key-file", str(tls.key)]
    environ = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(room), "MOVER_SERVE_STATE_DIR": str(room / "state")}
    environ["MOVER_ALLOW_NBD_SOCKETS"] = str(room)
    log = room / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, cwd=scripts, env=environ, stdout=file, stderr=file)
    endings.callback(server.wait)
    endings.callback(server.kill)
    wait_until(f"the control socket is there: {log.read_text()}", agent.path.exists)
    assert agent.ask("status")["status"] == "ok"
    ready = wait_until("it says where it listens", lambda: READY.search(log.read_text()))
    return server, ("127.0.0.1", int(ready[1]))

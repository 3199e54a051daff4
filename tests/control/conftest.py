"""A Mover with CloudStack's control socket and a directory of transfers, and its agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.control.agent import Agent
from tests.harness.fixtures import StartMover
from tests.harness.mover import Mover


@pytest.fixture
def agent(room: Path) -> Agent:
    """The agent of `mover`."""
    return Agent(room / "run" / "image-server.sock")


@pytest.fixture
def transfers(room: Path) -> Path:
    """The directory of transfers of `mover`."""
    directory = room / "transfers"
    directory.mkdir()
    return directory


@pytest.fixture
def mover(agent: Agent, transfers: Path, start_mover: StartMover) -> Mover:
    """Two front ends, and no image of the configuration's."""
    return start_mover({}, {"serve": {"control_socket": str(agent.path), "transfer_dir": str(transfers)}}, 2)

"""What an operator copies: unit files, the example configuration, the dashboard; each against what it is about."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from config.documentation import example_toml
from config.load import load_with_origins
from tests.harness.fixtures import StartMover
from tests.harness.mover import ROOT
from tests.harness.waiting import PROGRAM_S
from tests.operation.metrics import metrics

CONFIG = ROOT / "config"
UNITS = ("mover.service", "mover.socket")
# systemd-analyze's scale: 100 is a service that may do everything, 0 one that may do nothing.
EXPOSURE_MOST = 25
METRIC = re.compile(r"\bmover_[a-z_]+")


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The unit files with a program and a user that are there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    program = tmp_path / "mover"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in UNITS:
        text = (CONFIG / "systemd" / name).read_text()
        text = text.replace("/opt/mover/bin/mover", str(program))
        (tmp_path / name).write_text(re.sub(r"((?:User|Group))=mover\b", r"\1=daemon", text))
    return [str(tmp_path / name) for name in UNITS]


def test_the_unit_files_are_right(units: list[str]) -> None:
    """systemd knows every directive in them, and has nothing to say."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        text=True,
        capture_output=True,
        timeout=PROGRAM_S,
        check=False,
    )
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "mover" in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_service_may_do_little(units: list[str]) -> None:
    """systemd finds it exposed to no more than a service that reads /proc and listens on the network must be."""
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_MOST}", units[0]]
    done = subprocess.run(command, text=True, capture_output=True, timeout=PROGRAM_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_may_confine_what_it_starts() -> None:
    """Landlock's calls are not in systemd 252's sets: without them images of others would be read unconfined."""
    allowed = re.findall(r"^SystemCallFilter=(.*)$", (CONFIG / "systemd" / "mover.service").read_text(), re.MULTILINE)
    words = {word for line in allowed for word in line.split()}
    assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} <= words


def test_the_example_configuration_is_true() -> None:
    """It is what `mover config example` prints: every setting, its documentation, its default."""
    found = (CONFIG / "mover.example.toml").read_text()
    assert found == "\n".join(example_toml()) + "\n", "run: .venv/bin/mover config example > config/mover.example.toml"


def test_the_example_configuration_changes_nothing_and_its_lines_work(tmp_path: Path) -> None:
    """As it stands, and with every setting's line uncommented, it gives the defaults."""
    text = (CONFIG / "mover.example.toml").read_text()
    uncommented = re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE)
    assert uncommented != text
    read = []
    for name, content in (("example.toml", text), ("whole.toml", uncommented), ("empty.toml", "")):
        (tmp_path / name).write_text(content)
        read.append(load_with_origins({}, {}, tmp_path / name))
    assert read[0].settings == read[1].settings == read[2].settings
    assert not read[0].origins
    assert len(read[1].origins) > 50


@pytest.mark.nbd
def test_the_dashboard_and_the_documents_ask_for_metrics_that_are_there(start_mover: StartMover) -> None:
    """Every metric that they name is on a real page; and every metric of the page is in the documents."""
    names = metrics(start_mover({})).names
    dashboard = json.loads((CONFIG / "grafana" / "mover.json").read_text())
    asked = {name for panel in dashboard["panels"] for one in panel["targets"] for name in METRIC.findall(one["expr"])}
    assert len(asked) > 25
    assert asked <= names
    document = set(METRIC.findall((ROOT / "docs" / "operations.md").read_text()))
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}
    assert document - families - names == set()
    assert families - document == set()

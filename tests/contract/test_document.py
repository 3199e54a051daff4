"""docs/http-api.md is true: each of its curl lines is run, and its answer compared."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.house import KIB, MIB, run
from tests.harness.mover import Mover
from tests.harness.patterns import sparse_file
from tests.harness.servers import qemu_nbd
from tests.harness.waiting import PATIENCE_S

pytestmark = pytest.mark.nbd

DOCUMENT = Path(__file__).parents[2] / "docs" / "http-api.md"
PROMPT = "    $ "


@pytest.fixture
def mover(tmp_path: Path) -> Iterator[Mover]:
    """The service that the document describes at its top."""
    sparse_file(tmp_path / "disk.raw", 64 * MIB)
    vm = tmp_path / "vm.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", vm, str(MIB))
    run("qemu-img", "bitmap", "--add", "-f", "qcow2", vm, "since")
    run("qemu-io", "-f", "qcow2", "-c", f"write -q -P 1 {64 * KIB} {128 * KIB}", vm)
    demo = qemu_nbd(tmp_path, "demo", tmp_path / "disk.raw")
    changed = qemu_nbd(tmp_path, "vm", vm, image_format="qcow2", bitmap="since")
    tables = {"serve": {"ticket_socket": str(tmp_path / "tickets")}}
    served = Mover(tmp_path, {"demo": demo, "vm": f"{changed.uri()}&bitmap=since"}, tables)
    try:
        demo.start()
        changed.start()
        yield served.start()
    finally:
        served.close()
        demo.close()
        changed.close()


def examples(text: str) -> list[tuple[str, str]]:
    """Each curl line and the lines below it that it prints."""
    found: list[tuple[str, str]] = []
    within = False
    for line in text.splitlines():
        if line.startswith(PROMPT):
            found.append((line.removeprefix(PROMPT), ""))
        elif within and line.startswith("    "):
            found[-1] = (found[-1][0], f"{found[-1][1]}{line[4:]}\n")
        within = line.startswith("    ") and (within or line.startswith(PROMPT))
    return found


def test_every_curl_line_prints_what_stands_below_it(mover: Mover, tmp_path: Path) -> None:
    """The document's commands work as they stand, in their order, but for the service's addresses."""
    if shutil.which("curl") is None:
        pytest.skip("curl is missing")
    found = examples(DOCUMENT.read_text())
    assert len(found) > 15
    for command, prints in found:
        line = command.replace("127.0.0.1:54322", f"127.0.0.1:{mover.tcp[1]}")
        line = line.replace("/run/mover.http", str(mover.unix))
        line = line.replace("/run/", f"{tmp_path}/")
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout.strip().replace(str(mover.unix), "/run/mover.http") == prints.strip(), command
    assert (tmp_path / "part.img").stat().st_size == MIB

"""Requests right and wrong, made by schemathesis from a document of routes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.harness.mover import ROOT
from tests.harness.waiting import PROGRAM_S
from tests.library.service import PATCH_21

VENV = ROOT / ".venv-schemathesis"
RULES = ROOT / "tests" / "operation"
# What does not apply: HTTP has methods that no document names, and which headers a server ignores is its own affair.
HOOKS = f"import schemathesis\n\nschemathesis.serializer.alias({PATCH_21!r}, 'application/json')\n"
EXCLUDED = "unsupported_method,ignored_auth,missing_required_header"


def fuzz(room: Path, document: dict[str, Any], port: int, examples: int, phases: str, rules: str) -> None:
    """Ask what listens on `port` of 127.0.0.1; every answer is one that the document names, in the form it says.

    The requests are the same ones every time. `rules` is the file of
    what may not be expected.
    """
    if not (VENV / ".set-up").exists():
        subprocess.run([str(ROOT / ".ci" / "setup"), "schemathesis"], check=True, timeout=PROGRAM_S)
    (room / "hooks.py").write_text(HOOKS)
    schema = room / "openapi.json"
    schema.write_text(json.dumps(document))
    command = [
        str(VENV / "bin" / "schemathesis"), f"--config-file={RULES / rules}", "run", str(schema),
        f"--url=http://127.0.0.1:{port}", f"--max-examples={examples}", "--generation-deterministic",
        f"--exclude-checks={EXCLUDED}", f"--phases={phases}", "--workers=2", "--request-timeout=20",
        "--max-failures=20", "--no-color",
    ]  # fmt: skip
    environment = {**os.environ, "COLUMNS": "160", "PYTHONPATH": str(room), "SCHEMATHESIS_HOOKS": "hooks"}
    done = subprocess.run(
        command, cwd=room, env=environment, text=True, capture_output=True, timeout=3 * PROGRAM_S, check=False
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]

"""The unmodified clients of Glance, in Python and on the command line, with nothing configured and over PostgreSQL."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.mover import ROOT, Mover
from tests.harness.patterns import pattern
from tests.harness.postgres import Postgres
from tests.harness.waiting import PROGRAM_S

OPENSTACK = ROOT / ".venv-openstack" / "bin"
PROGRAM = ROOT / "tests" / "clients" / "glance_program.py"
DATA = pattern(6, 0, 3_000_000)
MD5, SHA256 = hashlib.md5(DATA).hexdigest(), hashlib.sha256(DATA).hexdigest()

pytestmark = [
    pytest.mark.skipif(
        not (OPENSTACK / "glance").is_file() and "CI" not in os.environ,
        reason="Glance's clients are missing: `.ci/setup openstack` installs them",
    ),
]


# The commands are the libraries' calls again, and each start of one takes a second of a processor: over one database.
COMMANDS = ["sqlite"]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, module_room: Path) -> Iterator[tuple[str, Path]]:
    """The endpoint of a service, and a file to upload."""
    settings = {}
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        settings = {"library": {"database": server.database()}}
    room = module_room / str(request.param)
    room.mkdir()
    file = room / "data.raw"
    file.write_bytes(DATA)
    with ExitStack() as stack:
        mover = Mover(room, {}, settings, front_ends=2)
        stack.callback(mover.close)
        mover.start()
        yield f"http://127.0.0.1:{mover.tcp[1]}", file
        mover.assert_log_clean()


def run(*command: str | Path, status: int = 0) -> str:
    """What a program prints; its environment says nothing of any cloud."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    done = subprocess.run(
        command, env={**clean, "HOME": "/nonexistent"}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PROGRAM_S, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


def ask(program: str, house: tuple[str, Path]) -> object:
    """What a program of glance_program.py has seen."""
    return json.loads(run(OPENSTACK / "python", PROGRAM, program, *map(str, house)))


def test_glanceclient_v1(house: tuple[str, Path]) -> None:
    """Every call of its v1 library that a server without locations answers."""
    assert ask("glance1", house) == {
        "status": "active", "checksum": MD5, "name": "two words 100%", "listed": [True],
        "shown": ["two words 100%", {"os": "linux"}, True, len(DATA)], "data": SHA256, "updated": {"os": "linux"},
        "members": [["tenant", True]], "shared": [True], "later": "active", "errors": [404, 404, 409, 400],
    }  # fmt: skip


def test_glanceclient_v2(house: tuple[str, Path]) -> None:
    """Its v2 library, which builds its models from the schemas and verifies what it downloads."""
    assert ask("glance2", house) == {
        "status": "active", "checksum": MD5, "name": "ü", "listed": [True], "data": SHA256,
        "updated": ["new", "x", 5, False], "tags": ["u"], "members": [["tenant", "accepted"]],
        "deactivated": "deactivated", "versions": ["v1", "v2"], "errors": [404, 404, 404],
    }  # fmt: skip


def test_openstacksdk(house: tuple[str, Path]) -> None:
    """Without Keystone: an endpoint is all it knows."""
    assert ask("sdk", house) == {
        "status": "active", "checksum": MD5, "name": "sdk image", "listed": [True], "data": SHA256, "updated": "new",
        "tags": ["t"], "members": [["tenant", "accepted"]], "gone": True, "errors": [404],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("house", COMMANDS, indirect=True)
@pytest.mark.parametrize("version", ["2", "1"])
def test_the_command_glance(house: tuple[str, Path], version: str, tmp_path: Path) -> None:
    """`glance image-create --file`, `image-list`, `image-download`, `image-delete`, in both versions."""
    endpoint, file = house
    url = ("--os-image-api-version", version, "--os-image-url", endpoint, "--os-auth-token", "any")

    def glance(*arguments: str | Path) -> str:
        return run(OPENSTACK / "glance", *url, *arguments)

    formats = ("--disk-format", "raw", "--container-format", "bare")
    made = glance("image-create", "--file", file, *formats, "--name", f"by-glance-{version}", "--property", "k=v")
    found = re.search(r"\| id +\| ([0-9a-f-]{36}) ", made)
    assert found is not None, made
    assert MD5 in made
    assert re.search(r"k'? +\| v ", made)
    assert found[1] in glance("image-list")
    copy = tmp_path / "copy"
    glance("image-download", found[1], "--file", copy)
    assert copy.read_bytes() == DATA
    glance("image-delete", found[1])


@pytest.mark.slow
@pytest.mark.parametrize("house", COMMANDS, indirect=True)
def test_the_command_openstack(house: tuple[str, Path], tmp_path: Path) -> None:
    """`openstack image create`, `set`, `show` and `save`, without Keystone; each start of it takes seconds."""
    endpoint, file = house

    def openstack(*arguments: str | Path) -> str:
        return run(OPENSTACK / "openstack", "--os-auth-type", "none", "--os-endpoint", endpoint, "image", *arguments)

    formats = ("--disk-format", "raw", "--container-format", "bare")
    made = json.loads(openstack("create", "--file", file, *formats, "-f", "json", "by-openstack"))
    assert (made["status"], made["checksum"]) == ("active", MD5)
    openstack("set", "--property", "k=v", "--tag", "t", "by-openstack")
    shown = json.loads(openstack("show", "-f", "json", "by-openstack"))
    assert (shown["properties"]["k"], shown["tags"]) == ("v", ["t"])
    copy = tmp_path / "copy"
    openstack("save", "--file", copy, "by-openstack")
    assert copy.read_bytes() == DATA


@pytest.mark.slow
@pytest.mark.parametrize("house", COMMANDS, indirect=True)
def test_an_endpoint_with_a_version_and_a_token(house: tuple[str, Path]) -> None:
    """`--os-auth-type admin_token` asks no discovery: its endpoint names the version."""
    endpoint, _ = house
    by_token = ("--os-auth-type", "admin_token", "--os-endpoint", f"{endpoint}/v2", "--os-token", "any")
    run(OPENSTACK / "openstack", *by_token, "image", "list")
    run(OPENSTACK / "openstack", "--os-auth-type", "none", "--os-endpoint", f"{endpoint}/v2", "image", "list")

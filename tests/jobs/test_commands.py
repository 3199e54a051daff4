"""`mover image import | export | copy | jobs | cancel` as programs, and Glance's own clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import servers
from tests.harness.mover import ROOT
from tests.harness.waiting import PROGRAM_S, wait_until
from tests.jobs.jobs import Jobs
from tests.jobs.test_imports import DATA, MIB, assert_whole, served

pytestmark = pytest.mark.nbd


def command(jobs: Jobs, *words: str) -> list[str]:
    host, port = jobs.mover.tcp
    return [sys.executable, "-m", "mover", "image", words[0], "--url", f"http://{host}:{port}", *words[1:]]


def run(jobs: Jobs, *words: str, status: int = 0) -> tuple[str, str]:
    done = subprocess.run(command(jobs, *words), cwd=ROOT, capture_output=True, text=True, timeout=PROGRAM_S)
    assert done.returncode == status, done.stderr
    return done.stdout.strip(), done.stderr


def test_a_disk_by_commands(jobs: Jobs, endings: ExitStack) -> None:
    """Imported, copied, exported; what fails says what to do, and jobs are listed."""
    source = served(jobs.room, "command-source", DATA, endings, read_only=True)
    image, _ = run(jobs, "import", source.uri(), "--name", "by command")
    assert jobs.show(image)["name"] == "by command"
    run(jobs, "copy", image, "--to", "far")
    assert_whole(jobs, image, DATA, "near", "far")
    target = served(jobs.room, "command-target", bytes(len(DATA)), endings)
    job, _ = run(jobs, "export", image, target.uri(), "--detach")
    assert jobs.ended(job)["state"] == "done"
    assert (jobs.room / "command-target").read_bytes() == DATA
    small = served(jobs.room, "command-small", bytes(MIB), endings)
    _, why = run(jobs, "export", image, small.uri(), status=1)
    assert "choose a larger disk" in why, why
    listed = json.loads(run(jobs, "jobs", image, "--json")[0])
    assert [one["state"] for one in listed] == ["failed", "done", "done", "done"]
    assert "copy-image" in run(jobs, "jobs", image)[0]


def test_what_is_refused_leaves_no_image(jobs: Jobs) -> None:
    """A source that is not allowed, and a store that is not there: one line that says so, and no image without data."""
    _, why = run(jobs, "import", "nbd+unix:///?socket=/etc/x", "--name", "refused", status=1)
    assert "not allowed by allow.nbd_sockets" in why and why.rstrip().endswith("name another one"), why
    _, why = run(jobs, "import", "nbd+unix:///?socket=/tmp/x", "--name", "refused", "--store", "none", status=1)
    assert "no store 'none'" in why and "correct what is asked for" in why, why
    assert json.loads(run(jobs, "list", "--name", "refused", "--json")[0]) == []


def test_ctrl_c_cancels_and_the_next_one_goes_on(jobs: Jobs, endings: ExitStack) -> None:
    """Exit status 130 and the command that goes on; which does not read again what has come."""
    (jobs.room / "slow").write_bytes(DATA[: 3 * MIB] * 4)
    slow = servers.nbdkit(jobs.room, "slow", "file", str(jobs.room / "slow"), "rate=8M", filters=["rate"])
    endings.callback(slow.close)
    slow.start()
    process = subprocess.Popen(command(jobs, "import", slow.uri()), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    endings.enter_context(process)
    endings.callback(process.kill)
    assert process.stderr is not None
    image = process.stderr.readline().split()[2]
    # Not by the command: it may take longer than the job.
    [job] = wait_until("the job is there", lambda: jobs.ask("GET", f"/v2/images/{image}/tasks").json()["tasks"])
    jobs.moved(job["id"])
    process.send_signal(signal.SIGINT)
    assert process.wait(PROGRAM_S) == 130
    said = process.stderr.read()
    host, port = jobs.mover.tcp
    again = f"go on with: mover image import '{slow.uri()}' --image {image} --url http://{host}:{port}"
    assert said.rstrip().endswith(again), said
    assert jobs.ended(job["id"])["state"] == "cancelled"
    assert jobs.show(image)["status"] == "queued"
    kept = int(jobs.ask("HEAD", f"/v2/images/{image}/file").headers["upload-offset"])
    assert kept
    run(jobs, "import", slow.uri(), "--image", image)
    assert_whole(jobs, image, DATA[: 3 * MIB] * 4, "near")


# -- Glance's own ----------------------------------------------------------------------------------------------


def openstack(jobs: Jobs, name: str, *words: str | Path) -> str:
    program = ROOT / ".venv-openstack" / "bin" / name
    if not program.exists():
        reason = "Glance's client is missing: `.ci/setup openstack` installs it"
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
    host, port = jobs.mover.tcp
    url = f"http://{host}:{port}"
    if name == "glance":
        who = ["--os-image-url", url, "--os-auth-token", "any"]
    else:
        who = ["--os-auth-type", "none", "--os-endpoint", url]
    done = subprocess.run(
        [program, *who, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PROGRAM_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_glance_and_openstack_import(jobs: Jobs) -> None:
    """Their own commands stage, import into stores, copy, and show tasks."""
    file = jobs.room / "theirs"
    file.write_bytes(DATA)
    image = jobs.create()["id"]
    openstack(jobs, "glance", "image-stage", "--file", file, image)
    assert jobs.show(image)["status"] == "uploading"
    openstack(jobs, "glance", "image-import", "--import-method", "glance-direct", "--stores", "near", image)
    wait_until("it is active", lambda: jobs.show(image)["status"] == "active")
    openstack(jobs, "glance", "image-import", "--import-method", "copy-image", "--stores", "far", image)
    wait_until("it is in both", lambda: jobs.show(image)["stores"] == "near,far")
    assert_whole(jobs, image, DATA, "near", "far")
    openstack(jobs, "glance", "stores-delete", "--store", "far", image)
    assert jobs.show(image)["stores"] == "near"
    assert "success" in openstack(jobs, "glance", "image-tasks", image)
    assert "success" in openstack(jobs, "glance", "task-list")
    jobs.create(name="theirs")
    openstack(jobs, "openstack", "image", "stage", "--file", str(file), "theirs")
    openstack(jobs, "openstack", "image", "import", "theirs")
    assert "success" in openstack(jobs, "openstack", "image", "task", "list")
    formats = ("--disk-format", "raw", "--container-format", "bare")
    openstack(jobs, "openstack", "image", "create", "--import", "--file", str(file), *formats, "at once")
    made = jobs.listed("?name=at%20once")[0]["id"]
    wait_until("it is active", lambda: jobs.show(made)["status"] == "active")
    assert_whole(jobs, made, DATA, "near")

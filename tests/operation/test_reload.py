"""SIGHUP: the configuration is read again, in all processes, while transfers go on."""

from __future__ import annotations

import signal
from functools import partial

import pytest

from tests.harness.fixtures import Images, StartMover
from tests.harness.mover import Mover, Tables
from tests.harness.patterns import MIB, pattern
from tests.harness.transfers import Doing, download
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.nbd

SIZE = 8 * MIB


def reload(mover: Mover, settings: Tables, says: str) -> str:
    """Have other settings read; what is logged from then on, once a line of it says `says`."""
    before = len(mover.log())
    mover.configure(settings)
    mover.signal(signal.SIGHUP)
    wait_until(f"the log says {says!r}", lambda: says in mover.log()[before:])
    return mover.log()[before:]


def readers(mover: Mover) -> int:
    """How many readers OPTIONS advertises, once both front ends say the same."""
    answers = [mover.ask("OPTIONS", "/images/disk", unix=n % 2 == 0).json()["max_readers"] for n in range(8)]
    return answers[0] if len(set(answers)) == 1 else 0


def test_what_can_change_changes_everywhere(images: Images, start_mover: StartMover) -> None:
    """Limits and CORS are others in every front end; what is under way goes on, and the pids are the same."""
    server = images.qemu_nbd(images.pattern("disk", 1, SIZE))
    mover = start_mover({"disk": server}, front_ends=2)
    before = (readers(mover), mover.front_end_pids())
    assert before[0] == 64
    settings: Tables = {
        "limits": {"max_readers": 3},
        "front": {"cors_origin": "https://a.example"},
        "serve": {"port": 1},
    }
    source = memoryview(pattern(1, 0, SIZE))
    # The download is half way when the configuration changes.
    moment = {SIZE // 2: partial(reload, mover, settings, "configuration reloaded")}
    Doing(lambda: download(mover.tcp, "/images/disk", source, moment)).result()
    wait_until("both front ends have the new limit", lambda: readers(mover) == 3)
    answer = mover.ask("OPTIONS", "/images/disk")
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert mover.front_end_pids() == before[1]
    assert "changed=front.cors_origin,limits.max_readers" in mover.log()
    # The port is a flag's, which the file cannot override; so nothing waits.
    assert "need a restart" not in mover.log()
    mover.stop_clean()


def test_what_needs_a_restart_is_said(images: Images, start_mover: StartMover) -> None:
    """A setting that cannot change while the service runs is named, and stays as it was."""
    mover = start_mover({})
    log = reload(mover, {"front": {"slots": 64}, "limits": {"exclusive": True}}, "need a restart")
    assert "settings changed that need a restart settings=front.slots,limits.exclusive" in log
    mover.stop_clean()


@pytest.mark.parametrize("settings", [{"limits": {"max_readers": 0}}, {"limits": {"nonsense": 1}}])
def test_a_bad_configuration_changes_nothing(images: Images, start_mover: StartMover, settings: Tables) -> None:
    """What cannot be used is logged with its reason; the service goes on with what it had."""
    server = images.qemu_nbd(images.pattern("disk", 1, SIZE))
    mover = start_mover({"disk": server})
    log = reload(mover, settings, "not reloaded")
    assert "mover.toml" in log
    assert readers(mover) == 64
    reload(mover, {"limits": {"max_readers": 5}}, "configuration reloaded")
    wait_until("the next configuration counts", lambda: readers(mover) == 5)
    mover.stop_clean()


def test_processes_that_run_log_in_the_new_form(images: Images, start_mover: StartMover) -> None:
    """The log's form changes in workers and front ends that run, too."""
    server = images.qemu_nbd(images.pattern("disk", 1, SIZE))
    mover = start_mover({"disk": server})
    assert mover.ask("GET", "/images/disk", Range="bytes=0-9").status == 206
    reload(mover, {"log": {"format": "json"}}, "configuration reloaded")
    server.kill()
    wait_until("the worker tells of its server", lambda: '"event": "no connection"' in mover.log())
    server.start()
    assert len(mover.ask("GET", "/images/disk").body) == SIZE
    wait_until("the front end tells of it", lambda: '"event": "request"' in mover.log())
    mover.stop_clean()

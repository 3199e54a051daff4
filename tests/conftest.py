"""What all tests share: in which order files are run, and what the mark `nbd` asks for."""

from __future__ import annotations

import os
import shutil
import signal
from importlib.util import find_spec

import pytest

pytest_plugins = (
    "tests.harness.fixtures",
    "tests.harness.shared",
)

NBD_PROGRAMS = ("qemu-nbd", "qemu-img", "qemu-system-x86_64", "nbdkit", "nbdcopy")


def pytest_configure() -> None:
    """Programs under test are interrupted; a shell that runs the tests in the background would have them ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: one that begins last would keep all other processes waiting for it."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `nbd` is skipped where a tool is missing, but fails in CI, where none may be."""
    if item.get_closest_marker("nbd") is None:
        return
    missing = [program for program in NBD_PROGRAMS if shutil.which(program) is None]
    missing += ["libnbd's binding"] if find_spec("libnbdmod") is None else []
    if missing:
        reason = f"missing: {', '.join(missing)}; `make setup` installs them"
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)

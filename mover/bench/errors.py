"""What can go wrong in a bench or a demo, each with its exit status."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import join

from mover.cli.status import Status

LAST_LINES = 3


class BenchError(Exception):
    """Anything that ends a bench; `status` is what the process exits with."""

    status = Status.FAILED


class MissingToolError(BenchError):
    """A program that is not part of Mover is not installed."""

    status = Status.UNREACHABLE

    def __init__(self, tool: str, package: str) -> None:
        super().__init__(f"{tool} is missing: install it with your package manager (Debian's package is {package})")
        self.tool = tool
        self.package = package


class StartError(BenchError):
    """A server did not become ready; `output` is what it printed, whose last lines say most."""

    status = Status.UNREACHABLE

    def __init__(self, server: str, why: str, output: str) -> None:
        last_lines = " | ".join(output.strip().splitlines()[-LAST_LINES:])
        super().__init__(f"{server} did not start: {why}: {last_lines or 'it said nothing'}")
        self.server = server
        self.output = output


class ClientError(BenchError):
    """A client failed, or did less than it was asked to."""

    def __init__(self, command: Sequence[str], why: str) -> None:
        super().__init__(f"{join(command)} failed: {why}")
        self.command = command


class DifferenceError(BenchError):
    """A verification failed: two disks that must be the same are not."""

    status = Status.VERIFICATION

"""What a row of the bench is, and what it is given to set itself up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mover.bench import servers
from mover.bench.contest import Contest
from mover.bench.data import write_random
from mover.bench.servers import HttpServer, Image

T = TypeVar("T")


@dataclass
class Bench:
    """What every row is given: the sizes, the place for files, and the stack that ends the row's servers."""

    size_bytes: int
    runs: int
    directory: Path
    imageio: Path | None
    stack: ExitStack

    @property
    def data(self) -> Path:
        """A file of `size_bytes` incompressible bytes, made when a row first asks for it."""
        file = self.directory / "data"
        if not file.exists():
            write_random(file, 0, self.size_bytes)
        return file

    def enter(self, server: AbstractContextManager[T]) -> T:
        """Start a server; it is ended with the row."""
        return self.stack.enter_context(server)

    def http_servers(self, images: Sequence[Image]) -> list[HttpServer]:
        """Start Mover, and imageio if it is there, over the same images."""
        started = [self.enter(servers.mover(self.directory, images))]
        if self.imageio:
            started.append(self.enter(servers.imageio(self.imageio, self.directory, images)))
        return started


@dataclass(frozen=True)
class Row:
    """One row: what it shows, the programs it needs, and the function that sets it up.

    `copies` of the data are what its files may take together.
    """

    title: str
    tools: Sequence[str]
    contests: Callable[[Bench], list[Contest]]
    copies: int = 3

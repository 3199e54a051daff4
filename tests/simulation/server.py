"""A simulated NBD server: what it was sent it applies in any order, also after its client's death."""

from __future__ import annotations

from tests.simulation.truth import Truth, Write
from workers.image.plan import Command, Operation

# Where a server can be told apart by nobody, as over TCP.
UNKNOWN = (0, 0)


class Sent:
    """A command at the server. `data` is what the client's kernel had of a write when the client died."""

    def __init__(self, command: Command, write: Write | None) -> None:
        self.command = command
        self.write = write
        self.data: bytes | None = None

    def bytes(self) -> bytes:
        if self.command.operation is Operation.ZERO:
            return bytes(self.command.length)
        assert self.command.buffer is not None
        return self.data if self.data is not None else bytes(self.command.buffer)


class Link:
    """One NBD connection: commands that the server has not applied, and answers that the worker has not read."""

    def __init__(self, server: Server, number: int) -> None:
        self.server = server
        self.number = number
        self.unapplied: list[Sent] = []
        self.answers: list[Command] = []
        self.in_flight: list[Command] = []
        # Cut: nothing goes through any more. Closed: and the server has said so, having nothing left to apply.
        self.cut = False
        self.deadline: int | None = None

    @property
    def drained(self) -> bool:
        """The server has closed its side."""
        return not self.unapplied

    def send(self, command: Command, write: Write | None) -> None:
        self.in_flight.append(command)
        if not self.cut:
            self.unapplied.append(Sent(command, write))

    def cut_off(self, received: int) -> None:
        """The client is dead or the way to it broken; the server has received so many of the commands."""
        self.cut = True
        self.answers.clear()
        del self.unapplied[received:]
        for sent in self.unapplied:
            if sent.command.operation is Operation.WRITE:
                sent.data = sent.bytes()


class Server:
    """One life of the server; `truth` is its disk. `identity` is (pid, start time)."""

    def __init__(self, truth: Truth, identity: tuple[int, int]) -> None:
        self.identity = identity
        self.alive = True
        self.links: list[Link] = []
        self._truth = truth

    def accept(self, number: int) -> Link:
        link = Link(self, number)
        self.links.append(link)
        return link

    def apply(self, link: Link, index: int) -> None:
        """Carry out one command and answer it."""
        sent = link.unapplied.pop(index)
        command = sent.command
        if command.operation is Operation.READ and not link.cut:
            assert command.buffer is not None
            command.buffer[:] = self._truth.content(command.offset, command.length)
        elif command.operation is Operation.FLUSH:
            self._truth.flushed()
        elif command.operation in (Operation.WRITE, Operation.ZERO):
            for applied in self._truth.apply(sent.write, command.offset, sent.bytes()):
                applied.answered = not link.cut
        if not link.cut:
            link.answers.append(command)

    def die(self, keeps_cache: bool) -> None:
        """Nothing that was not applied will be; what was not flushed is gone with the cache."""
        self.alive = False
        self._truth.crash(keeps_cache)
        for link in self.links:
            link.cut_off(received=0)

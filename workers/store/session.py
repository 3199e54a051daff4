"""One image on its way into a store, from Receive to its end.

WRITE ──┬──► a thread writes it ──────────────┬──► ended: the slot is free
        └──► a thread for each digest hashes ─┘     a ZERO goes the same way, without a slot

Publish: when all is hashed ──► a thread checks, inspects, makes durable, links ──► Published, or dropped
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from workers.image.loop import Loop
from workers.image.plan import ZEROS, SessionCommand
from workers.lane.store_format import Answer, Clone, Cloned, Kept, Publish, Published, Receive, Refused, Why
from workers.store.backing import Cloning, Part
from workers.store.digests import Digests, HashPart
from workers.store.progress import Progress
from workers.store.publishing import publish, refused

Outcome = object
"""What a thread's call returned, or the Refusal or OSError that it raised."""


class Port(Protocol):
    """What a session needs of the connection that it belongs to."""

    def do(self, call: Callable[[], object], then: Callable[[Outcome], None]) -> None:
        """Have a thread call `call`; `then` gets what came of it, in the loop."""

    def ended(self, command: SessionCommand, error: int) -> None:
        """A command has ended."""

    def answer(self, command: SessionCommand, answer: Answer) -> None:
        """A question has its answer."""

    def gone(self, session: Session) -> None:
        """The session is over, and nothing of it is under way."""


class State(Enum):
    """Where an upload is."""

    WRITING = auto()
    HASHING = auto()  # all bytes are here, and some of them not hashed yet
    PUBLISHING = auto()  # a thread checks it, and lets it be seen
    ENDING = auto()  # kept, dropped or published; over as soon as no thread uses it


def _put(part: Part, command: SessionCommand) -> None:
    """In a thread. Raises OSError."""
    if command.buffer is None:
        part.zero(command.offset, command.length)
    else:
        part.write(command.buffer, command.offset)


class Session:
    """An upload. `lane` is None when nobody is left to hear of it."""

    def __init__(self, number: int, lane: object, asked: Receive, part: Part, loop: Loop, port: Port) -> None:
        self.number = number
        self.lane = lane
        self.state = State.WRITING
        self._asked = asked
        self._part = part
        self._port = port
        self._progress = Progress(asked.offset)
        algorithms = ("md5", asked.hash_algo) if asked.digests else ()
        self._digests = Digests(loop, algorithms, part, self._hashed)
        if asked.offset:
            self._digests.feed(asked.offset, None, None)
        self._waiting: dict[SessionCommand, int] = {}  # WRITEs, and how many threads each still waits for
        self._steps = 0
        self._error = 0
        self._keeping = False
        self._unwanted = False
        self._after: list[Callable[[], None]] = []
        self._publishing: tuple[SessionCommand, Publish] | None = None
        self._finish: tuple[Callable[[], object], Callable[[Outcome], None]] | None = None

    @property
    def hashing(self) -> int:
        """Pieces that are being hashed."""
        return self._digests.busy

    @property
    def kept(self) -> int | None:
        """How many bytes are durable, if they outlive it."""
        return self._progress.kept or None if self._asked.keep else None

    def _do(self, call: Callable[[], object], then: Callable[[Outcome], None]) -> None:
        def ended(outcome: Outcome) -> None:
            self._steps -= 1
            then(outcome)
            self._finish_if_idle()

        self._steps += 1
        self._port.do(call, ended)

    # -- bytes -----------------------------------------------------------------------------------------------

    def take(self, command: SessionCommand) -> None:
        """The next bytes, in the command's buffer until it has ended, or without one so many zeros."""
        buffer, part, progress = command.buffer, self._part, self._progress
        fault = self._fault(command)
        if fault:
            self._port.ended(command, fault)
            return
        self._waiting[command] = 1
        if not part.rereads or progress.hashes_slots(self._digests.fed, self._digests.behind):
            self._waiting[command] += self._digests.feed(command.length, ZEROS if buffer is None else buffer, command)
        progress.arrive(command.length)
        self._do(lambda: _put(part, command), lambda outcome: self._written(command, outcome))

    def _fault(self, command: SessionCommand) -> int:
        if self.state is not State.WRITING:
            return errno.ESTALE
        beyond = self._asked.size is not None and command.offset + command.length > self._asked.size
        if command.offset != self._progress.arrived or beyond:
            return errno.EINVAL
        return self._error

    def _written(self, command: SessionCommand, outcome: Outcome) -> None:
        if isinstance(outcome, OSError):
            self._error = self._error or outcome.errno or errno.EIO
        else:
            self._progress.write(command.offset, command.length)
            unread = self._progress.written - self._digests.fed
            if unread > 0:
                self._digests.feed(unread, None, None)
            self._keep_some()
        self._piece_ended(command)

    def _hashed(self, piece: HashPart, error: int) -> None:
        self._error = self._error or error
        if isinstance(piece.whose, SessionCommand):
            self._piece_ended(piece.whose)
        self._publish_if_hashed()
        self._finish_if_idle()

    def _piece_ended(self, command: SessionCommand) -> None:
        """The bytes are written, or hashed by one of the digests."""
        self._waiting[command] -= 1
        if not self._waiting[command]:
            del self._waiting[command]
            self._port.ended(command, self._error)

    def _keep_some(self) -> None:
        """Make durable what has come, now and then: after a crash the upload goes on from there."""
        if not self._asked.keep or self._keeping or not self._progress.keep_due or self.state is State.ENDING:
            return
        self._keeping = True
        upto = self._progress.written

        def kept(outcome: Outcome) -> None:
            self._keeping = False
            if not isinstance(outcome, OSError):  # else the next one, or the end, tells
                self._progress.kept = upto

        self._do(lambda: self._part.keep(upto, self._asked.size), kept)

    def clone(self, command: SessionCommand, path: str, asked: Clone) -> None:
        """Go on with the next bytes of another file."""
        part, at = self._part, self._progress.arrived
        if not (self._is_whole() and isinstance(part, Cloning)) or self._asked.digests:
            self._port.answer(command, Refused(Why.GONE, "this upload cannot go on with another file's bytes"))
            return
        self._waiting[command] = 1

        def cloned(outcome: Outcome) -> None:
            del self._waiting[command]
            if isinstance(outcome, int):
                self._progress.arrive(outcome - at)
                self._progress.write(at, outcome - at)
                self._keep_some()
                self._port.answer(command, Cloned(outcome))
            else:
                self._error = self._error or errno.EIO
                self._port.answer(command, refused(outcome))

        self._do(lambda: part.clone(path, at, asked.size, max(1, asked.most)), cloned)

    # -- the end ---------------------------------------------------------------------------------------------

    def publish(self, command: SessionCommand, asked: Publish) -> None:
        """Nothing more comes: check it, and let it be seen."""
        unfit = self._unfit(asked)
        if unfit is not None:
            self._drop(command, unfit)
            return
        self.state = State.HASHING
        self._publishing = (command, asked)
        self._publish_if_hashed()

    def _unfit(self, asked: Publish) -> Refused | None:
        arrived = self._progress.arrived
        if not self._is_whole():
            return Refused(Why.GONE, "the upload is not whole")
        for size in (asked.size, self._asked.size):
            if size is not None and size != arrived:
                return Refused(Why.WRONG_SIZE, f"the image has {arrived} bytes, {size} were announced")
        return None

    def _is_whole(self) -> bool:
        return self.state is State.WRITING and not self._waiting and not self._error

    def _publish_if_hashed(self) -> None:
        if self.state is not State.HASHING or self._digests.busy or self._publishing is None:
            return
        command, asked = self._publishing
        if self._error:
            self._drop(command, refused(OSError(self._error, "what was written cannot be read")))
            return
        self.state = State.PUBLISHING
        part, size = self._part, self._progress.arrived
        md5, value = self._digests.hexdigests() if self._asked.digests else (None, None)
        self._do(lambda: publish(part, asked, size, md5, value), lambda outcome: self._published(command, outcome))

    def _published(self, command: SessionCommand, outcome: Outcome) -> None:
        if isinstance(outcome, Published) and not self._unwanted:
            self._over(self._part.close, lambda _: self._port.answer(command, outcome))
        else:
            self._drop(command, refused(outcome))

    def _drop(self, command: SessionCommand, answer: Answer) -> None:
        """Nothing of it stays; then the question is answered."""
        self._over(self._part.drop, lambda _: self._port.answer(command, answer))

    def keep(self, command: SessionCommand) -> None:
        """The image goes on with another body."""
        if not (self._is_whole() and self._asked.keep):
            self._drop(command, Refused(Why.GONE, "the upload is not whole"))
            return
        arrived = self._progress.arrived

        def kept(outcome: Outcome) -> None:
            self._port.answer(command, refused(outcome) if isinstance(outcome, Exception) else Kept(arrived))

        self._over(self._keep_and_close, kept)

    def end(self, keep: bool, then: Callable[[], None] = lambda: None) -> None:
        """Nobody goes on with it in this session: what is there is kept, or dropped; `then` is called after that."""
        self._after.append(then)
        if self.state is State.PUBLISHING:
            self._unwanted = True  # the thread comes back
        elif self.state is State.HASHING and self._publishing is not None:
            self._drop(self._publishing[0], Refused(Why.GONE, "nobody waits for it"))
        elif self.state is State.WRITING:
            keeps = keep and self._asked.keep and self._progress.written > 0 and not self._error
            self._over(self._keep_and_close if keeps else self._part.drop, lambda _: None)

    def _keep_and_close(self) -> None:
        try:
            self._part.keep(self._progress.written, self._asked.size)
        finally:
            self._part.close()

    def _over(self, finish: Callable[[], object], then: Callable[[Outcome], None]) -> None:
        """A thread calls `finish` when no other one uses the part: one of a terabyte takes its time to go."""
        self.state = State.ENDING
        self._publishing = None
        self._digests.stop()
        self._finish = (finish, then)
        self._finish_if_idle()

    def _finish_if_idle(self) -> None:
        if self._finish is None or self._steps or self._digests.busy:
            return
        (finish, then), self._finish = self._finish, None

        def ended(outcome: Outcome) -> None:
            self._digests.close()
            self._port.gone(self)
            then(outcome)
            for waiting in self._after:
                waiting()

        self._port.do(finish, ended)

    def close(self) -> None:
        """The worker leaves: now, in this thread."""
        if self._progress.written and self._asked.keep and self.state is State.WRITING:
            self._keep_and_close()
        else:
            self._part.drop()
        self._digests.close()

"""A store of library images as a worker's connection: questions are answered by threads, uploads are sessions.

    Receive ──► WRITE, WRITE, ... ──► Publish        hashed and written, checked, seen
                              ├─────► Keep           some of it: another body goes on
                              └─────► ROLLBACK, or the lane is closed

One image comes in at a time, the export's; the export without an image answers for the store itself.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from config.export import Export
from config.store_settings import FileStore, HttpStore, Store
from config.stores import path_of
from config.url_rules import UrlRules
from workers.image.connection import Owner
from workers.image.local_export import LocalExport
from workers.image.loop import Loop
from workers.image.plan import WRITING, Command, Limits, Operation, SessionCommand
from workers.image.threads import Call
from workers.lane import store_format
from workers.lane.protocol import ImageFacts
from workers.lane.store_format import (
    Abandon,
    Answer,
    Clone,
    Confirm,
    Done,
    Find,
    Finish,
    Forget,
    Found,
    Keep,
    Kept,
    Look,
    NoQuestion,
    Prepare,
    Prepared,
    Publish,
    Receive,
    Receiving,
    Refused,
    Remove,
    Sweep,
    Why,
)
from workers.store.backing import Backing, Looking, Part, Scattering
from workers.store.files.store import FileBacking
from workers.store.finishing import finish
from workers.store.publishing import refused
from workers.store.session import Outcome, Session, State
from workers.store.steps import Step, carry_out

MOST_BYTES = 4 * 1024 * 1024
# A store has no bytes of its own.
FACTS = ImageFacts(
    size_bytes=0,
    read_only=False,
    whole_file=True,
    store=True,
)


def backing_of(store: Store, urls: UrlRules) -> Backing:
    """Whatever keeps the store's images. Raises Refusal."""
    if isinstance(store, FileStore):
        return FileBacking(store)
    if isinstance(store, HttpStore):
        from workers.store.urls.store import UrlBacking

        return UrlBacking(store, urls)
    from workers.store.objects.store import ObjectBacking

    return ObjectBacking(store)


def _find(backing: Backing, uri: str) -> Found:
    return backing.find(uri) if isinstance(backing, Looking) else Found(backing.size(uri))


class Around(NamedTuple):
    """What of the host a store may use: the URLs that it may read, and the file stores that images are copied from."""

    urls: UrlRules
    neighbours: Sequence[FileStore]


class StoreExport(LocalExport):
    """The store that `export` names; `numbers` are for sessions: no worker before has given any."""

    def __init__(
        self,
        number: int,
        export: Export,
        store: Store,
        around: Around,
        loop: Loop,
        owner: Owner,
        numbers: Iterator[int],
    ) -> None:
        super().__init__(number, export, None, loop, owner)
        self._image = export.path
        self._backing = backing_of(store, around.urls)
        self._neighbours = around.neighbours
        self._numbers = numbers
        self._session: Session | None = None
        self._beginning: SessionCommand | None = None
        self._postponed: deque[SessionCommand] = deque()  # questions that wait for a session to be gone

    def _open(self) -> Limits:
        self.server = (1, 1)  # nothing here is ever confirmed before it is durable
        return Limits(FACTS, MOST_BYTES)

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    @property
    def in_flight(self) -> int:
        """What threads have, hashing included."""
        return len(self._in_flight) + (self._session.hashing if self._session is not None else 0)

    # -- commands --------------------------------------------------------------------------------------------

    def send(self, command: Command) -> None:
        """A question, a WRITE, a ZERO or a ROLLBACK."""
        assert isinstance(command, SessionCommand)
        if command.operation is Operation.ASK:
            self._ask(command)
            return
        session = self._session_of(command, command.session)
        if session is None:
            self.ended(command, errno.ESTALE)
        elif command.operation in WRITING:
            session.take(command)
        else:
            session.end(command.keep, lambda: self.ended(command, 0))

    def _session_of(self, command: SessionCommand, number: int) -> Session | None:
        session = self._session
        return session if session is not None and (session.number, session.lane) == (number, command.lane) else None

    def _call(self, command: Command) -> Call:
        return carry_out

    def _finished(self, command: Command, error: int) -> None:
        assert isinstance(command, Step)
        command.then(command.outcome)

    def left_by(self, lane: object) -> None:
        """The lane is closed: its upload is kept, if it may be gone on with."""
        if self._beginning is not None and self._beginning.lane is lane:
            self._beginning.lane = None
        if self._session is not None and self._session.lane is lane:
            self._session.lane = None
            self._session.end(keep=True)

    # -- what a session asks ---------------------------------------------------------------------------------

    def do(self, call: Callable[[], object], then: Callable[[Outcome], None]) -> None:
        """Have a thread call it."""
        super().send(Step(call, then))

    def ended(self, command: SessionCommand, error: int) -> None:
        """A command has ended."""
        self._owner.ended(command, error)

    def answer(self, command: SessionCommand, answer: Answer) -> None:
        """A question has its answer."""
        assert command.buffer is not None
        store_format.answer(command.buffer, answer)
        self.ended(command, 0)

    def gone(self, session: Session) -> None:
        """Who waited for it may go on."""
        self._session = None
        self._ask_again()

    def _ask_again(self) -> None:
        postponed, self._postponed = self._postponed, deque()
        for command in postponed:
            self._ask(command)

    # -- questions -------------------------------------------------------------------------------------------

    def _ask(self, command: SessionCommand) -> None:
        assert command.buffer is not None
        try:
            question = store_format.asked_in(command.buffer)
        except NoQuestion:
            self.ended(command, errno.EINVAL)
            return
        backing = self._backing
        match question:
            case Receive() | Look() | Forget() | Prepare() | Finish() if question.image != self._image:
                self.answer(command, Refused(Why.NOT_THERE, "this worker has another image"))
            case Receive():
                self._receive(command, question)
            case Look() | Forget() if self._is_ending():
                self._postponed.append(command)
            case Look() if self._session is not None:
                self.answer(command, Kept(self._session.kept))
            case Look():
                self._reply(command, lambda: Kept(backing.kept(question.image)))
            case Forget():
                self._reply_done(command, lambda: backing.forget(question.image))
            case Publish() | Keep() | Clone():
                self._finish(command, question)
            case Prepare() | Finish():
                self._scatter(command, question)
            case Remove():
                self._reply_done(command, lambda: backing.remove(question.uri))
            case Abandon():
                self._reply_done(command, lambda: backing.abandon(question.uri))
            case Find():
                self._reply(command, lambda: _find(backing, question.uri))
            case Confirm():
                self._reply_done(command, lambda: backing.confirm(question.image, question.uri))
            case Sweep():
                self._reply(command, lambda: backing.sweep(question.keep_s, question.catalogue))

    def _scatter(self, command: SessionCommand, question: Prepare | Finish) -> None:
        backing = self._backing
        if not isinstance(backing, Scattering):
            self.answer(command, Refused(Why.DENIED, "the store cannot be written at random"))
        elif isinstance(question, Prepare):
            asked = question
            self._reply(command, lambda: Prepared(backing.prepare(asked.image, asked.size, asked.catalogue)))
        else:
            self._reply(command, lambda: finish(backing, question))

    def _reply(self, command: SessionCommand, call: Callable[[], Answer]) -> None:
        def answered(outcome: Outcome) -> None:
            failed = isinstance(outcome, Exception)
            self.answer(command, refused(outcome) if failed else outcome)  # type: ignore[arg-type]

        self.do(call, answered)

    def _reply_done(self, command: SessionCommand, call: Callable[[], None]) -> None:
        def done() -> Answer:
            call()
            return Done()

        self._reply(command, done)

    def _is_ending(self) -> bool:
        return self._session is not None and self._session.state is State.ENDING

    def _receive(self, command: SessionCommand, asked: Receive) -> None:
        if self._is_ending() or (self._session is None and self._beginning is not None and not self._beginning.lane):
            self._postponed.append(command)
            return
        if self._session is not None or self._beginning is not None:
            self.answer(command, Refused(Why.BUSY, f"another upload of image {asked.image} is under way"))
            return
        self._beginning = command
        backing = self._backing
        if asked.offset:
            self.do(
                lambda: backing.resume(asked.image, asked.offset, asked.size), lambda part: self._begun(asked, part)
            )
        else:
            self.do(
                lambda: backing.begin(asked.image, asked.size, asked.catalogue, asked.upload),
                lambda part: self._begun(asked, part),
            )

    def _begun(self, asked: Receive, outcome: Outcome) -> None:
        command, self._beginning = self._beginning, None
        assert command is not None
        if isinstance(outcome, Exception):
            self.answer(command, refused(outcome))
            self._ask_again()
            return
        part: Part = outcome  # type: ignore[assignment]
        self._session = Session(next(self._numbers), command.lane, asked, part, self._loop, self)
        command.value = self._session.number  # for who has left meanwhile, and will not read the answer
        self.answer(command, Receiving(self._session.number))
        if command.lane is None:  # it was closed meanwhile
            self._session.end(keep=True)

    def _finish(self, command: SessionCommand, question: Publish | Keep | Clone) -> None:
        session = self._session_of(command, question.session)
        if session is None:
            self.answer(command, Refused(Why.GONE, "the upload was interrupted"))
        elif isinstance(question, Publish):
            session.publish(command, question)
        elif isinstance(question, Clone):
            self._clone(command, session, question)
        else:
            session.keep(command)

    def _clone(self, command: SessionCommand, session: Session, question: Clone) -> None:
        """A front end that somebody has taken over must not have any file copied by calling it an image."""
        paths = [path for store in self._neighbours if (path := path_of(store, question.uri)) is not None]
        if paths:
            session.clone(command, paths[0], question)
        else:
            self.answer(command, Refused(Why.NOT_THERE, f"{question.uri} is no location of any file store"))

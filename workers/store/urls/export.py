"""A source at a URL as a worker's connection: read in ranges, many at a time; or in order, where there are none."""

from __future__ import annotations

import errno
import logging
import os

from config.export import Export
from config.log import facts
from config.url_rules import UrlRefused, UrlRules
from workers.image.connection import Event, Owner, State
from workers.image.loop import Loop
from workers.image.plan import Command, Limits, Operation
from workers.image.threaded_export import ThreadedExport
from workers.image.threads import Call
from workers.lane.protocol import MOST_FILE_BYTES, ImageFacts
from workers.store.session import Outcome
from workers.store.steps import Step, carry_out
from workers.store.urls.answers import Found
from workers.store.urls.source import Stream, UrlSource

log = logging.getLogger(__name__)

# A request to the server each; they wait more than they compute.
THREADS = 8
MOST_BYTES = 4 * 1024 * 1024
# Readers of a source without ranges, each with an answer of its own; the one that waited longest goes for one more.
STREAMS = 8


class UrlExport(ThreadedExport):
    """What is at the URL `export.path`."""

    def __init__(self, number: int, export: Export, rules: UrlRules, loop: Loop, owner: Owner) -> None:
        super().__init__(number, export, loop, owner)
        self._expected = export.version
        self._rules = rules
        self._source: UrlSource | None = None
        self._streams: list[Stream] = []
        self._read: Call = _cannot

    def open(self) -> None:
        """Ask the server, in a thread: `connected` or `disconnected` of the owner follows."""
        self._move(Event.OPEN)
        self._start("url", 1)
        self._submit(Step(self._find, self._answered), carry_out)

    def _find(self) -> Found | UrlRefused:
        try:
            source = self._source = UrlSource(self._path, self._rules)
            return source.find(self._expected)
        except UrlRefused as refused:
            return refused

    def _answered(self, outcome: Outcome) -> None:
        if self.state is not State.CONNECTING:
            return
        if not isinstance(outcome, Found):
            self.break_off(_why(outcome))
            return
        if outcome.ranges and self._threads is not None:
            # Without ranges one thread does it all: in the order of the commands, which is that of the bytes.
            self._threads.close()
            self._start("url", THREADS)
        self._read = self._read_range if outcome.ranges else self._read_stream
        self.server = (1, 1)  # nothing is ever written here
        self._ready(Limits(_image(outcome), MOST_BYTES))

    def _close(self) -> None:
        for stream in self._streams:
            stream.close()
        self._streams.clear()
        if self._source is not None:
            self._source.close()
            self._source = None

    def break_off(self, why: str) -> None:
        """Nobody waits for what a server may still send."""
        if self._source is not None:
            self._source.abort()
        super().break_off(why)

    def left_by(self, lane: object) -> None:
        """What only this lane has waited for, from a server that may be slow, nobody waits for any more."""
        reads = [command for command in self._in_flight if not isinstance(command, Step)]
        if reads and self._source is not None and all(getattr(one.task, "lane", None) is lane for one in reads):
            self._source.interrupt()

    # -- commands --------------------------------------------------------------------------------------------

    def _call(self, command: Command) -> Call:
        return self._carry_out if command.operation is Operation.READ else _cannot

    def _carry_out(self, command: Command) -> None:
        try:
            self._read(command)
        except UrlRefused as refused:  # a redirect that there was not before
            log.warning("source not read", extra=facts(offset=command.offset, reason=refused.message))
            raise OSError(errno.EACCES, refused.message) from refused
        except OSError as error:
            log.warning("source not read", extra=facts(offset=command.offset, reason=error.strerror))
            raise

    def _read_range(self, command: Command) -> None:
        assert command.buffer is not None
        assert self._source is not None
        self._source.read_into(command.buffer, command.offset)

    def _read_stream(self, command: Command) -> None:
        assert command.buffer is not None
        if any(one.over and one.position < command.offset for one in self._streams):
            command.length = 0  # asked for before anybody knew where the end is
            return
        stream = self._stream_at(command.offset)
        try:
            command.length = stream.read_into(command.buffer)
        except OSError:
            self._streams.remove(stream)
            stream.close()
            raise

    def _stream_at(self, offset: int) -> Stream:
        """The answer that goes on at the offset; a new one at the beginning."""
        assert self._source is not None
        stream = next((one for one in self._streams if one.position == offset), None)
        if stream is None:
            if offset:
                raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))
            if len(self._streams) >= STREAMS:
                self._streams.pop(0).close()
            stream = self._source.stream()
        else:
            self._streams.remove(stream)
        self._streams.append(stream)
        return stream

    def _finished(self, command: Command, error: int) -> None:
        if isinstance(command, Step):
            command.then(command.outcome)
            return
        super()._finished(command, error)
        if error == errno.ESTALE:
            self.break_off("the source at the URL has changed")  # what is there now is seen by opening it again


def _why(outcome: Outcome) -> str:
    if isinstance(outcome, UrlRefused):
        return outcome.message
    assert isinstance(outcome, OSError)
    return outcome.strerror or "the source cannot be read"


def _cannot(command: Command) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def _image(found: Found) -> ImageFacts:
    return ImageFacts(
        size_bytes=MOST_FILE_BYTES if found.size is None else found.size,
        read_only=True,
        version=found.version,
        sequential=not found.ranges,
        unsized=found.size is None,
    )

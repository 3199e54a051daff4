"""What a URL names, as a worker reads it: ranges by several threads, on connections that stay open.

    find ──► redirects ──► size, version ──► read_into, read_into, …      a range each
                                       └───► Stream                       without ranges: all of it, in order

What is read is what was found, or an error: every answer tells its version, and another one is ESTALE. What breaks off
is asked for again from where it was.
"""

from __future__ import annotations

import errno
import http.client
import random
import ssl
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from config.url_rules import REDIRECTS_MOST, Target, UrlRules, parse_redirect, parse_url
from workers.store.urls.answers import (
    PASSING,
    REDIRECTS,
    STALE,
    BadAnswer,
    Changed,
    Found,
    check_part,
    check_whole,
    found_in,
    pause_of,
)
from workers.store.urls.connection import Resolve, UrlConnection, reason, resolve

T = TypeVar("T")
GoesOn = Callable[[int], None]

# As for the other stores on servers: what fails for a moment is tried again so often.
ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S = 8, 0.1, 2.0
# An attempt that got so much further does not count.
PROGRESS_BYTES = 65536
# One call into http.client; what it had when it failed is asked for again.
PIECE_BYTES = 128 * 1024
# A body that nobody wants is read if it is no longer than this: then the connection can be used again.
DRAIN_BYTES = 16 * 1024


class Unreachable(OSError):
    """The server could not be asked, or does not answer as it should; `strerror` is for clients."""


class Missing(OSError):
    """The server says that there is nothing for us; `strerror` is for clients."""


class _Passing(Exception):
    """Not now; the next attempt may be luckier."""

    def __init__(self, why: str, pause_s: float = 0.0) -> None:
        super().__init__(why)
        self.pause_s = pause_s


class Answer(NamedTuple):
    """A server's answer, its body not read; the connection is the caller's."""

    connection: UrlConnection
    response: http.client.HTTPResponse
    headers: dict[str, str]


class UrlSource:
    """The source at a URL. Methods may be called by several threads; all of them block.

    They raise UrlRefused for a URL that is not read, and OSError: Missing, Unreachable, or ESTALE when it has changed.
    """

    def __init__(
        self,
        url: str,
        rules: UrlRules,
        resolver: Resolve = resolve,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._attempts = attempts
        self._rules = rules
        self._resolver = resolver
        self._over = False
        self._stop = threading.Event()  # set for who asked before it was set, and nobody after
        self._wait = wait
        self._first = self._target = parse_url(url, rules)
        self._lock = threading.Lock()
        self._idle: list[UrlConnection] = []
        self._busy: set[UrlConnection] = set()
        self._found: Found | None = None

    # -- what is asked -----------------------------------------------------------------------------------------

    def find(self, expected: str = "") -> Found:
        """The source as it is now. Raises ESTALE if its version is not the expected one."""
        found = self._persist(self._find)
        if expected and found.version != expected:
            raise changed()
        self._found = found
        return found

    def _find(self, goes_on: GoesOn) -> Found:
        answer = self._ask(0, 0)
        try:
            return found_in(answer.response.status, answer.headers)
        finally:
            self._let_go(answer)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill the buffer with the bytes from `offset`, by as many requests as it takes."""
        at = 0

        def attempt(goes_on: GoesOn) -> None:
            nonlocal at
            answer = self._part(offset + at, offset + len(buffer) - 1)
            try:
                while at < len(buffer):
                    count = _read_piece(answer.response, buffer[at : at + PIECE_BYTES])
                    if not count:
                        raise _Passing("it ends in the middle")
                    at += count
                    goes_on(count)
            finally:
                self._let_go(answer)

        self._persist(attempt)

    def _part(self, first: int, last: int) -> Answer:
        found = self._found
        assert found is not None
        answer = self._ask(first, last)
        try:
            if answer.response.status != 206:
                raise Changed
            check_part(found, answer.headers, first, last)
        except BaseException:
            self.drop(answer)
            raise
        return answer

    def stream(self) -> Stream:
        """All of it from the beginning, for who reads it in order."""
        return Stream(self, self._persist(lambda goes_on: self._whole()))

    def _whole(self) -> Answer:
        found = self._found
        assert found is not None
        answer = self._ask(None, None)
        try:
            if answer.response.status != 200:
                raise BadAnswer(f"it answers with status {answer.response.status}")
            check_whole(found, answer.headers)
        except BaseException:
            self.drop(answer)
            raise
        return answer

    @property
    def size(self) -> int | None:
        """The size that was found."""
        return self._found.size if self._found is not None else None

    def interrupt(self) -> None:
        """End what threads wait for; they get errors."""
        with self._lock:
            stop, self._stop = self._stop, threading.Event()
            busy = list(self._busy)
        stop.set()
        for connection in busy:
            connection.abort()

    def abort(self) -> None:
        """The same, and so does who asks later."""
        self._over = True
        self.interrupt()

    def close(self) -> None:
        """Close the connections; no thread uses them any more."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    # -- attempts ----------------------------------------------------------------------------------------------

    def _persist(self, attempt: Callable[[GoesOn], T]) -> T:
        """What the attempt returns, at last; it tells when it gets on, and what was got on with is not lost."""
        tries, gained = 0, 0
        stop = self._stop

        def goes_on(count: int) -> None:
            nonlocal tries, gained
            gained += count
            if gained >= PROGRESS_BYTES:
                tries, gained = 0, 0

        while True:
            pause_s = 0.0
            try:
                return attempt(goes_on)
            except Changed:
                raise changed() from None
            except BadAnswer as bad:
                raise self._unreachable(str(bad)) from None
            except _Passing as passing:
                why, pause_s = str(passing), passing.pause_s
            except (Missing, Unreachable):
                raise
            except (OSError, http.client.HTTPException) as error:
                why = reason(error)
                if isinstance(error, ssl.SSLCertVerificationError):
                    raise self._unreachable(why) from None
            tries += 1
            if tries >= self._attempts or stop.is_set():
                raise self._unreachable(why)
            usual_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (tries - 1)) * random.uniform(0.5, 1.0)
            self._wait(stop, max(usual_s, pause_s))

    def _unreachable(self, why: str) -> Unreachable:
        return Unreachable(errno.EIO, f"{self._target.origin} cannot be read: {why}")

    # -- one request -------------------------------------------------------------------------------------------

    def _ask(self, first: int | None, last: int | None) -> Answer:
        """The server's answer 200, 206 or 416, after its redirects. Raises _Passing, Missing, BadAnswer, UrlRefused."""
        target = self._target
        try:
            return self._follow(target, first, last)
        except Missing:
            if target == self._first:
                raise
            self._target = self._first
            return self._follow(self._first, first, last)

    def _follow(self, target: Target, first: int | None, last: int | None) -> Answer:
        for _ in range(REDIRECTS_MOST + 1):
            answer = self._get(target, first, last)
            status = answer.response.status
            if status in (200, 206, 416):
                self._target = target
                return answer
            self._let_go(answer)
            if status in PASSING:
                raise _Passing(f"it answers with status {status}", pause_of(answer.headers, time.time()))
            if status not in REDIRECTS:
                raise self._refused(target, status)
            location = answer.headers.get("location")
            if not location:
                raise BadAnswer("it redirects without saying where")
            target = parse_redirect(target, location, self._rules)
        raise BadAnswer(f"it redirects more than {REDIRECTS_MOST} times")

    def _refused(self, target: Target, status: int) -> OSError:
        if status in (404, 410):
            return Missing(errno.ENOENT, f"{target.origin} has nothing at the URL (status {status})")
        if status in STALE:
            return Missing(errno.EACCES, f"{target.origin} does not let Mover read the URL (status {status})")
        return Unreachable(errno.EIO, f"{target.origin} answers with status {status}")

    def _get(self, target: Target, first: int | None, last: int | None) -> Answer:
        """One request; on a connection that was idle, a second one if the server has closed it meanwhile."""
        connection, was_used = self._connection(target)
        try:
            try:
                response = connection.get(target, first, last)
            except (http.client.RemoteDisconnected, ConnectionError):
                if not was_used or self._over:
                    raise
                connection.close()
                response = connection.get(target, first, last)  # http.client connects again, and judges again
        except BaseException:
            self._forget(connection)
            raise
        headers = {name.lower(): value for name, value in reversed(response.getheaders())}
        return Answer(connection, response, headers)

    # -- connections -------------------------------------------------------------------------------------------

    def _connection(self, target: Target) -> tuple[UrlConnection, bool]:
        """A connection to the target's origin, and whether it was used before."""
        with self._lock:
            if self._over:
                raise Unreachable(errno.ECANCELED, "nobody waits for the source any more")
            known = next((one for one in self._idle if one.origin == target.origin), None)
            if known is not None:
                self._idle.remove(known)
            connection = known or UrlConnection(target, self._rules, self._resolver)
            self._busy.add(connection)
            return connection, known is not None

    def _let_go(self, answer: Answer) -> None:
        """The answer is done with; what little is left of it is read, and else the connection closed."""
        response = answer.response
        try:
            if not response.isclosed() and response.length is not None and response.length <= DRAIN_BYTES:
                response.read()
        except (OSError, http.client.HTTPException):
            pass  # then it is closed
        if not response.isclosed() or response.will_close or answer.connection.sock is None:
            self.drop(answer)
            return
        with self._lock:
            self._busy.discard(answer.connection)
            self._idle.append(answer.connection)

    def drop(self, answer: Answer) -> None:
        """The answer is not read to its end."""
        answer.response.close()
        self._forget(answer.connection)

    def _forget(self, connection: UrlConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()


class Stream:
    """All of a source in its order; `position` is where the next bytes come from, or, when `over`, would.

    For one thread at a time.
    """

    def __init__(self, source: UrlSource, answer: Answer) -> None:
        self._source = source
        self._answer = answer
        self.position = 0
        self.over = False

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer with the next bytes; fewer are the last ones. Raises OSError when the source breaks off."""
        at, size = 0, self._source.size
        try:
            while at < len(buffer):
                count = _read_piece(self._answer.response, buffer[at : at + PIECE_BYTES])
                if not count:
                    break
                at += count
        except (_Passing, OSError, http.client.HTTPException) as error:
            raise self._broken(reason(error)) from None
        self.position += at
        if at < len(buffer) and size is not None and self.position < size:
            raise self._broken("it ends in the middle")
        self.over = at < len(buffer)
        return at

    def _broken(self, why: str) -> OSError:
        text = f"the source broke off at byte {self.position}, and its server has no ranges to go on with: {why}"
        return Unreachable(errno.EIO, text)

    def close(self) -> None:
        """No more of it is read."""
        self._source.drop(self._answer)


def _read_piece(response: http.client.HTTPResponse, view: memoryview) -> int:
    """Bytes of a body, straight into their place: as many as there is room for, fewer at its end."""
    try:
        return response.readinto(view)
    except http.client.IncompleteRead as cut:
        raise _Passing("it ends in the middle") from cut


def changed() -> OSError:
    """The source is another one than it was."""
    return OSError(errno.ESTALE, "the source at the URL has changed")

"""How often, and how long, what failed is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from mover.client.errors import BrokenError, ClientError, RefusedError, UnreachableError, UntrustedError

PATIENCE_S = 60.0
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
# The image's server may have hiccuped; what it says again and again it means.
SERVER_ERROR = 500
MOST_SERVER_ERRORS = 5
# The service is not there, or has no room, just now.
PASSING = frozenset({429, 502, 503, 504})

Sleep = Callable[[float], None]
Clock = Callable[[], float]


class Patience:
    """One operation's: `failed` waits before the next try, or raises when there should be none.

    The deadline is of the time without progress: a slow transfer that goes on is no failure.
    """

    def __init__(self, seconds: float = PATIENCE_S, sleep: Sleep = time.sleep, clock: Clock = time.monotonic) -> None:
        self._seconds = seconds
        self._sleep = sleep
        self._clock = clock
        self._failures = 0
        self._since: float | None = None
        self._server_errors = 0

    def progressed(self) -> None:
        """Something worked: the deadline begins anew with the next failure."""
        self._failures = 0
        self._since = None
        self._server_errors = 0

    def failed(self, error: ClientError) -> None:
        """Wait a little longer each time. Raises `error` where trying again is no use any more."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        self._failures += 1
        wait = self._wait(error)
        if not self._passing(error) or now + wait > self._since + self._seconds:
            raise error
        self._sleep(wait)

    def _passing(self, error: ClientError) -> bool:
        if isinstance(error, RefusedError):
            self._server_errors += error.status == SERVER_ERROR
            within = self._server_errors < MOST_SERVER_ERRORS
            return error.status in PASSING or (error.status == SERVER_ERROR and within)
        return isinstance(error, BrokenError | UnreachableError) and not isinstance(error, UntrustedError)

    def _wait(self, error: ClientError) -> float:
        longest = min(FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 10), LONGEST_WAIT_S)
        wait = longest * random.uniform(0.5, 1.0)
        asked = error.retry_after_s if isinstance(error, RefusedError) else None
        return max(wait, asked or 0.0)

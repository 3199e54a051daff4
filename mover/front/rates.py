"""Bytes a second, of a ticket, an image and the host, over all front ends: the rules, in memory that they share.

    take ──► the ticket's and the image's buckets open ──► the host's open, and this image's turn ──► charged: 0
      └──► else: how long until it makes sense to ask again; nothing has changed

A bucket is one number: when it opens again (the theoretical arrival time of GCRA). Whoever finds it open may take what
it wants, and moves that time on by what that takes at the rate; so a rate can change at any moment, and a single store
is the whole change. The host's is shared fairly: each image has a finish tag (start-time fair queueing), and while
another image with a lower one has asked just now, it is that one's turn. All of it under one lock, for microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

SECOND_NS = 1_000_000_000
# A bucket that was not used keeps so much: what a late timer misses is made up for.
SLACK_NS = SECOND_NS // 20
# An image that has asked so recently, and was not served, waits still.
FRESH_NS = SECOND_NS // 50
# Somebody else's turn is over soon.
TURN_NS = SECOND_NS // 1000
# A bucket that has been open for so long may become another one's.
IDLE_NS = SECOND_NS

# Words of 8 bytes: virtual time and the host's bucket; for each image (key, finish tag, when it asked); for each bucket
# (key, when it opens).
_VIRTUAL, _HOST, _FLOWS_AT = 0, 1, 2
_FLOWS = 128
_BUCKETS_AT = _FLOWS_AT + 3 * _FLOWS
_BUCKETS = 4096
# Of one key, from its place on: were all of them used, two keys would share a bucket.
_PROBES = 16
RATES_BYTES = 8 * (_BUCKETS_AT + 2 * _BUCKETS)


class Limits(NamedTuple):
    """Bytes a second; 0 is no limit."""

    ticket: int = 0
    image: int = 0
    host: int = 0

    @property
    def least(self) -> int:
        """The lowest of them, 0 if there is none."""
        return min((rate for rate in self if rate), default=0)


@lru_cache(1024)
def key_of(kind: str, name: str) -> int:
    """The number of a ticket or an image in the memory, never 0; two of 2 ** 62 share one by chance."""
    return int.from_bytes(blake2b(f"{kind} {name}".encode(), digest_size=8).digest(), "big") >> 1 | 1


class Rates:
    """The buckets; `words` is the memory, as 8-byte numbers, and `lock` keeps other front ends out of it."""

    def __init__(self, words: memoryview, lock: AbstractContextManager[object]) -> None:
        self._words = words
        self._lock = lock

    def take(self, now: int, count: int, ticket: int, image: int, limits: Limits) -> int:
        """Take `count` bytes at `now` (nanoseconds) for the ticket and the image of these keys, within `limits`.

        0 if they may be moved now, else how long to wait before asking again; nothing is taken then.
        """
        with self._lock:
            buckets = [(self._bucket(ticket, now), limits.ticket)] if limits.ticket else []
            buckets += [(self._bucket(image, now), limits.image)] if limits.image else []
            wait = max((self._words[at] - now for at, _ in buckets), default=0)
            if wait > 0:
                return wait
            if limits.host:
                wait = self._take_turn(now, count, image)
                if wait:
                    return wait
                buckets.append((_HOST, limits.host))
            for at, rate in buckets:
                self._words[at] = max(self._words[at], now - SLACK_NS) + count * SECOND_NS // rate
            return 0

    def give_back(self, now: int, count: int, ticket: int, image: int, limits: Limits) -> None:
        """What was taken and not moved."""
        with self._lock:
            buckets = [(self._bucket(ticket, now), limits.ticket)] if limits.ticket else []
            buckets += [(self._bucket(image, now), limits.image)] if limits.image else []
            buckets += [(_HOST, limits.host)] if limits.host else []
            for at, rate in buckets:
                self._words[at] -= count * SECOND_NS // rate

    def _take_turn(self, now: int, count: int, image: int) -> int:
        """Have the image's turn, if it is; else how long to wait."""
        words, flow = self._words, self._flow(image, now)
        if now - words[flow + 2] >= FRESH_NS:
            # It has not waited: what it did not want before is not owed to it.
            words[flow + 1] = max(words[flow + 1], words[_VIRTUAL])
        words[flow + 2] = now
        if words[_HOST] > now:
            return words[_HOST] - now
        start = words[flow + 1]
        for other in self._flows():
            if other != flow and now - words[other + 2] < FRESH_NS and words[other + 1] < start:
                return TURN_NS
        words[_VIRTUAL] = start
        words[flow + 1] = start + count
        words[flow + 2] = now - FRESH_NS
        return 0

    @staticmethod
    def _flows() -> Iterator[int]:
        return iter(range(_FLOWS_AT, _BUCKETS_AT, 3))

    def _flow(self, image: int, now: int) -> int:
        """Where the image's tag is. One that is new begins with the present; where there is no room, two share one."""
        words, free = self._words, 0
        for flow in self._flows():
            if words[flow] == image:
                return flow
            if not free and words[flow + 2] < now - IDLE_NS:
                free = flow
        if not free:
            return _FLOWS_AT + image % _FLOWS * 3
        words[free], words[free + 1], words[free + 2] = image, words[_VIRTUAL], now - FRESH_NS
        return free

    def _bucket(self, key: int, now: int) -> int:
        """Where the bucket's time is."""
        words, free = self._words, 0
        for probe in range(_PROBES):
            at = _BUCKETS_AT + (key + probe) % _BUCKETS * 2
            if words[at] == key:
                return at + 1
            if not free and words[at + 1] < now - IDLE_NS:
                free = at
        if free:
            words[free], words[free + 1] = key, 0
        return (free or _BUCKETS_AT + key % _BUCKETS * 2) + 1

"""Connections of all front ends, counted in one memory without a lock."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mover.front import crowd
from mover.front.crowd import Crowd, Verdict

FRONT_ENDS = 3


@pytest.fixture
def fd() -> Iterator[int]:
    made = crowd.make(FRONT_ENDS)
    yield made
    os.close(made)


def opened(fd: int) -> list[Crowd]:
    crowds = [Crowd(fd, number + 1) for number in range(FRONT_ENDS)]
    for one in crowds:
        one.open()
    return crowds


@settings(deadline=None)  # a memfd for each example takes its time on a busy machine
@given(st.lists(st.tuples(st.integers(0, FRONT_ENDS - 1), st.integers(0, 4), st.booleans()), max_size=200))
def test_a_connection_is_let_in_where_a_count_of_all_of_them_says_so(
    steps: list[tuple[int, int, bool]],
) -> None:
    """Whoever comes and goes, against a plain count: 10 in all, 4 of a client; bucket 4 is the Unix socket."""
    fd = crowd.make(FRONT_ENDS)
    try:
        crowds = opened(fd)
        there: Counter[tuple[int, int]] = Counter()
        for who, bucket, comes in steps:
            place = None if bucket == 4 else bucket
            if comes:
                of_client = sum(there[one, bucket] for one in range(FRONT_ENDS))
                expected = Verdict.WELCOME
                if place is not None and of_client >= 4:
                    expected = Verdict.CLIENT_FULL
                if there.total() >= 10:
                    expected = Verdict.HOST_FULL
                assert crowds[who].enter(place, 10, 4) is expected
                there[who, bucket] += expected is Verdict.WELCOME
            elif there[who, bucket]:
                crowds[who].leave(place)
                there[who, bucket] -= 1
        loads = [sum(there[who, bucket] for bucket in range(5)) for who in range(FRONT_ENDS)]
        assert [one.lead for one in crowds] == [load - min(loads) for load in loads]
    finally:
        os.close(fd)


def test_who_is_dead_or_draining_is_nobody_to_leave_connections_to(fd: int) -> None:
    """Without a count of its own it has not the fewest, and its connections free their places when it is cleared."""
    one, other, third = opened(fd)
    for _ in range(3):
        assert one.enter(7, 4, 4) is Verdict.WELCOME
    assert one.lead == 3
    other.close()
    crowd.clear(fd, 3)
    assert one.lead == 0
    assert other.enter(7, 4, 3) is Verdict.CLIENT_FULL
    crowd.clear(fd, 1)
    assert other.enter(7, 4, 3) is Verdict.WELCOME
    del third


def test_clients_are_told_apart_by_their_network(fd: int) -> None:
    """An IPv4 address is one client, also behind an IPv6 listener; an IPv6 client has 64 bits to choose from."""
    one = Crowd(fd, 1)
    plain, mapped = one.bucket(socket.AF_INET, "192.0.2.1"), one.bucket(socket.AF_INET6, "::ffff:192.0.2.1")
    assert plain == mapped
    near = one.bucket(socket.AF_INET6, "2001:db8::1"), one.bucket(socket.AF_INET6, "2001:db8::ffff:1%lo")
    assert near[0] == near[1]
    assert len({one.bucket(socket.AF_INET, f"192.0.2.{last}") for last in range(200)}) > 190


def test_another_service_counts_the_same_client_elsewhere() -> None:
    """Nobody can look for addresses that share a bucket with a victim's."""
    buckets = set()
    for _ in range(5):
        fd = crowd.make(1)
        buckets.add(Crowd(fd, 1).bucket(socket.AF_INET, "192.0.2.1"))
        os.close(fd)
    assert len(buckets) > 1

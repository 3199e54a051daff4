"""A channel: whole messages and their descriptors, or nothing, and never a descriptor left behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.lane import channel as module
from workers.lane.channel import FDS_PER_PACKET, PACKET_BYTES, Channel, ChannelBroken, ChannelClosed, pair


class Note(msgspec.Struct, tag=True, frozen=True):
    number: int
    text: str = ""


Ends = tuple[Channel[Note], socket.socket, Channel[Note]]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A channel, the bare socket at its other end, and a channel on that."""
    ours, theirs = pair()
    one, other = Channel[Note](ours, Note), Channel[Note](theirs, Note)
    yield one, theirs, other
    one.close()
    other.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_a_message_arrives_whole_and_nothing_waits_after_it(ends: Ends) -> None:
    one, _, other = ends
    one.send(Note(1, "x" * 1000))
    assert other.receive() == (Note(1, "x" * 1000), [])
    assert other.receive() is None


def test_descriptors_arrive_as_duplicates_that_close_at_exec(ends: Ends, pipe: tuple[int, int]) -> None:
    one, _, other = ends
    one.send(Note(1), [pipe[1]])
    received = other.receive()
    assert received is not None
    (fd,) = received[1]
    assert fd != pipe[1]
    assert not os.get_inheritable(fd)
    os.write(fd, b"!")
    os.close(fd)
    assert os.read(pipe[0], 9) == b"!"


def test_as_many_descriptors_as_are_promised_travel_and_one_more_breaks_the_channel(
    ends: Ends, pipe: tuple[int, int]
) -> None:
    one, _, other = ends
    one.send(Note(1), [pipe[0]] * FDS_PER_PACKET)
    received = other.receive()
    assert received is not None
    assert len(received[1]) == FDS_PER_PACKET
    for fd in received[1]:
        os.close(fd)
    one.send(Note(1), [pipe[0]] * (FDS_PER_PACKET + 1))
    with pytest.raises(ChannelBroken):
        other.receive()


def test_a_packet_that_is_too_long_is_refused_by_both_ends(ends: Ends, pipe: tuple[int, int]) -> None:
    one, theirs, _ = ends
    with pytest.raises(ValueError, match="at most"):
        one.send(Note(1, "x" * PACKET_BYTES))
    socket.send_fds(theirs, [bytes(PACKET_BYTES + 1)], [pipe[0]])
    with pytest.raises(ChannelBroken, match="truncated"):
        one.receive()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(min_size=1, max_size=60))
def test_garbage_is_a_message_or_breaks_the_channel_and_leaves_no_descriptor(
    ends: Ends, pipe: tuple[int, int], garbage: bytes
) -> None:
    one, theirs, _ = ends
    socket.send_fds(theirs, [garbage], [pipe[0]])
    try:
        received = one.receive()
    except ChannelBroken:
        return
    assert received is not None
    for fd in received[1]:
        os.close(fd)


@pytest.mark.parametrize(
    "packet",
    [
        b"\xc1",
        msgspec.msgpack.encode(7),
        msgspec.msgpack.encode({"type": "Letter", "number": 1}),
        msgspec.msgpack.encode({"type": "Note", "number": "one"}),
        msgspec.msgpack.encode(Note(1)) + b"\0",
        msgspec.msgpack.encode(Note(1, "abc")).replace(b"abc", b"\xff\xff\xff"),
    ],
    ids=["no msgpack", "no map", "another tag", "another type", "something after it", "no UTF-8"],
)
def test_a_packet_that_is_no_message_breaks_the_channel(ends: Ends, pipe: tuple[int, int], packet: bytes) -> None:
    one, theirs, _ = ends
    socket.send_fds(theirs, [packet], [pipe[0]])
    with pytest.raises(ChannelBroken):
        one.receive()


def test_the_other_ends_close_is_told_to_who_receives_and_to_who_sends(ends: Ends) -> None:
    one, _, other = ends
    other.close()
    with pytest.raises(ChannelClosed):
        one.receive()
    with pytest.raises(ChannelClosed):
        one.send(Note(1))


def test_what_was_sent_before_the_close_is_received_first(ends: Ends) -> None:
    one, _, other = ends
    one.send(Note(1))
    one.close()
    assert other.receive() == (Note(1), [])
    with pytest.raises(ChannelClosed):
        other.receive()


def test_the_own_close_is_told_too_and_may_come_twice(ends: Ends) -> None:
    one, _, _ = ends
    one.close()
    one.close()
    assert one.fileno() == -1
    with pytest.raises(ChannelClosed):
        one.receive()
    with pytest.raises(ChannelClosed):
        one.send(Note(1))


def test_what_the_socket_does_not_take_waits_and_keeps_its_order_and_descriptors(
    ends: Ends, pipe: tuple[int, int]
) -> None:
    one, _, other = ends
    count = 0
    while one.backlog < 3:
        one.send(Note(count, "x" * 60_000), [pipe[1]])
        count += 1
    assert not one.flush()
    found: list[int] = []
    while len(found) < count:
        received = other.receive()
        if received is None:
            one.flush()
            continue
        found.append(received[0].number)
        for fd in received[1]:
            os.close(fd)
    assert found == list(range(count))
    assert one.flush()
    assert one.backlog == 0


def test_an_end_that_does_not_read_is_given_up_at_a_bound(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG_PACKETS", 5)
    one, _, _ = ends
    while one.backlog < 5:
        one.send(Note(1, "x" * 60_000))
    with pytest.raises(ChannelBroken, match="unread"):
        one.send(Note(2))
    assert one.backlog == 5


def test_close_closes_descriptors_that_still_wait_to_be_sent(ends: Ends, pipe: tuple[int, int]) -> None:
    """The autouse fixture counts them."""
    one, _, _ = ends
    while one.backlog < 2:
        one.send(Note(1, "x" * 60_000), [pipe[0], pipe[1]])
    one.close()
    assert one.backlog == 0

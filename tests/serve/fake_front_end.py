"""A front end that speaks the channel and serves nobody: it reports everything and does what the test orders."""

from __future__ import annotations

import os
import socket
import sys
from functools import partial
from typing import Any

import msgspec

from config.export import Export
from mover.serve import messages
from mover.serve.messages import Begin, Drain, LaneSocket, Tickets
from tests.serve.fake_child import Stagehand
from workers.lane.channel import Channel, ChannelClosed

HAND = Stagehand("front")
CHANNEL: Channel[messages.ToFrontEnd] = Channel(HAND.control, messages.ToFrontEnd)


def on_channel() -> None:
    try:
        received = CHANNEL.receive()
    except ChannelClosed:
        sys.exit(5)
    if received is not None:
        on_message(*received)


def on_message(message: messages.ToFrontEnd, fds: list[int]) -> None:
    values = msgspec.to_builtins(message)
    if isinstance(message, messages.Answer):
        values = {"question": message.question, "body": message.body.decode(), "more": message.more}
    HAND.report(type(message).__name__, fds=len(fds), **{k: v for k, v in values.items() if k != "type"})
    if isinstance(message, Begin):
        begin(fds)
    elif isinstance(message, Tickets) and "no-ack" not in HAND.misdeeds:
        CHANNEL.send(messages.TicketsApplied(message.number))
    elif isinstance(message, LaneSocket):
        watch_lane(message.lane, socket.socket(fileno=fds[0]))
    elif isinstance(message, messages.AskActivity) and "mute" not in HAND.misdeeds:
        CHANNEL.send(messages.Activity(message.question, 1, 2, 3, 4, 5, 6))
    elif isinstance(message, Drain) and "stay" not in HAND.misdeeds:
        sys.exit(0)


def begin(fds: list[int]) -> None:
    for fd in fds[:-3]:  # the last ones are the seats', the crowd's and the tally's
        listener = socket.socket(fileno=fd)
        listener.setblocking(False)
        HAND.watch(fd, partial(accept, listener))
    if "silent" not in HAND.misdeeds:
        version = 99 if "other-version" in HAND.misdeeds else messages.VERSION
        CHANNEL.send(messages.FrontEndHello(version, os.getpid()))
        CHANNEL.send(messages.FrontEndReady())


def accept(listener: socket.socket) -> None:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return  # another front end was faster
    HAND.report("accepted")


def watch_lane(lane: int, sock: socket.socket) -> None:
    def at_end() -> None:
        HAND.ignore(sock.fileno())
        sock.close()
        HAND.report("lane-end", lane=lane)

    HAND.watch(sock.fileno(), at_end)


def on_command(order: dict[str, Any]) -> None:
    match order["do"]:
        case "open":
            export = msgspec.convert(order["export"], Export)
            CHANNEL.send(messages.OpenLane(order["lane"], export, order["arena_bytes"]))
        case "close":
            CHANNEL.send(messages.CloseLane(order["lane"]))
        case "ask":
            CHANNEL.send(messages.Ask(order["question"], order["about"]))
        case "garbage":
            HAND.control.send(b"\xff\xff\xff")
        case "release":
            CHANNEL.send(messages.TicketReleased(order["version"]))
        case "ask-ticket":
            CHANNEL.send(messages.AskTicket(order["id"]))
        case "apply":
            CHANNEL.send(messages.TicketsApplied(order["number"]))
        case "exit":
            sys.exit(order["status"])


if "die" in HAND.misdeeds:
    sys.exit(9)
HAND.watch(CHANNEL.fileno(), on_channel)
HAND.run(on_command)

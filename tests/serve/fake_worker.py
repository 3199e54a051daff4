"""A worker that speaks the channel and moves no byte: it reports everything and does what the test orders."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import msgspec

from tests.serve.fake_child import Stagehand
from workers import messages
from workers.image.ledger import LEDGER_BYTES, Ledger
from workers.image.writers import FILE_BYTES
from workers.lane import memory
from workers.lane.channel import Channel, ChannelClosed
from workers.messages import AskStatistics, Attach, Leave, Serve

HAND = Stagehand("worker")
CHANNEL: Channel[messages.ToWorker] = Channel(HAND.control, messages.ToWorker)
LEDGERS: list[Ledger] = []
LANES: list[int] = []
CONNECTIONS: dict[int, socket.socket] = {}


def on_channel() -> None:
    try:
        received = CHANNEL.receive()
    except ChannelClosed:
        sys.exit(5)
    if received is not None:
        on_message(*received)


def on_message(message: messages.ToWorker, fds: list[int]) -> None:
    values = msgspec.to_builtins(message)
    HAND.report(type(message).__name__, fds=len(fds), **{k: v for k, v in values.items() if k != "type"})
    if isinstance(message, Serve):
        LEDGERS.append(Ledger(memory.map_file(fds[0], FILE_BYTES)[:LEDGER_BYTES]))
        version = 99 if "other-version" in HAND.misdeeds else messages.VERSION
        CHANNEL.send(messages.WorkerHello(version, message.generation, os.getpid()))
        if "die-served" in HAND.misdeeds:
            sys.exit(9)
    elif isinstance(message, Attach):
        LANES.extend(fds)
    elif isinstance(message, AskStatistics) and "mute" not in HAND.misdeeds:
        uses = [messages.LaneUse(1, 32, 0) for _ in LANES]
        CHANNEL.send(messages.Statistics(message.question, "connected", len(CONNECTIONS), 0, 7, 1, 2, 0, 3, uses))
    elif isinstance(message, Leave) and "stay" not in HAND.misdeeds:
        sys.exit(0)


def connect(number: int, address: Any) -> None:
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address)
    else:
        sock = socket.create_connection(tuple(address))
    CONNECTIONS[number] = sock
    CHANNEL.send(messages.Connected(number), [sock.fileno()])
    HAND.report("connected")


def on_command(order: dict[str, Any]) -> None:
    match order["do"]:
        case "connect":
            connect(order["connection"], order["address"])
        case "disconnect":
            CONNECTIONS.pop(order["connection"]).close()
            CHANNEL.send(messages.Disconnected(order["connection"]))
            HAND.report("disconnected")
        case "write":
            CONNECTIONS[order["connection"]].sendall(order["text"].encode())
            HAND.report("wrote")
        case "begin":
            LEDGERS[0].begin(order["tag"], order["offset"], order["length"])
            HAND.report("begun")
        case "complete":
            LEDGERS[0].count_completed()
            HAND.report("completed")
        case "chatter":
            for question in range(100):
                CHANNEL.send(messages.Statistics(question, "connected", 0, 0, 0, 0, 0, 0, 0, []))
        case "pass-file":
            with open("/dev/null") as file:
                CHANNEL.send(messages.Connected(1), [file.fileno()])
        case "garbage":
            HAND.control.send(b"\xff\xff\xff")
        case "exit":
            sys.exit(order["status"])


HAND.watch(CHANNEL.fileno(), on_channel)
HAND.run(on_command)

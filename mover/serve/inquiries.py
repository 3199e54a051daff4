"""What front ends ask of the whole house, for their clients: one answer serves all who ask before it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from mover.serve.lanes import FrontEndPort
from mover.serve.messages import About, Answer
from workers.lane.channel import PACKET_BYTES

PIECE_BYTES = PACKET_BYTES - 256

Bodies = Mapping[About, Callable[[], Awaitable[bytes]]]


class Inquiries:
    """Answers with `bodies`, which are made anew each time that somebody asks."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._waiting: dict[About, list[tuple[FrontEndPort, int]]] = {about: [] for about in bodies}
        self._making: dict[About, asyncio.Task[None]] = {}

    def ask(self, front_end: FrontEndPort, question: int, about: About) -> None:
        """Have `front_end` get an Answer."""
        self._waiting[about].append((front_end, question))
        if about not in self._making:
            self._making[about] = asyncio.get_running_loop().create_task(self._answer(about))

    async def _answer(self, about: About) -> None:
        """Who asks while an answer is being made gets the next one: it must not be older than the question."""
        while waiting := self._waiting[about]:
            self._waiting[about] = []
            body = await self._bodies[about]()
            for front_end, question in waiting:
                for piece in pieces(question, body):
                    front_end.send(piece)
        del self._making[about]

    def close(self) -> None:
        """Nobody is answered any more."""
        for task in self._making.values():
            task.cancel()


def pieces(question: int, body: bytes) -> list[Answer]:
    """The body in messages that fit a packet each."""
    parts = [body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES)] or [b""]
    return [Answer(question, part, more=number < len(parts)) for number, part in enumerate(parts, 1)]

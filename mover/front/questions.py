"""A front end's questions to the supervisor, and their answers, which come in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import msgspec
from msgspec.structs import replace

from mover.serve.messages import About, Answer, Ask, Grant, Granted, Inquire, Revoke
from workers.lane.lane_states import LaneLost

# The supervisor asks its children for a second or two before it answers.
ANSWER_S = 10.0
# What is in flight with a ticket is ended, and what was begun with its image waited for.
REVOKED_S = 60.0


class Questions:
    """Those that wait for an answer, by `send` to the supervisor. All raise LaneLost when none comes in time."""

    def __init__(self, send: Callable[[msgspec.Struct], None]) -> None:
        self._send = send
        self._numbers = count(1)
        self._open: dict[int, tuple[asyncio.Future[bytes], list[bytes]]] = {}

    async def ask(self, about: About) -> bytes:
        """What the supervisor says of the whole house."""
        return await self._asked(lambda number: Ask(number, about), ANSWER_S)

    async def _asked(self, make: Callable[[int], msgspec.Struct], patience_s: float) -> bytes:
        question = next(self._numbers)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._open[question] = (future, [])
        try:
            self._send(make(question))
            async with asyncio.timeout(patience_s):
                return await future
        except TimeoutError:
            raise LaneLost("the supervisor does not answer", 1.0) from None
        finally:
            del self._open[question]

    async def grant(self, ticket: Grant) -> Granted:
        """Have the supervisor put a ticket for a client of the library in force; its `question` is given here."""
        return await self._order(lambda number: replace(ticket, question=number), ANSWER_S)

    async def revoke(self, ticket_id: str) -> Granted:
        """Take one out of force, and wait until nothing of it is under way."""
        return await self._order(lambda number: Revoke(number, ticket_id), REVOKED_S)

    async def inquire(self, ticket_ids: list[str] | None) -> Granted:
        """How tickets of the library are used."""
        return await self._order(lambda number: Inquire(number, ticket_ids), ANSWER_S)

    async def _order(self, make: Callable[[int], Grant | Revoke | Inquire], patience_s: float) -> Granted:
        body = await self._asked(make, patience_s)
        return msgspec.json.decode(body, type=Granted)

    def collect(self, answer: Answer) -> None:
        """A piece of an answer has come."""
        future, pieces = self._open.get(answer.question, (None, []))
        pieces.append(answer.body)
        if future is not None and not answer.more and not future.done():
            future.set_result(b"".join(pieces))

"""What a thread does for a connection of a store, and what came of it."""

from __future__ import annotations

from collections.abc import Callable

from workers.image.plan import Command, Operation
from workers.store.backing import Refusal
from workers.store.session import Outcome


class Step(Command):
    """Something that a thread does, and the loop goes on with: `then` gets what came of it."""

    __slots__ = ("call", "outcome", "then")

    def __init__(self, call: Callable[[], object], then: Callable[[Outcome], None]) -> None:
        super().__init__(Operation.ASK)
        self.call = call
        self.then = then
        self.outcome: Outcome = None


def carry_out(command: Command) -> None:
    """Do a step, in a thread; what a store refuses, and what the system does, is an outcome like others."""
    assert isinstance(command, Step)
    try:
        command.outcome = command.call()
    except (Refusal, OSError) as error:
        command.outcome = error

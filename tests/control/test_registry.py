"""The registry's rules, with a port that says what the test wants: states, expiry, what a restart brings back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from config.export import Export
from mover.control import registry as module
from mover.control.entries import RUNS_MOST, STATES, Entry, Event, State
from mover.control.registry import NoAnswer, Registry
from mover.control.store import Kept, TicketStore
from mover.serve.messages import TicketUse
from tests.control.port import OpenGate, Port
from tests.harness.waiting import PATIENCE_S

EXPORT = Export(transport="unix", socket="/disk.sock")
BY = {"by": "test"}

Play = Callable[[Registry, Port], Coroutine[Any, Any, None]]


def kept(ticket_id: str = "one", timeout_s: int = 3600, **more: Any) -> Kept:
    return Kept(ticket_id, EXPORT, timeout_s, ops=("read",), **more)


def playing(tmp_path: Path, play: Play) -> Port:
    """Play with a registry of the store that is there."""
    port = Port()

    async def run() -> None:
        store = TicketStore(str(tmp_path))
        registry = Registry(port, port, store, OpenGate(), 10)
        registry.resume()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await play(registry, port)
        finally:
            registry.close()
            registry.end()

    asyncio.run(run())
    return port


async def state(registry: Registry, ticket_id: str = "one") -> State | None:
    for info in await registry.look([ticket_id]):
        return info.state
    return None


def test_every_state_knows_every_event() -> None:
    """And a canceled ticket stays one."""
    assert set(STATES) == {(state, event) for state in State for event in Event}
    assert {STATES[State.CANCELED, event] for event in Event} == {State.CANCELED}


def test_what_nobody_uses_expires(tmp_path: Path) -> None:
    """It is out of force then, and can be extended; a CloudStack transfer is forgotten at once."""

    async def play(registry: Registry, port: Port) -> None:
        await registry.install(kept(timeout_s=0), BY)
        await registry.install(kept("cloud", 0, dialect="cloudstack"), BY)
        await port.until(lambda: port.ticket("one") is None and registry.get("cloud") is None)
        assert await state(registry) is State.EXPIRED
        assert await registry.extend("one", 3600, BY)
        assert await state(registry) is State.IN_FORCE
        assert port.ticket("one") is not None
        await port.until(lambda: port.forgotten == [2])

    playing(tmp_path, play)


def test_what_was_used_before_a_client_said_when_it_expires_does_not_count() -> None:
    """Also if that use is told later than the client's word; the next use counts as ever."""
    entry = Entry(1, kept(timeout_s=300), State.IN_FORCE, expires_s=300.0, used_s=0.0)
    entry.renew(10.0)
    assert entry.expires_s == 310.0
    entry.extend(12.0, 60)
    entry.renew(11.0)
    assert (entry.expires_s, entry.used_s) == (72.0, 11.0)
    entry.renew(20.0)
    assert entry.expires_s == 320.0


@pytest.mark.parametrize("answer", ["busy", "none"])
def test_what_is_in_use_or_may_be_does_not_expire(answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again, until nobody uses it any more."""
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    asked: list[int] = []

    async def play(registry: Registry, port: Port) -> None:
        busy = [TicketUse(1, 1, 1)] if answer == "busy" else None
        uses = port.uses

        async def noted(versions: Any) -> Any:
            asked.extend(versions)
            return await uses(versions)

        port.used = busy
        port.uses = noted  # type: ignore[method-assign]
        await registry.install(kept(timeout_s=0), BY)
        await port.until(lambda: len(asked) > 3)
        assert port.ticket("one") is not None
        port.used = []
        await port.until(lambda: port.ticket("one") is None)

    playing(tmp_path, play)


def test_use_renews_a_ticket_of_its_id(tmp_path: Path) -> None:
    """Also when a request still uses the one that it replaced; what that moves is not counted for the new one."""

    async def play(registry: Registry, port: Port) -> None:
        port.book.join("front end")
        await registry.install(kept(timeout_s=1000), BY)
        installing = asyncio.ensure_future(registry.install(kept(timeout_s=1000), BY))
        await port.until(lambda: port.versions("one") == {2})
        await installing
        await registry.extend("one", 10, BY)
        registry.used([TicketUse(1, 1, 1, 0.0, [(0, 100)])])
        [info] = await registry.look(["one"])
        assert 990 < info.left_s <= 1000
        assert info.moved_bytes == 0
        registry.used([TicketUse(2, 1, 1, 0.0, [(0, 100), (50, 100)])])
        [info] = await registry.look(["one"])
        assert info.moved_bytes == 150

    playing(tmp_path, play)


def test_who_does_not_answer_is_no_idle_ticket(tmp_path: Path) -> None:
    """Its state is not guessed."""

    async def play(registry: Registry, port: Port) -> None:
        await registry.install(kept(), BY)
        port.used = None
        with pytest.raises(NoAnswer):
            await registry.look(["one"])

    playing(tmp_path, play)


def test_a_restart_brings_back_what_there_was(tmp_path: Path) -> None:
    """In force, expired, or canceled; those under the numbers that they had, and with what they had moved."""

    async def before(registry: Registry, port: Port) -> None:
        for name in ("one", "expired", "canceled", "gone"):
            await registry.install(kept(name), BY)
        registry.used([TicketUse(1, 0, 0, 0.0, [(5, 10)])])
        await registry.extend("expired", 0, BY)
        registry._store.cancel(3)  # as if it had been killed while it waited for what is in flight
        await registry.cancel("gone", BY)

    async def after(registry: Registry, port: Port) -> None:
        found = {name: await state(registry, name) for name in ("one", "expired", "canceled", "gone")}
        wanted = {"one": State.IN_FORCE, "expired": State.EXPIRED, "canceled": State.CANCELED, "gone": None}
        assert found == wanted
        ticket = port.ticket("one")
        assert ticket is not None
        assert ticket.transfer == 1
        assert [info.moved_bytes for info in await registry.look(["one"])] == [10]
        assert registry.transfers() == {1, 2, 3}
        await registry.cancel("canceled", BY)
        assert registry.transfers() == {1, 2}

    assert playing(tmp_path, before).forgotten == [4]
    playing(tmp_path, after)


def test_very_many_runs_are_counted_right() -> None:
    """Gaps are filled to keep few, and not counted."""
    entry = Entry(1, kept(), State.IN_FORCE, 0, 0)
    runs = [(offset, 1) for offset in range(0, 10 * RUNS_MOST, 2)]
    entry.note(TicketUse(1, 0, 0, 0.0, runs))
    assert entry.moved_bytes == len(runs)
    assert len(entry.moved) <= RUNS_MOST

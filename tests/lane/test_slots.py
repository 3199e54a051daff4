"""Slots: a total table of moves, fair shares, and a model that finds every slot at every moment."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from workers.lane.slots import MOVES, Holder, IllegalMove, Move, Owner, Slots

# How a slot comes to each owner.
WAYS: dict[Owner, list[str]] = {
    Owner.FREE: [],
    Owner.FRONT: ["take"],
    Owner.WORKER: ["take", "submit"],
    Owner.QUARANTINE: ["take", "submit", "abandon"],
}
CALLS = {"submit": Move.SUBMIT, "complete": Move.COMPLETE, "release": Move.RELEASE, "abandon": Move.ABANDON}


class Waiting:
    """A waiter that remembers what it got."""

    def __init__(self, holder: Holder, gone: bool = False) -> None:
        self.holder = holder
        self.gone = gone
        self.slots: list[int] = []

    def give(self, slot: int) -> bool:
        if self.gone:
            return False
        self.slots.append(slot)
        return True


def brought_to(owner: Owner) -> tuple[Slots, Holder]:
    slots = Slots(1, 1)
    holder = slots.enter()
    for step in WAYS[owner]:
        if step == "take":
            assert slots.take_nowait(holder) == 0
        else:
            getattr(slots, step)(0)
    assert slots.owner(0) is owner
    return slots, holder


@pytest.mark.parametrize(("owner", "call"), list(product(Owner, CALLS)))
def test_every_move_of_every_owner_is_in_the_table_or_raises_and_changes_nothing(owner: Owner, call: str) -> None:
    slots, holder = brought_to(owner)
    before = (slots.used, holder.held, slots.waiting)
    if (owner, CALLS[call]) in MOVES:
        getattr(slots, call)(0)
        assert slots.owner(0) is MOVES[owner, CALLS[call]]
        return
    with pytest.raises(IllegalMove) as illegal:
        getattr(slots, call)(0)
    assert (illegal.value.slot, illegal.value.owner, illegal.value.move) == (0, owner, CALLS[call])
    assert slots.owner(0) is owner
    assert (slots.used, holder.held, slots.waiting) == before


@pytest.mark.parametrize("owner", Owner)
def test_a_workers_death_frees_what_is_in_quarantine_and_nothing_else(owner: Owner) -> None:
    """What a living request waits for is submitted again; the request still owns it."""
    slots, _ = brought_to(owner)
    slots.worker_gone([0])
    assert slots.owner(0) is (Owner.FREE if owner is Owner.QUARANTINE else owner)


def test_the_table_leads_every_owner_back_to_free() -> None:
    free = {Owner.FREE}
    for _ in Owner:
        free |= {owner for (owner, _), after in MOVES.items() if after in free}
    assert free == set(Owner)


@pytest.mark.parametrize(
    ("requests", "share"), [(0, 4), (1, 4), (2, 4), (3, 2), (4, 2), (5, 1), (8, 1), (9, 1), (100, 1)]
)
def test_a_share_is_an_equal_part_at_least_one_at_most_the_queue_depth(requests: int, share: int) -> None:
    slots = Slots(8, 4)
    for _ in range(requests):
        slots.enter()
    assert slots.share == share


def test_a_request_gets_no_more_than_its_share_and_more_when_others_leave() -> None:
    slots = Slots(4, 4)
    one, other = slots.enter(), slots.enter()
    assert [slots.take_nowait(one) is None for _ in range(3)] == [False, False, True]
    waiter = Waiting(one)
    slots.queue(waiter)
    assert waiter.slots == []
    slots.leave(other)
    assert len(waiter.slots) == 1
    assert slots.used_peak == 3


def test_those_who_hold_least_are_served_first_and_equals_in_their_order() -> None:
    slots = Slots(4, 4)
    greedy = slots.enter()
    taken = [slots.take_nowait(greedy) for _ in range(4)]
    first, second = slots.enter(), slots.enter()
    waiters = [Waiting(greedy), Waiting(first), Waiting(second)]
    for waiter in waiters:
        slots.queue(waiter)
    order: list[int] = []
    for slot in taken:
        assert slot is not None
        slots.release(slot)
        order += [number for number, waiter in enumerate(waiters) if waiter.slots and number not in order]
    assert order == [1, 2, 0]


def test_nobody_passes_those_who_wait() -> None:
    slots = Slots(1, 1)
    holder, other = slots.enter(), slots.enter()
    slot = slots.take_nowait(holder)
    assert slot == 0
    waiter = Waiting(other)
    slots.queue(waiter)
    slots.release(slot)
    assert waiter.slots == [0]
    assert slots.take_nowait(holder) is None


def test_a_waiter_that_has_gone_costs_nothing() -> None:
    slots = Slots(1, 1)
    gone, alive = Waiting(slots.enter(), gone=True), Waiting(slots.enter())
    first = slots.take_nowait(slots.enter())
    slots.queue(gone)
    slots.queue(alive)
    assert first is not None
    slots.release(first)
    assert alive.slots == [0]
    assert (gone.holder.held, slots.waiting) == (0, 0)


def test_an_abandoned_slot_does_not_count_against_its_request() -> None:
    slots = Slots(2, 1)
    holder = slots.enter()
    slot = slots.take_nowait(holder)
    assert slot is not None
    slots.submit(slot)
    waiter = Waiting(holder)
    slots.queue(waiter)
    assert waiter.slots == []
    slots.abandon(slot)
    assert len(waiter.slots) == 1


class Model(RuleBasedStateMachine):
    """Some requests do what requests do; a plain list says who has which slot."""

    COUNT = 5

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(self.COUNT, 3)
        self.where: dict[int, tuple[Owner, Holder | None]] = {}
        self.holders: list[Holder] = []
        self.waiters: list[Waiting] = []

    def in_state(self, *owners: Owner) -> list[int]:
        return sorted(slot for slot, (owner, _) in self.where.items() if owner in owners)

    def held(self, holder: Holder) -> int:
        return sum(found is holder for _, found in self.where.values())

    def share(self) -> int:
        return max(1, min(3, self.COUNT // max(1, len(self.holders))))

    def collect(self) -> None:
        """What waiters were given meanwhile."""
        for waiter in self.waiters:
            for slot in waiter.slots:
                assert slot not in self.where, "owned twice"
                self.where[slot] = (Owner.FRONT, waiter.holder)
        self.waiters = [waiter for waiter in self.waiters if not waiter.slots]

    @precondition(lambda self: len(self.holders) < 7)
    @rule()
    def enter(self) -> None:
        self.holders.append(self.slots.enter())

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(self.holders))
        may = len(self.where) < self.COUNT and self.held(holder) < self.share() and not self.waiters
        slot = self.slots.take_nowait(holder)
        assert (slot is not None) is may
        if slot is not None:
            assert slot not in self.where
            self.where[slot] = (Owner.FRONT, holder)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        waiter = Waiting(data.draw(st.sampled_from(self.holders)))
        self.waiters.append(waiter)
        self.slots.queue(waiter)
        self.collect()

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiters))
        self.waiters.remove(waiter)
        self.slots.withdraw(waiter)
        self.collect()

    @precondition(lambda self: self.in_state(Owner.FRONT))
    @rule(data=st.data(), submit=st.booleans())
    def submit_or_release(self, data: st.DataObject, submit: bool) -> None:
        slot = data.draw(st.sampled_from(self.in_state(Owner.FRONT)))
        if submit:
            self.where[slot] = (Owner.WORKER, self.where[slot][1])
            self.slots.submit(slot)
        else:
            del self.where[slot]
            self.slots.release(slot)
        self.collect()

    @precondition(lambda self: self.in_state(Owner.WORKER, Owner.QUARANTINE))
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(self.in_state(Owner.WORKER, Owner.QUARANTINE)))
        owner, holder = self.where.pop(slot)
        if owner is Owner.WORKER:
            self.where[slot] = (Owner.FRONT, holder)
        self.slots.complete(slot)
        self.collect()

    @precondition(lambda self: self.in_state(Owner.WORKER))
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(self.in_state(Owner.WORKER)))
        self.where[slot] = (Owner.QUARANTINE, None)
        self.slots.abandon(slot)
        self.collect()

    @rule()
    def worker_gone(self) -> None:
        for slot in self.in_state(Owner.QUARANTINE):
            del self.where[slot]
        self.slots.worker_gone(range(self.COUNT))
        self.collect()

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """As requests do: out of the line first, then slots back, then gone."""
        holder = data.draw(st.sampled_from(self.holders))
        for waiter in [waiter for waiter in self.waiters if waiter.holder is holder]:
            self.waiters.remove(waiter)
            self.slots.withdraw(waiter)
            self.collect()
        for slot in [slot for slot, (_, found) in self.where.items() if found is holder]:
            owner = self.where.pop(slot)[0]
            if owner is Owner.WORKER:
                self.where[slot] = (Owner.QUARANTINE, None)
                self.slots.abandon(slot)
            else:
                self.slots.release(slot)
            self.collect()
        self.holders.remove(holder)
        self.slots.leave(holder)
        self.collect()

    @invariant()
    def every_slot_is_where_the_model_has_it(self) -> None:
        for slot in range(self.COUNT):
            assert self.slots.owner(slot) is self.where.get(slot, (Owner.FREE, None))[0]
        assert self.slots.used == len(self.where)

    @invariant()
    def every_request_holds_what_the_model_says(self) -> None:
        for holder in self.holders:
            assert holder.held == self.held(holder)

    @invariant()
    def nobody_waits_for_what_could_be_had(self) -> None:
        if len(self.where) < self.COUNT:
            assert all(self.held(waiter.holder) >= self.share() for waiter in self.waiters)
        assert self.slots.waiting == len(self.waiters)


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestModel = Model.TestCase

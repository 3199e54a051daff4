"""Who may move data now: per image and for the host, reads and writes, over all front ends.

    enter ──► a seat of the image, and one of the host ──► inside ──leave──► the next in line, images in turn
       └──► none: 503 or 409 (reject), or a place in the image's line (wait)

Lines are this front end's own. A seat that another front end leaves is seen by looking again, every POLL_S.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import IntEnum

from config.settings import LimitSettings
from mover.front.errors import RequestError
from mover.front.seats import MOST, House, Row, row_of

# How soon a seat is seen that another front end has left; a tenth of what a client sees as a pause.
POLL_S = 0.01
# A client has its answer a moment before its seat is free: what it asks next, of another front end, is not rejected
# for that.
GRACE_S = 0.1
# What Retry-After says. A client that comes too soon is refused or waits again, at little cost.
RETRY_AFTER = ("Retry-After", "1")


# A ticket with a limit of its own: its id, and how many requests at once.
TicketLimit = tuple[str, int]


class Use(IntEnum):
    """What a request does with an image."""

    READ = 0
    WRITE = 1
    # Extents, flushes: they move no data, and count only where an image is held exclusively.
    ASK = 2
    # OPTIONS: never counts.
    LOOK = 3


class Party:
    """The requests of one ticket with a limit, in this front end: its seats, and how many hold or want one."""

    __slots__ = ("name", "row", "users")

    def __init__(self, name: str, row: Row) -> None:
        self.name = name
        self.row = row
        self.users = 0


class Seat:
    """What a request inside holds: the image's line it came by, a seat of the image, perhaps of host and ticket."""

    __slots__ = ("host", "image", "line", "party", "ticket")

    def __init__(self, line: Line, image: int, host: int | None, party: Party | None, ticket: int | None) -> None:
        self.line = line
        self.image = image
        self.host = host
        self.party = party
        self.ticket = ticket


class Waiter:
    """A request in line."""

    __slots__ = ("future", "party")

    def __init__(self, party: Party | None) -> None:
        self.future: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()
        self.party = party


class Line:
    """One image's seats for one use, and those who wait for them, first come, first served."""

    __slots__ = ("key", "row", "use", "waiting")

    def __init__(self, key: str, use: Use, row: Row) -> None:
        self.key = key
        self.use = use
        self.row = row
        self.waiting: deque[Waiter] = deque()


class Admission:
    """All lines of one front end."""

    def __init__(self, limits: LimitSettings, house: House) -> None:
        self._limits = limits
        self._house = house
        # In the order of whose turn is next; an image without anybody inside or in line has none.
        self._lines: dict[tuple[str, Use], Line] = {}
        self._parties: dict[str, Party] = {}
        self._rows = tuple(Row(house, row_of("") + use * MOST, 0) for use in (Use.READ, Use.WRITE))
        self._host: tuple[Row | None, ...] = self._limited()
        self._waiting = 0
        self._look: asyncio.TimerHandle | None = None

    def retune(self, limits: LimitSettings) -> None:
        """Other limits are in force; who is inside stays. `exclusive` cannot change: it is another set of seats."""
        self._limits = limits
        self._host = self._limited()
        for line in self._lines.values():
            line.row.count = self.most(line.use)
        if self._waiting:
            self._hand_out()

    def _limited(self) -> tuple[Row | None, ...]:
        """The host's rows for reads and writes; None where there is no limit."""
        for row, count in zip(self._rows, (self._limits.host_readers, self._limits.host_writers), strict=True):
            row.count = count
        return tuple(row if row.count else None for row in self._rows)

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return self._waiting

    def most(self, use: Use) -> int:
        """How many requests of this use an image lets in at once, as OPTIONS advertises."""
        if self._limits.exclusive:
            return 1
        per_image, host = (
            (self._limits.max_writers, self._limits.host_writers)
            if use is Use.WRITE
            else (self._limits.max_readers, self._limits.host_readers)
        )
        return min(per_image, host or per_image)

    def counts(self, use: Use) -> bool:
        """Whether a request of this use must enter, and leave."""
        return use in (Use.READ, Use.WRITE) or (use is Use.ASK and self._limits.exclusive)

    def enter_nowait(self, key: str, use: Use, ticket: TicketLimit | None = None) -> Seat | None:
        """Let a request in if that can be at once; what is returned must `leave`. `key` is the image's export."""
        line, party = self._line(key, use), self._join(ticket)
        seat = self._take(line, party) if self._may_pass(line) else None
        if seat is None:
            self._part(party)
            self._forget_if_idle(line)
        return seat

    async def enter(self, key: str, use: Use, ticket: TicketLimit | None = None) -> Seat:
        """Let a request in that cannot come in at once, after a time in line. Raises RequestError."""
        return await self._wait(self._line(key, use), ticket)

    def _join(self, ticket: TicketLimit | None) -> Party | None:
        """The ticket's party, if it has a limit; `_part` follows for everybody who joins."""
        if ticket is None:
            return None
        name, most = ticket
        party = self._parties.get(name)
        if party is None:
            party = self._parties[name] = Party(name, Row(self._house, row_of(f"ticket {name}"), most))
        party.row.count = most
        party.users += 1
        return party

    def _part(self, party: Party | None) -> None:
        if party is not None:
            party.users -= 1
            if not party.users:
                del self._parties[party.name]

    def leave(self, seat: Seat) -> None:
        """The request is over: the next one gets its seat."""
        self._give_back(seat)
        self._part(seat.party)
        if self._waiting:
            self._hand_out()
        self._forget_if_idle(seat.line)

    def _give_back(self, seat: Seat) -> None:
        seat.line.row.leave(seat.image)
        if seat.host is not None:
            self._rows[seat.line.use].leave(seat.host)
        if seat.party is not None and seat.ticket is not None:
            seat.party.row.leave(seat.ticket)

    def _line(self, key: str, use: Use) -> Line:
        # Exclusively, there is one seat and one line for whatever is to be done.
        use = Use.READ if self._limits.exclusive else use
        line = self._lines.get((key, use))
        if line is None:
            row = Row(self._house, row_of(key) + use * MOST, self.most(use))
            line = self._lines[key, use] = Line(key, use, row)
        return line

    def _may_pass(self, line: Line) -> bool:
        """Nobody who came before wants the same: of the image, or of a host that has a limit."""
        return not self._waiting or not (line.waiting or self._host[line.use])

    def _take(self, line: Line, party: Party | None) -> Seat | None:
        """All the seats that a request needs, or none of them."""
        if party is None and self._host[line.use] is None:
            image = line.row.take()
            return None if image is None else Seat(line, image, None, None, None)
        taken: list[tuple[Row, int]] = []
        for row in (line.row, self._host[line.use], party.row if party else None):
            seat = row.take() if row is not None else None
            if row is not None and seat is None:
                for other, held in taken:
                    other.leave(held)
                return None
            if row is not None and seat is not None:
                taken.append((row, seat))
        host = taken[1][1] if self._host[line.use] else None
        return Seat(line, taken[0][1], host, party, taken[-1][1] if party else None)

    def _refusal(self, use: Use, ticket: TicketLimit | None = None) -> RequestError:
        if self._limits.exclusive:
            return RequestError(409, "image busy", fault="refused")
        what = "writes" if use is Use.WRITE else "reads"
        host = self._limits.host_writers if use is Use.WRITE else self._limits.host_readers
        limits = f"{self.most(use)} of an image" + (f", {host} of this host" if host else "")
        limits += f", {ticket[1]} of the ticket" if ticket else ""
        return RequestError(503, f"too many {what} at once (limit {limits})", [RETRY_AFTER], fault="refused")

    # -- waiting ---------------------------------------------------------------------------------------------

    async def _wait(self, line: Line, ticket: TicketLimit | None) -> Seat:
        waiter = Waiter(self._join(ticket))
        line.waiting.append(waiter)
        self._waiting += 1
        self._hand_out()  # its seat may be free: others are in line for another image, or by another ticket
        rejects = self._limits.mode == "reject"
        try:
            async with asyncio.timeout(GRACE_S if rejects else self._limits.wait_s):
                return await waiter.future
        except TimeoutError:
            if waiter.future.done() and not waiter.future.cancelled():
                # It was given at the last moment: on a host that stood still, all is due at once.
                return waiter.future.result()
            self._withdraw(line, waiter)
            if rejects:
                raise self._refusal(line.use, ticket) from None
            why = f"{self._refusal(line.use, ticket).message}, for {self._limits.wait_s:g} s"
            raise RequestError(503, why, [RETRY_AFTER], fault="refused") from None
        except asyncio.CancelledError:
            self._withdraw(line, waiter)
            raise

    def _withdraw(self, line: Line, waiter: Waiter) -> None:
        """Out of the line; a seat that was given to somebody who leaves goes on to the next."""
        if waiter in line.waiting:
            line.waiting.remove(waiter)
            self._waiting -= 1
            self._part(waiter.party)
            self._forget_if_idle(line)
        elif waiter.future.done() and not waiter.future.cancelled():
            self.leave(waiter.future.result())

    def _hand_out(self) -> None:
        """Give free seats to those who wait, one at a time; the image that was served last is last in turn."""
        while any(self._serve(line) for line in list(self._lines.values()) if line.waiting):
            pass
        if self._look is None and self._waiting:
            self._look = asyncio.get_running_loop().call_later(POLL_S, self._looked)

    def _serve(self, line: Line) -> bool:
        """Let the first one in that can: who waits for its ticket's seat lets others by."""
        for waiter in line.waiting:
            seat = self._take(line, waiter.party)
            if seat is not None:
                break
            if waiter.party is None:
                return False
        else:
            return False
        self._lines[line.key, line.use] = self._lines.pop((line.key, line.use))
        line.waiting.remove(waiter)
        self._waiting -= 1
        if waiter.future.cancelled():
            self._give_back(seat)
            self._part(seat.party)
        else:
            waiter.future.set_result(seat)
        return True

    def _looked(self) -> None:
        self._look = None
        self._hand_out()

    def _forget_if_idle(self, line: Line) -> None:
        if not line.row.held and not line.waiting:
            self._lines.pop((line.key, line.use), None)

"""The whole house in one thread: clients, front ends, a worker, its supervisor and an NBD server, step by step.

Every step is one option out of a list, so a schedule is a list of numbers; before each step, and before each store
into a ring or the ledger, is a point, at which anything may be lost. A run that ends without a Violation has kept
every promise of docs/failure-model.md.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from mover.serve.doubts import Doubts
from tests.simulation.front import Client, FrontEnd, Request
from tests.simulation.house import House, Loss
from tests.simulation.server import UNKNOWN, Link, Server
from tests.simulation.truth import Truth, Violation
from tests.simulation.worker import Lane, Worker
from workers.image import ledger

# Steps that a fence which failed needs to settle.
SETTLE = 40
# A schedule that is not through by then has lost a job.
STEPS_MOST = 4000

Option = tuple[str, Callable[[], None]]
Chooser = Callable[[int], int]


class Killed(Exception):
    """The process that was about to store something is dead."""


class Life(Enum):
    """The worker's, as the supervisor sees it."""

    RUNS = auto()
    DEAD = auto()
    FENCING = auto()
    FENCED = auto()


class World:
    """One run. `clients` are lists of requests; client i is at front end i modulo 2 until that dies."""

    def __init__(self, house: House, clients: list[list[Request]], transfers: int = 3) -> None:
        self.house = house
        self.truth = Truth(house.size)
        self.trace: list[str] = []
        self.points = 0
        self.losses: dict[int, list[Loss]] = {}
        self._on_stack: object = None
        self._numbers = 1000
        self._memory = bytearray(ledger.LEDGER_BYTES)
        self._slow_fences = 0
        self.fronts = [self._new_front(), self._new_front()]
        self.clients = [
            Client(index % transfers + 1, self.truth, list(requests)) for index, requests in enumerate(clients)
        ]
        for index, client in enumerate(self.clients):
            client.front = self.fronts[index % 2]
        self.server: Server | None = self._new_server()
        self._links: list[Link] = []
        self._doubts = Doubts()
        self._server_lost = False
        self.life = Life.FENCED
        self.worker: Worker | None = None

    # -- running ---------------------------------------------------------------------------------------------

    def run(self, choose: Chooser) -> None:
        """Step until everything is done and quiet; raises Violation with the schedule."""
        try:
            for _ in range(STEPS_MOST):
                if not self.step(choose):
                    break
            else:
                raise Violation("it does not end")
            self._expect_quiet()
        except Exception as error:
            raise Violation(f"{error!r}\n{self}") from error

    def __str__(self) -> str:
        return "\n".join([f"{self.house}", *self.trace])

    def step(self, choose: Chooser) -> bool:
        """One step; False when there is nothing left to do."""
        self.truth.now += 1
        self._point(None)
        options = self._options()
        if not options:
            return False
        name, act = options[choose(len(options))]
        self.trace.append(f"{self.truth.now:4} {name}")
        try:
            act()
        except Killed:
            pass
        finally:
            self._on_stack = None
        return True

    def _point(self, owner: object) -> None:
        """Something may be lost here; `owner` is the process that runs, None between two steps."""
        self.points += 1
        dies = False
        for loss in self.losses.get(self.points, ()):
            dies = self.lose(loss, owner) or dies
        if dies:
            raise Killed

    def _store(self) -> None:
        """The process that runs is about to store something."""
        self._point(self._on_stack)

    # -- losses ----------------------------------------------------------------------------------------------

    def lose(self, loss: Loss, owner: object = None) -> bool:
        """Something is lost; whether it is the process `owner`, which then runs no further."""
        self.trace.append(f"{self.truth.now:4} LOST: {loss.name}")
        if loss in (Loss.FRONT_END, Loss.OTHER_FRONT_END):
            front = self.fronts[0 if loss is Loss.FRONT_END else 1]
            self._lose_front(front)
            return owner is front
        if loss in (Loss.SERVER, Loss.SERVER_KEEPS_CACHE, Loss.WORKER_AND_SERVER):
            self._lose_server(loss is Loss.SERVER_KEEPS_CACHE)
        if loss in (Loss.WORKER, Loss.WORKER_AND_SERVER):
            self._lose_worker()
            return owner == "worker"
        if loss is Loss.CONNECTION:
            self._lose_connection()
        elif loss is Loss.REPLY_TO_FENCE:
            self._slow_fences += 1
        elif loss is Loss.CLIENT:
            self._lose_client()
        return False

    def _lose_front(self, front: FrontEnd) -> None:
        front.alive = False
        successor = self._new_front()
        self.fronts[self.fronts.index(front)] = successor
        for client in self.clients:
            if client.front is front:
                client.orphan()
                client.front = successor
        if self.worker is not None:
            self.worker.lanes.pop(front, None)

    def _lose_worker(self) -> None:
        if self.life is not Life.RUNS:
            return
        self.worker, self.life = None, Life.DEAD
        for link in self._links:
            link.cut_off(received=len(link.unapplied))

    def _lose_server(self, keeps_cache: bool) -> None:
        if self.server is None or not self._can_tell():
            return
        self.server.die(keeps_cache)
        self.server = None

    def _can_tell(self) -> bool:
        """Servers that look all alike are told apart by their connections only: without one, nobody can.

        That is what docs/failure-model.md says of TCP, so the simulation does not ask for more.
        """
        if self.house.local:
            return True
        return any(self.life is Life.DEAD or not link.cut for link in self._links)

    def _lose_connection(self) -> None:
        for link in self._links[-1:]:
            if not link.cut:
                link.cut_off(received=(len(link.unapplied) + 1) // 2)
                self._excuse_unknown()

    def _excuse_unknown(self) -> None:
        if not self.house.local:
            self.truth.excuse()

    def _lose_client(self) -> None:
        for client in self.clients[:1]:
            if client.running is not None and self._on_stack is None:
                client.leave()

    # -- what may happen next --------------------------------------------------------------------------------

    def _options(self) -> list[Option]:
        self._pass_time()
        options = [*self._client_options(), *self._front_options()]
        options += self._server_options(lazy=self.truth.now % self.house.laziness != 0)
        options += self._supervisor_options() if self.worker is None else self._worker_options(self.worker)
        return options or self._server_options(lazy=False) or self._wait_options()

    def _client_options(self) -> list[Option]:
        return [
            (f"client {number} goes on", partial(self._as, client.front, client.step))
            for number, client in enumerate(self.clients)
            if not client.done and not client.blocked
        ]

    def _front_options(self) -> list[Option]:
        options: list[Option] = []
        for front in self.fronts:
            lane = self.worker.lanes.get(front) if self.worker is not None else None
            if front.readable():
                options.append((f"{front} reads", partial(self._as, front, front.read)))
            if front.rings is not None and self.life is not Life.RUNS:
                options.append((f"{front} sees the worker gone", partial(self._as, front, front.detach)))
            elif lane is not None and lane.opened and not front.open:
                options.append((f"{front} opens", partial(self._as, front, front.opened)))
        return options

    def _as(self, process: object, act: Callable[[], None]) -> None:
        """`act` runs in this process: its stores are points at which it may die."""
        self._on_stack = process
        act()

    def _server_options(self, lazy: bool) -> list[Option]:
        if self.server is None:
            return [("the server starts again", self._start_server)]
        return [
            (f"the server applies {_name(link, index)}", partial(link.server.apply, link, index))
            for link in self.server.links
            for index in range(len(link.unapplied))
            if not (lazy and link.cut)
        ]

    def _worker_options(self, worker: Worker) -> list[Option]:
        options = [(f"worker: {name}", act) for name, act in self._inner_options(worker)]
        return [(name, partial(self._as, "worker", act)) for name, act in options]

    def _inner_options(self, worker: Worker) -> list[Option]:
        options: list[Option] = []
        for front in self.fronts:
            lane = worker.lanes.get(front)
            if lane is None:
                options.append((f"attaches {front}", partial(self._attach, worker, front)))
            elif worker.links and not lane.opened:
                options.append((f"opens {front}", lane.open))
        if worker.rung():
            options.append(("reads jobs", worker.read_jobs))
        if worker.schedule.finished:
            options.append(("publishes", partial(worker.publish, self.truth.now)))
        if worker.can_send:
            options.append(("sends", worker.send))
        return options + self._link_options(worker)

    def _link_options(self, worker: Worker) -> list[Option]:
        options: list[Option] = []
        for link in worker.links:
            if link.cut and (link.drained or self._slow_fences):
                options.append((f"ends connection {link.number}", partial(self._end, worker, link)))
            for index in range(len(link.answers)):
                options.append((f"takes answer {index} of {link.number}", partial(worker.take_answer, link, index)))
        if self._may_connect(worker):
            options.append(("connects", partial(self._connect, worker)))
        return options

    def _may_connect(self, worker: Worker) -> bool:
        if self.server is None or any(link.cut or link.server is not self.server for link in worker.links):
            return False
        return len(worker.links) < self.house.connections

    def _supervisor_options(self) -> list[Option]:
        if self.life is Life.DEAD:
            return [("the supervisor sees the worker dead", self._begin_fence)]
        if self.life is Life.FENCED:
            return [("the supervisor starts a worker", self._start_worker)]
        if self._slow_fences and any(link.unapplied for link in self._links):
            return [("the fence fails", partial(self._end_fence, False))]
        if all(link.drained for link in self._links):
            return [("the fence ends", partial(self._end_fence, True))]
        return []

    # -- the supervisor --------------------------------------------------------------------------------------

    def _begin_fence(self) -> None:
        self.life = Life.FENCING
        if not self.house.local and any(not link.server.alive for link in self._links):
            self._server_lost = True

    def _end_fence(self, fenced: bool) -> None:
        now = self.truth.now
        if not fenced:
            self._slow_fences -= 1
            self._server_lost = not self.house.local
            self._excuse_unknown()
        begun = ledger.begun(memoryview(self._memory))
        self._doubts = self._doubts.after_death(fenced, begun, now, SETTLE)
        for link in self._links:
            link.deadline = now + SETTLE
        self._links.clear()
        self.life = Life.FENCED

    def _start_worker(self) -> None:
        self.life = Life.RUNS
        self._on_stack = "worker"
        worker = Worker(self._memory, self.house.local, self.house.limits(), self._store)
        self._excuse_unknown()
        if worker.succession.take_over(self._server_lost, list(self._doubts.ranges)):
            worker.doubtful_until = int(self._doubts.until_s)
        self.worker = worker

    def _attach(self, worker: Worker, front: FrontEnd) -> None:
        self._on_stack = front
        self._numbers += 1
        worker.lanes[front] = Lane(front, front.attach(self._numbers))

    # -- connections -----------------------------------------------------------------------------------------

    def _connect(self, worker: Worker) -> None:
        assert self.server is not None
        self._numbers += 1
        if not self.server.links:
            self.truth.excuse()  # only now does the worker learn of the loss
        link = self.server.accept(self._numbers)
        self._links.append(link)
        self._server_lost = False
        worker.connected(link)

    def _end(self, worker: Worker, link: Link) -> None:
        """The worker's own fence, as Connection and Worker.disconnected have it."""
        fenced = link.drained
        until = self.truth.now + SETTLE
        self._excuse_unknown()
        if not fenced:
            self._slow_fences -= 1
            link.deadline = until
        if worker.disconnected(link, fenced, until):
            self._links.remove(link)

    # -- time ------------------------------------------------------------------------------------------------

    def _pass_time(self) -> None:
        for link in self.server.links if self.server is not None else ():
            if link.deadline is not None and self.truth.now >= link.deadline:
                link.unapplied.clear()  # what has not landed when it has settled never will
        if self.worker is not None:
            self._as("worker", self._settle)
            self._on_stack = None

    def _settle(self) -> None:
        assert self.worker is not None
        try:
            for link in self.worker.settle(self.truth.now):
                self._links.remove(link)
        except Killed:
            pass

    def _wait_options(self) -> list[Option]:
        """Nothing can be done but wait."""
        times = [
            link.deadline for link in (self.server.links if self.server else []) if link.deadline and link.unapplied
        ]
        if self.worker is not None:
            times += [late.until for late in self.worker.late]
            times += [self.worker.doubtful_until] if self.worker.doubtful_until is not None else []
        return [("time passes", partial(self._wait_until, min(times)))] if times else []

    def _wait_until(self, time: int) -> None:
        self.truth.now = max(self.truth.now, time)

    # -- births ----------------------------------------------------------------------------------------------

    def _new_front(self) -> FrontEnd:
        self._numbers += 1
        return FrontEnd(self._numbers, self.truth, self._store)

    def _new_server(self) -> Server:
        self._numbers += 1
        return Server(self.truth, (self._numbers, 1) if self.house.local else UNKNOWN)

    def _start_server(self) -> None:
        self.server = self._new_server()

    # -- the end ---------------------------------------------------------------------------------------------

    def _expect_quiet(self) -> None:
        """Every request was answered, every slot came back, nothing is under way or in doubt."""
        if not all(client.done for client in self.clients):
            raise Violation("a request is never answered")
        if not all(front.idle() for front in self.fronts):
            raise Violation("a slot has not come back")
        assert self.worker is not None
        if self.worker.schedule.active or self.worker.ledger.doubts():
            raise Violation("the worker is not through")


def _name(link: Link, index: int) -> str:
    sent = link.unapplied[index]
    command = sent.command
    whose = f" of {sent.write.name}" if sent.write is not None else ""
    return f"{command.operation.name} {command.offset}+{command.length}{whose} on {link.number}"

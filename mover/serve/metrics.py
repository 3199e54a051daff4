"""`GET /metrics`: what all processes have counted, and what is under way, for Prometheus.

Counts come from the tallies (workers/lane/tally.py), which outlive the processes that count; what is under way is asked
of the processes when somebody looks. Labels have few values each: no ids, no paths.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from config.settings import Settings
from mover.front import counts as front
from mover.serve.front_ends import FrontEnds
from mover.serve.image_workers import ImageWorkers
from mover.serve.memory import memory_by_role
from mover.serve.readiness import activities, unready
from mover.serve.states import FrontEndState, WorkerState
from mover.serve.survey import statistics
from mover.serve.tickets import TicketBook
from mover.version import version
from workers.image import counts as worker
from workers.lane.tally import BUCKETS_S, Family, Layout, histogram_of

# Families of more combinations than these show the ones that were seen; the others all, so that the first increase of
# a count can be seen as one.
SHOWN_EMPTY = 32

_BOUNDS = [*map(str, BUCKETS_S), "+Inf"]


class Metrics:
    """Everything that can be measured of one house."""

    def __init__(self, settings: Settings, front_ends: FrontEnds, workers: ImageWorkers, tickets: TicketBook) -> None:
        self._state_dir = settings.serve.state_dir
        self._front_ends = front_ends
        self._workers = workers
        self._tickets = tickets
        self._started_s = time.time()

    async def page(self) -> bytes:
        """The whole page, in Prometheus's text format."""
        families = [*self._counted(), *self._started_and_ended(), *await self._under_way()]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(families))
        return generate_latest(registry)

    def _counted(self) -> Iterator[Metric]:
        yield from _families(front.LAYOUT, [tally.words() for tally in self._front_ends.tallies.values()])
        yield from _families(worker.LAYOUT, self._workers.tallies())

    def _started_and_ended(self) -> Iterator[Metric]:
        yield _gauge("mover_build_info", "The version that runs.", ["version"], {(version(),): 1})
        yield _one_gauge("mover_start_time_seconds", "When the service began, in seconds since 1970.", self._started_s)
        for name, help, count in (
            ("mover_front_end_restarts", "Front ends that ended and were replaced.", self._front_ends.restarts),
            ("mover_worker_restarts", "Workers that were started in a killed one's place.", self._workers.restarts),
            (
                "mover_workers_given_up",
                "Workers that died too often, or spoke another version.",
                self._workers.given_up,
            ),
        ):
            yield CounterMetricFamily(name, help, value=count)
        states = Counter(one.state.name.lower() for one in self._front_ends)
        yield _states("mover_front_ends", "Front ends by their state.", FrontEndState, states)
        states = Counter(one.state.name.lower() for one in self._workers)
        yield _states(
            "mover_workers", "Exports' workers by their state; absent ones are started on use.", WorkerState, states
        )
        dialects = Counter[str](self._tickets.dialects())
        by_dialect: dict[tuple[str, ...], float] = {(dialect,): count for dialect, count in dialects.items()}
        yield _gauge("mover_tickets", "Tickets in force, by whose contract they speak.", ["dialect"], by_dialect)
        arenas = self._workers.lanes.arena_bytes
        yield _one_gauge(
            "mover_arena_bytes", "Shared memory of all lanes (supervisor.arena_limit_bytes bounds it).", arenas
        )

    async def _under_way(self) -> list[Metric]:
        faults = await unready(self._front_ends, self._workers, self._state_dir)
        found = [(str(one.number), activity) for one, activity in await activities(self._front_ends) if activity]
        by_number = ["front_end"]
        said = [one for one in await statistics(self._workers) if one is not None]
        memory = await memory_by_role(self._front_ends, self._workers)
        return [
            _one_gauge("mover_ready", "1 when every part does its work, as /readyz says.", 0 if faults else 1),
            _gauge("mover_connections", "Clients' connections.", by_number, {(n,): a.connections for n, a in found}),
            _gauge(
                "mover_requests_in_flight",
                "Requests that use an image.",
                by_number,
                {(n,): a.in_flight for n, a in found},
            ),
            _gauge(
                "mover_requests_waiting",
                "Requests in line for a seat ([limits]).",
                by_number,
                {(n,): a.waiting for n, a in found},
            ),
            _gauge("mover_lanes", "Lanes to workers.", by_number, {(n,): a.lanes for n, a in found}),
            _gauge("mover_slots", "Slots of all lanes.", by_number, {(n,): a.slots for n, a in found}),
            _gauge("mover_slots_used", "Slots that are in use.", by_number, {(n,): a.slots_used for n, a in found}),
            _one_gauge("mover_nbd_connections", "Connections to NBD servers.", sum(one.connections for one in said)),
            _one_gauge("mover_nbd_in_flight", "Commands without an answer.", sum(one.in_flight for one in said)),
            _gauge("mover_processes", "Processes.", ["role"], {(role,): one.count for role, one in memory.items()}),
            _gauge(
                "mover_resident_bytes",
                "Memory of processes, shared memory included.",
                ["role"],
                {(role,): one.resident_bytes for role, one in memory.items()},
            ),
            _gauge(
                "mover_open_descriptors",
                "Open descriptors of processes.",
                ["role"],
                {(role,): one.descriptors for role, one in memory.items()},
            ),
        ]


class _Families:
    """As prometheus_client's registry wants it."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(layout: Layout, tallies: Sequence[Sequence[int]]) -> Iterator[Metric]:
    """The families of a layout, summed over the tallies."""
    words = [sum(column) for column in zip(*tallies, strict=True)] or [0] * (layout.size_bytes // 8)
    for family in layout.families:
        yield _histogram(family, words) if family.is_histogram else _counter(family, words)


def _counter(family: Family, words: Sequence[int]) -> Metric:
    metric = CounterMetricFamily(family.name, family.help, labels=list(family.labels))
    rows = list(family.rows())
    for values, at in rows:
        if words[at] or len(rows) <= SHOWN_EMPTY:
            metric.add_metric(values, words[at])
    return metric


def _histogram(family: Family, words: Sequence[int]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=list(family.labels))
    for values, at in family.rows():
        counts, total_s = histogram_of(words, at)
        if any(counts):
            metric.add_metric(values, list(zip(_BOUNDS, accumulate(counts), strict=True)), total_s)
    return metric


def _gauge(name: str, help: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    metric = GaugeMetricFamily(name, help, labels=list(labels))
    for key, value in values.items():
        metric.add_metric(key, value)
    return metric


def _one_gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=value)


def _states(name: str, help: str, states: type[FrontEndState] | type[WorkerState], counts: Mapping[str, int]) -> Metric:
    return _gauge(name, help, ["state"], {(one.name.lower(),): counts.get(one.name.lower(), 0) for one in states})

"""Introducing a front end to a worker: each gets one end of a new socket, on which the lane's descriptors travel."""

from __future__ import annotations

from mover.serve.lanes import Lane
from mover.serve.messages import LaneSocket
from mover.serve.processes import Child
from workers.lane import channel
from workers.messages import Attach, FromWorker


def introduce(lane: Lane, worker: Child[FromWorker], worker_lane: int, generation: int) -> None:
    """Attach `lane` to `worker`, which knows it as `worker_lane`.

    Our copies are closed before this returns: a duplicate left open would hide the one's death from the other.
    If the worker dies meanwhile, the front end's end reads EOF, and the worker's successor is introduced.
    """
    front_end_side, worker_side = channel.pair()
    with front_end_side, worker_side:
        if worker.send(Attach(worker_lane, generation, lane.front_end.number), [worker_side.fileno()]):
            lane.front_end.send(LaneSocket(lane.number, generation), [front_end_side.fileno()])

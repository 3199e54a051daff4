"""The supervisor: `mover serve` itself, which starts front ends and workers, watches them, and carries no byte.

Read main.py and supervisor.py, then front_ends.py and image_workers.py, each with its one (front_end.py,
image_worker.py); states.py has their tables. lanes.py counts the memory of lanes, and line.py has those wait for which
there is none. introduce.py brings a front end to a worker, fence.py ends a dead one's connections, tickets.py says what
is in force where, messages.py what all of them say to each other.
"""

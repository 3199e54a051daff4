"""What front ends count, over all lives of a front end of one number (workers/lane/tally.py)."""

from __future__ import annotations

from workers.lane.tally import Layout

METHODS = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "other")
# 0: the connection was broken off in the middle of a body. 499: the client left before its answer.
_STATUSES = (
    0, 100, 200, 201, 202, 204, 206, 207, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410,
    411, 412, 413, 414, 415, 416, 417, 422, 423, 424, 425, 426, 428, 429, 431, 499, 500, 501, 502, 503, 504, 507,
)  # fmt: skip
STATUSES = (*map(str, _STATUSES), "other")
# Whose contract the request's ticket speaks; requests without one have none.
DIALECTS = ("imageio", "cloudstack", "none")
# The first part of the path decides: /images/ID by what follows it, the rest is the service's own.
KINDS = ("image", "extents", "checksum", "flush", "library", "service")
DIRECTIONS = ("in", "out")
# Where a request waits: for a seat of its image, for a lane to a worker, for a slot of shared memory, for its worker to
# do a job (the NBD server's time is part of that), for its client to read or to send.
STAGES = ("seat", "lane", "slot", "job", "client")
# Whose fault: `request` is the client's, `refused` for want of room, `nbd` an answer of the NBD server, `unreachable`
# its absence, `lost` writes that were confirmed and not flushed, `broken_off` what failed past the headers, `gone` a
# client that left or stood still, `bug` ours.
ERRORS = ("request", "refused", "nbd", "unreachable", "lost", "broken_off", "gone", "bug")
# Who was turned away before, or without, an answer of an image's: `connections` and `client_connections` are the limits
# of those names, `handshake` was none, `handshake_s`, `head_s` and `keep_alive_s` ended by the settings of those names,
# `slow` by front.progress_s or least_bytes_s, `seats` a request for which [limits] had no room.
REASONS = (
    "connections", "client_connections", "handshake", "handshake_s", "head_s", "keep_alive_s", "slow", "seats",
)  # fmt: skip

LAYOUT = Layout()
REQUESTS = LAYOUT.counter(
    "mover_requests", "Requests that have ended.", kind=KINDS, method=METHODS, status=STATUSES, dialect=DIALECTS
)
TIME = LAYOUT.histogram("mover_request_seconds", "From a request's head to the end of its answer.", kind=KINDS)
BYTES = LAYOUT.counter(
    "mover_client_bytes", "Bytes of images in bodies, taken from clients (in) and by clients (out).",
    direction=DIRECTIONS,
)  # fmt: skip
WAITS = LAYOUT.histogram(
    "mover_stage_seconds", "Where requests waited; of seat, lane, slot and client only those that had to.", stage=STAGES
)
FAULTS = LAYOUT.counter("mover_errors", "Requests that ended with an error, by whose fault it was.", kind=ERRORS)
REFUSALS = LAYOUT.counter(
    "mover_refusals", "Connections and requests that were turned away, or cut off, and why.", reason=REASONS
)
REPLAYS = LAYOUT.counter("mover_job_replays", "Jobs that were submitted again, to the successor of a killed worker.")

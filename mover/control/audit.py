"""The audit log: who installed, used, extended and removed which ticket. One logger, `mover.audit`, at any log.level.

Ids are cut short: enough to find a ticket by, not enough to use it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from config.log import AUDIT, facts
from mover.control.peers import Peer

log = logging.getLogger(AUDIT)

SHOWN = 8

# Who did something, as facts.
Who = Mapping[str, object]
EXPIRY: Who = {"by": "expiry"}
DIRECTORY: Who = {"by": "transfer-dir"}


def who(peer: Peer) -> Who:
    """The client of a control socket, as facts."""
    return {"by": peer.program, "pid": peer.pid, "uid": peer.uid}


def short(secret: str) -> str:
    """The beginning of an id: at most a third of it."""
    return secret[: min(SHOWN, len(secret) // 3)] + ".."


def note(event: str, transfer: int, ticket_id: str, **more: object) -> None:
    """Write down what happened to a ticket."""
    log.info(event, extra=facts(transfer=transfer, ticket=short(ticket_id), **more))


def refused(peer: Peer, socket: str) -> None:
    """Somebody who may not use a control socket has tried to."""
    log.warning("refused", extra=facts(**who(peer), socket=socket))

"""imageio's ticket service: which request does what to the registry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from urllib.parse import unquote_to_bytes

from config.images import id_fault
from config.log import facts
from config.roots import NotAllowed
from mover.control import audit
from mover.control.http_socket import Answer, Request, refusal
from mover.control.imageio import BadTicket, Change, answer_of, change_of, ticket_of
from mover.control.registry import NoAnswer, Registry, TooMany

log = logging.getLogger(__name__)

DONE = Answer(200)
GONE = Answer(204)

Method = Callable[[Request, str], Awaitable[Answer]]


class TicketService:
    """The handler of its requests; whoever cancels waits for `cancel_s`, and is told then that some are in flight."""

    def __init__(self, registry: Registry, cancel_s: float) -> None:
        self._registry = registry
        self._cancel_s = cancel_s
        self._ending: set[asyncio.Task[None]] = set()
        self._methods: Mapping[str, Method] = {
            "GET": self._get,
            "PUT": self._put,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }

    async def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        path = request.path.partition("?")[0]
        method = self._methods.get(request.method)
        if not path.startswith("/tickets/"):
            return refusal(404, "not found; tickets are at /tickets/{uuid}")
        if method is None:
            allow = ", ".join(self._methods)
            return Answer(405, {"error": f"{request.method[:20]} is not possible"}, (("Allow", allow),))
        try:
            return await method(request, _id(path.removeprefix("/tickets/")))
        except BadTicket as error:
            return refusal(400, str(error))
        except NotAllowed as error:
            return refusal(403, str(error))
        except (NoAnswer, TooMany) as error:
            return refusal(503, str(error))
        except OSError as error:
            log.error("cannot write the state directory", extra=facts(why=error))
            return refusal(500, f"cannot write the state directory: {error.strerror}")

    def close(self) -> None:
        """Nothing is waited for any more."""
        for task in self._ending:
            task.cancel()

    async def _get(self, request: Request, ticket_id: str) -> Answer:
        if not ticket_id:
            return Answer(200, [answer_of(info) for info in await self._registry.look(self._registry.ids())])
        for info in await self._registry.look([ticket_id]):
            return Answer(200, answer_of(info))
        return refusal(404, "No such ticket")

    async def _put(self, request: Request, ticket_id: str) -> Answer:
        kept = ticket_of(request.body, _needed(ticket_id))
        await self._registry.install(kept, audit.who(request.peer))
        return DONE

    async def _patch(self, request: Request, ticket_id: str) -> Answer:
        change, by = change_of(request.body) if _needed(ticket_id) else Change(None, {}), audit.who(request.peer)
        if change.limits and not await self._registry.limit(ticket_id, change.limits, by):
            return refusal(404, "No such ticket")
        if change.timeout_s is not None and not await self._registry.extend(ticket_id, change.timeout_s, by):
            return refusal(404, "No such ticket")
        return DONE

    async def _delete(self, request: Request, ticket_id: str) -> Answer:
        ids = [ticket_id] if ticket_id else self._registry.ids("imageio")
        by = audit.who(request.peer)
        ending = [self._start(self._registry.cancel(one, by)) for one in ids]
        if not ending:
            return GONE
        _, busy = await asyncio.wait(ending, timeout=self._cancel_s)
        for task in set(ending) - busy:
            task.result()
        if busy:
            why = f"requests are in flight after {self._cancel_s:g} s (control.cancel_s); none is admitted"
            return refusal(409, f"Timeout cancelling: {why}")
        return GONE

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """It goes on when the client has lost its patience, or has left."""
        task = asyncio.get_running_loop().create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("cannot cancel a ticket", extra=facts(why=task.exception()))


def _needed(ticket_id: str) -> str:
    if not ticket_id:
        raise BadTicket("Ticket id is required")
    return ticket_id


def _id(segment: str) -> str:
    """The id in the path, decoded once; empty for all tickets. Raises BadTicket."""
    try:
        ticket_id = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise BadTicket("Invalid ticket id: not UTF-8") from None
    fault = id_fault(ticket_id) if ticket_id else None
    if fault is not None:
        raise BadTicket(f"Invalid ticket id: {fault}")
    return ticket_id

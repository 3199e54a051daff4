"""The library's tickets: front ends give them to their clients, for images of the configured stores only."""

from __future__ import annotations

import logging

from config.log import facts
from config.roots import NotAllowed
from mover.control import audit
from mover.control.entries import State
from mover.control.registry import NoAnswer, Registry, TooMany
from mover.control.store import Kept
from mover.serve.messages import Grant, Granted, GrantUse, Inquire, Revoke

log = logging.getLogger(__name__)

LIBRARY: audit.Who = {"by": "library"}


class Grants:
    """The handler of their messages."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def order(self, message: Grant | Revoke | Inquire) -> Granted:
        """Do what is asked; what went wrong stands in the answer."""
        try:
            match message:
                case Grant():
                    return await self._grant(message)
                case Revoke():
                    return await self._revoke(message)
                case Inquire():
                    return await self._inquire(message)
        except (NotAllowed, NoAnswer, TooMany) as error:
            return Granted(str(error))
        except OSError as error:
            log.error("cannot write the state directory", extra=facts(why=error))
            return Granted(f"cannot write the state directory: {error.strerror}")

    async def _grant(self, message: Grant) -> Granted:
        if not message.export.of_library:
            return Granted("only images of the library are given to its clients")
        if self._registry.get(message.id) is not None:
            return Granted("there is a ticket of this id already")
        kept = Kept(
            id=message.id,
            export=message.export,
            timeout_s=message.timeout_s,
            ops=("write",) if message.write else ("read",),
            size_bytes=message.size_bytes,
            filename=message.filename,
            sparse=True,
            inactivity_s=message.inactivity_s,
        )
        await self._registry.install(kept, LIBRARY)
        return Granted()

    async def _revoke(self, message: Revoke) -> Granted:
        kept = self._registry.get(message.id)
        if kept is not None and kept.export.of_library:
            await self._registry.cancel(message.id, LIBRARY)
        return Granted()

    async def _inquire(self, message: Inquire) -> Granted:
        ids = self._registry.ids_of_library() if message.ids is None else message.ids
        infos = await self._registry.look(ids)
        return Granted(
            uses=[
                GrantUse(
                    info.kept.id,
                    info.state is State.IN_FORCE,
                    info.left_s,
                    info.idle_s,
                    info.requests,
                    info.moved_bytes,
                )
                for info in infos
                if info.kept.export.of_library
            ]
        )

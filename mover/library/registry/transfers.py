"""The registry's transfers: one method for each thing that is asked or changed, one transaction each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Engine, Row, delete, insert, select, update

from mover.library.records import Transfer, TransferState
from mover.library.registry.asked import asked
from mover.library.registry.engine import reading, writing
from mover.library.registry.hosts import not_seen_for
from mover.library.registry.tables import IMAGES, TRANSFERS
from mover.library.states import GONE


class Transfers:
    """All transfers of all hosts. Methods may be called from any thread."""

    def __init__(self, engine: Engine, clock_us: Callable[[], int]) -> None:
        self._engine = engine
        self._clock_us = clock_us

    @asked
    def add(self, transfer: Transfer) -> None:
        """Remember a new one."""
        with writing(self._engine) as connection:
            values = {**asdict(transfer), "state": str(transfer.state), "created_at_us": self._clock_us()}
            connection.execute(insert(TRANSFERS).values(**values))

    @asked
    def get(self, transfer_id: str) -> Transfer | None:
        """One of them."""
        found = self._found(TRANSFERS.c.id == transfer_id)
        return found[0] if found else None

    @asked
    def of_image(self, image_id: str) -> list[Transfer]:
        """Those of an image, the oldest first."""
        return self._found(TRANSFERS.c.image_id == image_id)

    @asked
    def of_host(self, host: str) -> list[Transfer]:
        """Those whose tickets a host has."""
        return self._found(TRANSFERS.c.host == host)

    def _found(self, where: Any) -> list[Transfer]:
        with reading(self._engine) as connection:
            rows = connection.execute(select(TRANSFERS).where(where).order_by(TRANSFERS.c.created_at_us))
            return [_transfer(row) for row in rows]

    @asked
    def move(
        self, transfer: Transfer, from_states: Sequence[TransferState], state: TransferState, worker: str | None
    ) -> Transfer | None:
        """Compare and set: it must be in one of these states, with the same `worker` as in `transfer`.

        It gets the `upload` and `store` of `transfer`.
        """
        with writing(self._engine) as connection:
            where = [TRANSFERS.c.id == transfer.id, TRANSFERS.c.state.in_([str(one) for one in from_states])]
            where.append(TRANSFERS.c.worker == transfer.worker if transfer.worker else TRANSFERS.c.worker.is_(None))
            values = {"state": str(state), "worker": worker, "upload": transfer.upload, "store": transfer.store}
            if not connection.execute(update(TRANSFERS).where(*where).values(**values)).rowcount:
                return None
        return self.get(transfer.id)

    @asked
    def has_image(self, transfer: Transfer, holder: str) -> bool:
        """Whether nobody else can bring the image's data: `holder` does, or the image is gone."""
        with reading(self._engine) as connection:
            mine = (IMAGES.c.holder == holder) | (IMAGES.c.state.in_([str(state) for state in GONE]))
            found = select(IMAGES.c.id).where(IMAGES.c.id == transfer.image_id, mine)
            return connection.execute(found).first() is not None

    @asked
    def remove(self, transfer_id: str) -> None:
        """It is no more; it is no error if it was not."""
        with writing(self._engine) as connection:
            connection.execute(delete(TRANSFERS).where(TRANSFERS.c.id == transfer_id))

    @asked
    def hosts(self) -> set[str]:
        """Who has any."""
        with reading(self._engine) as connection:
            return set(connection.scalars(select(TRANSFERS.c.host).distinct()))

    @asked
    def remove_of_dead(self, host: str, is_upload: bool, dead_s: float) -> int:
        """Forget a host's, if it has not been seen for so long; how many."""
        with writing(self._engine) as connection:
            direction = TRANSFERS.c.direction == ("upload" if is_upload else "download")
            theirs = (TRANSFERS.c.host == host) & direction & not_seen_for(connection, host, dead_s)
            return connection.execute(delete(TRANSFERS).where(theirs)).rowcount


def _transfer(row: Row[Any]) -> Transfer:
    facts = dict(row._mapping)
    facts["state"] = TransferState(facts["state"])
    return Transfer(**facts)

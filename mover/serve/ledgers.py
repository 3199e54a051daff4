"""An export's ledger, as the supervisor holds it: memory that outlives every worker. Only the worker writes it."""

from __future__ import annotations

import os

from workers.image import ledger
from workers.image.ledger import LedgerBroken
from workers.lane import memory

__all__ = ["KeptLedger", "LedgerBroken"]


class KeptLedger:
    """A ledger's memfd and its mapping; zeros at first, which is an empty ledger."""

    def __init__(self) -> None:
        self.fd = memory.create("mover-ledger", ledger.LEDGER_BYTES)
        self._buffer = memory.map_shared(self.fd, ledger.LEDGER_BYTES)

    def completed(self) -> int:
        """Jobs completed by all workers of this export."""
        return ledger.completed(self._buffer)

    def begun(self) -> list[tuple[int, int, int]]:
        """(offset, length, tag) of writes that were begun and have not ended. Raises LedgerBroken."""
        return ledger.begun(self._buffer)

    def is_blank(self) -> bool:
        """Nothing is begun, unflushed or lost: a new ledger would say the same."""
        return ledger.is_blank(self._buffer)

    def forget(self, transfer: int) -> None:
        """Nobody will ask for this transfer's ranges any more. No worker may have the ledger. Raises LedgerBroken."""
        ledger.Ledger(self._buffer).forget(transfer)

    def close(self) -> None:
        """Give the memory back."""
        self._buffer.release()
        os.close(self.fd)

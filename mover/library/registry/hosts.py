"""The hosts that share the registry, and when each was seen last; all by the database's clock."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Connection, Engine, func, insert, literal_column, select, text, update
from sqlalchemy.exc import IntegrityError

from mover.library.records import Host
from mover.library.registry.asked import asked
from mover.library.registry.engine import reading, writing
from mover.library.registry.tables import HOSTS

_NOW_US = {
    "postgresql": "(extract(epoch from clock_timestamp()) * 1000000)::bigint",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
}


class Hosts:
    """Their leases: each is renewed by its host, and looked at by the others."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @asked
    def renew(self, host: Host, *, keeps_volumes: bool = False) -> None:
        """The host is there now, with these volumes, or those that were known of it."""
        try:
            self._renew(host, keeps_volumes)
        except IntegrityError:  # another front end of it was first, just now
            self._renew(host, keeps_volumes)

    def _renew(self, host: Host, keeps_volumes: bool) -> None:
        with writing(self._engine) as connection:
            if connection.dialect.name == "postgresql":
                # A renewal that a crash of the database forgets was one of many: no disk is waited for.
                connection.execute(text("SET LOCAL synchronous_commit = off"))
            volumes = msgspec.json.encode(sorted(host.volumes)).decode()
            values = {"name": host.name, "seen_at_us": _now_us(connection)}
            known = {} if keeps_volumes else {"volumes": volumes}
            if not connection.execute(update(HOSTS).where(HOSTS.c.id == host.id).values(**values, **known)).rowcount:
                connection.execute(insert(HOSTS).values(id=host.id, volumes=volumes, **values))

    @asked
    def dead(self, ids: Collection[str], dead_s: float) -> set[str]:
        """Which of these have not been seen for so long. Who never was is none of them: it keeps no lease."""
        with reading(self._engine) as connection:
            late = select(HOSTS.c.id).where(HOSTS.c.id.in_(list(ids)), _is_late(connection, dead_s))
            return set(connection.scalars(late))

    @asked
    def count(self, dead_s: float) -> int:
        """How many are alive."""
        with reading(self._engine) as connection:
            alive = select(func.count()).select_from(HOSTS).where(~_is_late(connection, dead_s))
            return connection.scalar(alive) or 0

    @asked
    def name(self, host: str) -> str:
        """What people call it; its id if it was never seen."""
        with reading(self._engine) as connection:
            return connection.scalar(select(HOSTS.c.name).where(HOSTS.c.id == host)) or host

    @asked
    def having(self, volume: str) -> list[Host]:
        """Who reaches a volume, who was seen last first."""
        with reading(self._engine) as connection:
            quoted = msgspec.json.encode(volume).decode()
            found = select(HOSTS).where(HOSTS.c.volumes.contains(quoted, autoescape=True))
            found = found.order_by(HOSTS.c.seen_at_us.desc())
            return [
                Host(row.id, row.name, tuple(msgspec.json.decode(row.volumes, type=list[str])))
                for row in connection.execute(found)
            ]


def not_seen_for(connection: Connection, host: str, dead_s: float) -> ColumnElement[bool]:
    """The condition that a host's lease has run out."""
    return select(HOSTS.c.id).where(HOSTS.c.id == host, _is_late(connection, dead_s)).exists()


def _is_late(connection: Connection, dead_s: float) -> ColumnElement[bool]:
    return HOSTS.c.seen_at_us < _now_us(connection) - int(dead_s * 1e6)


def _now_us(connection: Connection) -> ColumnElement[Any]:
    return literal_column(_NOW_US[connection.dialect.name], BigInteger)

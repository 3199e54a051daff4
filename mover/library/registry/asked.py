"""Each question to the database: its errors come out as RegistryError."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from mover.library.registry.errors import RegistryError

P = ParamSpec("P")
T = TypeVar("T")


def asked(method: Callable[P, T]) -> Callable[P, T]:
    """What the database says comes out as RegistryError."""

    @wraps(method)
    def ask(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return method(*arguments, **named)
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise RegistryError(
                f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"
            ) from error

    return ask


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Enums as the text that the columns hold."""
    return {name: str(value) if isinstance(value, str) else value for name, value in values.items()}


def changed(connection: Connection, change: Any) -> bool:
    """Whether a change has changed anything."""
    return bool(connection.execute(change).rowcount)

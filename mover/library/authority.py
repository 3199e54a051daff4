"""Who a request comes from: the seam that a table of tokens fills, and that Keystone could."""

from __future__ import annotations

import ipaddress
import logging
from pathlib import Path
from typing import Protocol

from sanic import Request

from config.log import facts
from mover.front import sanic_seam
from mover.library.callers import ADMIN, ANONYMOUS, Caller
from mover.library.errors import ApiError
from mover.library.tokens import Table, TokenFileError, digest

log = logging.getLogger(__name__)

# A proxy's: the client is somewhere else, whatever the connection says.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class Authority(Protocol):
    """Knows callers by their tokens."""

    async def caller(self, request: Request) -> Caller:
        """Who sends the request. Raises ApiError 401."""


class TokenAuthority:
    """Callers by the table of tokens; without one, whoever is on this host is the default tenant's admin."""

    def __init__(self, token_file: Path, default_tenant: str, allows_anonymous: bool) -> None:
        self._table = Table(token_file)
        self._local = Caller(user=ADMIN, tenant=default_tenant, roles=frozenset({ADMIN}))
        self._allows_anonymous = allows_anonymous

    async def caller(self, request: Request) -> Caller:
        """Who sends the request. Raises ApiError 401, and 503 if the table cannot be read."""
        try:
            entries = self._table.entries()
        except TokenFileError as error:
            log.error("the token table cannot be used", extra=facts(reason=str(error)))
            raise ApiError(503, "The table of tokens cannot be read") from error
        token = sanic_seam.header(request, "x-auth-token")
        if entries is None:
            if is_local(request):
                return self._local
            raise _unauthorized("Without a table of tokens only clients on this host are answered")
        if not token:
            if self._allows_anonymous:
                return ANONYMOUS
            raise _unauthorized("X-Auth-Token is missing")
        entry = entries.get(digest(token))
        if entry is None:
            raise _unauthorized("The token is not known")
        return Caller(entry.user, entry.tenant, frozenset(entry.roles))


def is_local(request: Request) -> bool:
    """The client is on this host: by the Unix socket or loopback, not through a proxy, and no page of a browser."""
    if any(name in request.headers for name in _FORWARDED) or "origin" in request.headers:
        return False
    if sanic_seam.over_unix(request):
        return True
    peer = sanic_seam.transport(request).get_extra_info("peername")
    try:
        address = ipaddress.ip_address(peer[0].partition("%")[0])
    except (TypeError, ValueError, IndexError):
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _unauthorized(why: str) -> ApiError:
    return ApiError(401, why, [("WWW-Authenticate", 'Mover realm="image library", X-Auth-Token')])

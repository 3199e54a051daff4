"""Who sends a request to VISOR's view: a user by their signature; without a file of users, as in the other views."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from sanic import Request

from config.log import facts
from mover.front import sanic_seam
from mover.library.authority import Authority
from mover.library.callers import Caller
from mover.library.errors import ApiError
from mover.library.visor import signature
from mover.library.visor.users import Users, UsersFileError

log = logging.getLogger(__name__)


class VisorAuthority:
    """Callers by VISOR's users, once there is a file of them."""

    def __init__(
        self, users_file: Path, prefix: str, window_s: float, others: Authority, clock: Callable[[], float] = time.time
    ) -> None:
        self._users = Users(users_file)
        self._prefix = prefix
        self._window_s = window_s
        self._others = others
        self._clock = clock

    async def caller(self, request: Request) -> Caller:
        """Who sends the request. Raises ApiError 403, and 503 if the file cannot be read."""
        try:
            users = self._users.by_key()
        except UsersFileError as error:
            log.error("the users' file cannot be used", extra=facts(reason=str(error)))
            raise ApiError(503, "The file of users cannot be read") from error
        if users is None:
            return await self._others.caller(request)
        authorization = sanic_seam.header(request, "authorization")
        if not authorization:
            raise ApiError(403, "Authorization not provided.")
        found = signature.credentials(authorization)
        if found is None:
            raise ApiError(403, "No access key found in Authorization.")
        access_key, signed = found
        user = users.get(access_key)
        if user is None:
            raise ApiError(403, f"No user found with access key '{access_key[:80]}'.")
        self._check(request, user.secret_key, signed)
        return Caller(user.access_key, user.tenant or user.access_key, frozenset(user.roles))

    def _check(self, request: Request, secret: str, signed: str) -> None:
        headers = sanic_seam.header_values(request)
        # A client that a proxy brings under the prefix has signed the path without it.
        paths = (request.path, request.path.removeprefix(self._prefix))
        described = [signature.description(request.method, path, headers) for path in paths]
        if not any(signature.is_signed(secret, one, signed) for one in described):
            raise ApiError(403, "Invalid authorization, signatures do not match.")
        sent_s = signature.seconds_of(headers.get("date"))
        if self._window_s and (sent_s is None or abs(self._clock() - sent_s) > self._window_s):
            raise ApiError(403, f"Date is missing, or more than {self._window_s:g} s from this host's time.")

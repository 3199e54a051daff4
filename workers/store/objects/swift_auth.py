"""Tokens of OpenStack Swift: Keystone's, by keystoneauth, or those of Swift's own auth, which is one request."""

from __future__ import annotations

import errno
import http.client
from typing import NamedTuple

from config.store_settings import SwiftStore
from workers.store.objects.asking import TIMEOUT_S, Request, ask_again
from workers.store.objects.credentials import Credentials


class Token(NamedTuple):
    """`url` is the account's, below which containers are."""

    url: str
    token: str

    def __repr__(self) -> str:
        return f"Token({self.url!r}, …)"


def authenticate(store: SwiftStore, credentials: Credentials) -> Token:
    """A new token. Raises OSError: EACCES where the credentials are refused."""
    return _of_keystone(store, credentials) if store.auth == "keystone" else _of_swift(store, credentials)


def _of_swift(store: SwiftStore, credentials: Credentials) -> Token:
    headers = {"X-Auth-User": credentials["user"], "X-Auth-Key": credentials["key"]}
    try:
        status, answered, _ = ask_again(Request("GET", store.auth_url, headers))
    except OSError as error:
        raise OSError(errno.EIO, f"{store.auth_url} cannot be reached") from error
    if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        raise OSError(errno.EACCES, f"{store.auth_url} gives no token")
    if status not in (http.client.OK, http.client.NO_CONTENT) or "x-storage-url" not in answered:
        raise OSError(errno.EIO, f'{store.auth_url} gives no token: status {status}; is auth = "v1" right?')
    return Token(answered["x-storage-url"], answered["x-auth-token"])


def _of_keystone(store: SwiftStore, credentials: Credentials) -> Token:
    # 0.2 s of processor time and 22 MB, for workers of such a store only.
    from keystoneauth1 import exceptions
    from keystoneauth1.identity.v3 import Password
    from keystoneauth1.session import Session

    password = Password(
        store.auth_url,
        username=credentials["username"],
        password=credentials["password"],
        project_name=credentials["project_name"],
        user_domain_name=credentials["user_domain_name"],
        project_domain_name=credentials["project_domain_name"],
    )
    session = Session(password, timeout=TIMEOUT_S)
    try:
        url = session.get_endpoint(service_type="object-store", interface="public", region_name=store.region or None)
        token = session.get_token()
    except (exceptions.Unauthorized, exceptions.Forbidden) as error:
        raise OSError(errno.EACCES, f"{store.auth_url} gives no token") from error
    except exceptions.CatalogException:
        url = token = None
    except exceptions.ClientException as error:
        why = f"{store.auth_url} gives no token: {type(error).__name__}"
        raise OSError(errno.EIO, why) from None  # whose text may have the request in it
    finally:
        session.session.close()
    if not url or not token:
        raise OSError(errno.EIO, f"{store.auth_url} knows no object store{' in ' * bool(store.region)}{store.region}")
    return Token(url, token)

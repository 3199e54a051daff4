"""Who a store's worker is to its server. Only the worker knows, and nothing that is printed says it."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Mapping

from config.store_settings import ObjectStore, S3Store, SwiftStore
from workers.lane.store_format import Why
from workers.store.backing import Refusal

# What each kind needs, by its name in a file, and in the environment.
S3 = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
KEYSTONE = {
    "username": "OS_USERNAME",
    "password": "OS_PASSWORD",
    "project_name": "OS_PROJECT_NAME",
    "user_domain_name": "OS_USER_DOMAIN_NAME",
    "project_domain_name": "OS_PROJECT_DOMAIN_NAME",
}
SWIFT_V1 = {"user": "ST_USER", "key": "ST_KEY"}
WEBHDFS = {"user": "HADOOP_USER_NAME"}
# A token has no name in the environment that other programs know.
DELEGATION = "delegation"
# What Keystone is told if nobody says it.
DEFAULTS = {"user_domain_name": "Default", "project_domain_name": "Default"}


class Credentials(Mapping[str, str]):
    """Names and values, of which nothing is shown."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "Credentials(…)"


def read_credentials(store: ObjectStore, environ: Mapping[str, str] = os.environ) -> Credentials:
    """The store's credentials as they are now. Raises Refusal where there are none, OSError."""
    names = _names(store)
    if store.credentials_file:
        found, where, shown = _of_file(store), store.credentials_file, {name: name for name in names}
    else:
        found = {name: environ[variable] for name, variable in names.items() if environ.get(variable)}
        where, shown = "the environment", dict(names)
    values = {name: found.get(name) or DEFAULTS.get(name, "") for name in [*names, DELEGATION]}
    missing = [shown[name] for name in names if not values[name]]
    if missing and names is not WEBHDFS:
        raise Refusal(Why.GONE, f"store {store.id} has no credentials: {where} has no {' and no '.join(missing)}")
    return Credentials(values)


def remedy(store: ObjectStore) -> str:
    """What an administrator does where the server refuses them."""
    if store.credentials_file:
        return "its administrator must correct its credentials_file, which is read again at the next try"
    variables = " and ".join(_names(store).values())
    return f"its administrator must correct {variables} in the environment of mover serve, and restart it"


def _names(store: ObjectStore) -> dict[str, str]:
    if isinstance(store, S3Store):
        return S3
    if isinstance(store, SwiftStore):
        return KEYSTONE if store.auth == "keystone" else SWIFT_V1
    return WEBHDFS


def _of_file(store: ObjectStore) -> Mapping[str, str]:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        with open(store.credentials_file, encoding="utf-8") as file:
            parser.read_file(file)
        return parser["default"]
    except (configparser.Error, UnicodeDecodeError, KeyError):  # whose text would show the file's lines
        why = f"store {store.id} has no credentials: {store.credentials_file} has no section [default] that can be read"
        raise Refusal(Why.GONE, why) from None

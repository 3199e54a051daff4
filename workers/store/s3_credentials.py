"""Who an S3 store's worker is to its server. Only the worker knows, and nothing that is printed says it."""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from typing import NamedTuple

from config.settings import S3Store
from workers.lane.store_format import Why
from workers.store.backing import Refusal

KEY, SECRET = "aws_access_key_id", "aws_secret_access_key"


class Credentials(NamedTuple):
    """A key and its secret."""

    key: str
    secret: str

    def __repr__(self) -> str:
        return "Credentials(…)"


def read_credentials(store: S3Store, environ: Mapping[str, str] = os.environ) -> Credentials:
    """The store's credentials as they are now. Raises Refusal where there are none, OSError."""
    found, where = (_of_file(store), store.credentials_file) if store.credentials_file else (environ, "the environment")
    names = (KEY, SECRET) if store.credentials_file else (KEY.upper(), SECRET.upper())
    missing = [name for name in names if not found.get(name)]
    if missing:
        raise Refusal(Why.GONE, f"store {store.id} has no credentials: {where} has no {' and no '.join(missing)}")
    return Credentials(found[names[0]], found[names[1]])


def _of_file(store: S3Store) -> Mapping[str, str]:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        with open(store.credentials_file, encoding="utf-8") as file:
            parser.read_file(file)
        return parser["default"]
    except (configparser.Error, UnicodeDecodeError, KeyError):  # whose text would show the file's lines
        why = f"store {store.id} has no credentials: {store.credentials_file} has no section [default] that can be read"
        raise Refusal(Why.GONE, why) from None

"""Which objects a store's settings mean."""

from __future__ import annotations

import errno

from config.store_settings import ObjectStore, S3Store, SwiftStore
from workers.lane.store_format import Why
from workers.store.backing import Refusal
from workers.store.objects.credentials import remedy
from workers.store.objects.objects import Objects
from workers.store.objects.s3 import S3Objects
from workers.store.objects.swift import SwiftObjects
from workers.store.objects.webhdfs import WebhdfsObjects


def open_objects(store: ObjectStore) -> Objects:
    """The store's objects, with its credentials as they are now. Raises Refusal."""
    try:
        if isinstance(store, S3Store):
            return S3Objects(store)
        if isinstance(store, SwiftStore):
            return SwiftObjects(store)
        return WebhdfsObjects(store)
    except OSError as error:
        raise _refused(store, error) from error


def _refused(store: ObjectStore, error: OSError) -> Refusal:
    if error.filename is not None:  # the file of credentials
        return Refusal(
            Why.GONE, f"store {store.id} has no credentials: {error.filename}: {str(error.strerror).lower()}"
        )
    if error.errno == errno.EACCES:
        return Refusal(Why.DENIED, f"store {store.id} refuses Mover's credentials ({error.strerror}): {remedy(store)}")
    return Refusal(Why.GONE, f"store {store.id} does not work ({error.strerror}): try again later")

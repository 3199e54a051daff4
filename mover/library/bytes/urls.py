"""Images that stay at a URL: what its server says of them, and what that means for who reads them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from config.store_settings import HttpStore, Store
from mover.library.records import Location
from mover.library.seam import (
    Changed,
    NoRanges,
    NotAllowed,
    NotPossible,
    NotThere,
    Referred,
    SourceGone,
    StoreGone,
    UnknownStore,
    Unreachable,
)
from workers.lane.front_lane import FrontLane
from workers.lane.store_format import Answer, Find, Found, Question

Ask = Callable[[Store, Question], Awaitable[Answer]]
"""Asks a store. Raises CarrierError."""

VERSION = "version"
"""Of a location's metadata: see ImageFacts."""


def store_of_urls(stores: Iterable[Store]) -> Store:
    """The first store of such images; there is one in any case, unless its name is another one's."""
    found = next((store for store in stores if isinstance(store, HttpStore)), None)
    if found is None:
        raise UnknownStore('there is no store of images that stay at a URL: the configuration needs type = "http"')
    return found


async def refer(ask: Ask, store: Store, url: str) -> Referred:
    """Look at what a URL names. Raises CarrierError."""
    if not isinstance(store, HttpStore):
        raise UnknownStore(f"store {store.id} has no images that stay at a URL")
    found = await ask(store, Find(url))
    assert isinstance(found, Found)
    if found.size is None:
        raise NotThere("there is nothing at the URL of the image's data")
    if found.unsized:
        raise NotAllowed("the server does not tell how large the source is: import its data instead")
    return Referred(Location(store.id, url, {VERSION: found.version} if found.version else {}), found.size)


async def check_source(ask: Ask, stores: Iterable[Store], url: str) -> None:
    """What is to be brought can be had now; else it is said at once whether that may change.

    Raises NotThere and NotAllowed, which it will not; SourceGone.
    """
    store = next((store for store in stores if isinstance(store, HttpStore)), None)
    if store is None:
        return  # its own worker says so, a while later
    try:
        found = await ask(store, Find(url))
    except Unreachable as away:
        raise SourceGone(f"the source cannot be reached: {away.message}") from away
    assert isinstance(found, Found)
    if found.size is None:
        raise NotThere("the source's server has nothing at the URL (status 404 or 410)")


async def check_there(ask: Ask, store: Store, location: Location, size_bytes: int) -> None:
    """An image could not be read: whether it is because it is not there. Raises NotThere, Changed, StoreGone.

    Nothing is raised where the store has it.
    """
    try:
        found = await ask(store, Find(location.uri))
    except NotAllowed as refused:
        raise NotThere(f"the image's data is not read any more: {refused.message}") from refused
    except Unreachable as away:
        raise StoreGone(away.message) from away
    assert isinstance(found, Found)
    if found.size is None:
        raise NotThere("the store has no data of the image")
    known = (size_bytes, location.metadata.get(VERSION, ""))
    if isinstance(store, HttpStore) and (found.unsized or (found.size, found.version) != known):
        raise Changed("what is at the image's URL has changed since the image was made: make a new image of it")


def check_ranges(lane: FrontLane) -> None:
    """Raises NotPossible where the source's server has no ranges: nothing there is read at random."""
    if lane.image is not None and lane.image.sequential:
        why = "sends no ranges, and a ticket's clients read in any order: download the image's file"
        raise NotPossible(f"the server that has the image's data {why}, or copy it to a store")


def check_order(lane: FrontLane, offset: int) -> None:
    """Raises NoRanges where the source's server has none, and the bytes are not those from its beginning."""
    if offset and lane.image is not None and lane.image.sequential:
        raise NoRanges("the server that has the image's data sends no ranges: read it from its beginning")

"""The store of images that stay where a URL says: it takes nothing in, removes nothing, and looks at what is there."""

from __future__ import annotations

import errno

from config.store_settings import HttpStore
from config.url_rules import UrlRefused, UrlRules
from workers.lane.store_format import Found, Swept, Why
from workers.store.backing import Part, Refusal
from workers.store.urls.answers import Found as Source
from workers.store.urls.source import Missing, UrlSource

# Somebody waits for the answer, for a minute at most.
ATTEMPTS = 3


class UrlBacking:
    """All sources that the rules let be read."""

    def __init__(self, store: HttpStore, rules: UrlRules) -> None:
        self._store = store
        self._rules = rules

    def begin(self, image: str, size: int | None, catalogue: str, upload: str = "") -> Part:
        """Raises Refusal."""
        raise Refusal(Why.ADD_DISABLED, f"store {self._store.id} takes no images: it has those that a URL names")

    def resume(self, image: str, offset: int, size: int | None) -> Part:
        """Raises Refusal."""
        return self.begin(image, size, "")

    def kept(self, image: str) -> int | None:
        """Nothing ever is."""
        return None

    def forget(self, image: str) -> None:
        """There is nothing to forget."""

    def remove(self, uri: str) -> None:
        """What is at a URL is not ours."""

    def abandon(self, uri: str) -> None:
        """There was no upload."""

    def size(self, uri: str) -> int | None:
        """How many bytes are there; None if there is nothing, or its server does not say."""
        found = self.find(uri)
        return None if found.unsized else found.size

    def find(self, uri: str) -> Found:
        """What the server says of the source now; a size of None is nothing that Mover could read. Raises Refusal."""
        source = None
        try:
            source = UrlSource(uri, self._rules, attempts=ATTEMPTS)
            found = source.find()
        except UrlRefused as refused:
            raise Refusal(Why.NOT_ALLOWED, refused.message) from refused
        except Missing as missing:
            if missing.errno == errno.ENOENT:
                return Found(None)
            raise Refusal(Why.NOT_ALLOWED, str(missing.strerror)) from missing
        except OSError as error:
            raise Refusal(Why.UNREACHABLE, str(error.strerror)) from error
        finally:
            if source is not None:
                source.close()
        return _answer(found)

    def confirm(self, image: str, uri: str) -> None:
        """There was no upload."""

    def sweep(self, keep_s: float, catalogue: str) -> Swept:
        """Nothing is ever left."""
        return Swept(0, [])


def _answer(found: Source) -> Found:
    return Found(found.size or 0, found.version, found.size is None)

"""What the registry refuses, and when it cannot be asked."""

from __future__ import annotations


class RegistryError(Exception):
    """The database cannot be asked, or answers with an error; the text has no credentials."""


class IdTaken(Exception):
    """An image of this id is, or was, there already."""

    def __init__(self, image_id: str) -> None:
        super().__init__(f"image {image_id} is there already")
        self.image_id = image_id


class MemberTaken(Exception):
    """The image has this member already."""


class TooMany(Exception):
    """One more of `what` than the limit allows."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"an image has at most {limit} {what}")
        self.what = what
        self.limit = limit


class JobTaken(Exception):
    """Another job has the image."""

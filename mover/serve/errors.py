"""What ends the start of the service, and what ends a child."""

from __future__ import annotations


class CannotStart(Exception):
    """The service cannot start: `what` failed, `why`, and what to do about it. The text is one line."""

    def __init__(self, what: str, why: str, advice: str) -> None:
        super().__init__(what, why, advice)
        self.what = what
        self.why = why
        self.advice = advice

    def __str__(self) -> str:
        return f"cannot {self.what}: {self.why}, {self.advice}"


class Misbehaved(Exception):
    """A child said what no child may say: it is killed, not believed."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

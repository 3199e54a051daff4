"""What can be wrong with a configuration, as one line that says where, what, and what would be right."""

from __future__ import annotations


class ConfigError(ValueError):
    """A setting that cannot be used.

    `where` is the file, the environment variable or the flag that gave it; `what` is the key and its value, if
    there is one; `why` says what is wrong and what is allowed. The text is always one line.
    """

    def __init__(self, where: str, what: str, why: str) -> None:
        super().__init__(where, what, why)
        self.where = where
        self.what = what
        self.why = why

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.where, self.what, self.why) if part)
        return " ".join(text.split())


class ConfigUnreadableError(ConfigError):
    """The configuration file cannot be read at all, so nothing is known about its content."""


def shown(value: object) -> str:
    """The value as an error message quotes it: never a screenful."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

"""What SIGHUP may change: the settings of a new configuration that can be put in force while the service runs.

A setting that is not named here needs a restart; whoever makes one live adds it.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import asdict, replace

from config.settings import Settings
from config.values import SECTIONS

LIVE = frozenset(
    {
        "serve.drain_s",
        # For tickets that are installed from then on, and workers that start then.
        *(f"allow.{name}" for name in SECTIONS["allow"].__struct_fields__),
        # For connections that are accepted from then on.
        "tls.cert_file",
        "tls.key_file",
        "tls.client_ca_file",
        "tls.client_certificates",
        "tls.handshake_s",
        "log.level",
        "log.format",
        "log.requests",
        "front.progress_s",
        "front.least_bytes_s",
        "front.head_s",
        "front.keep_alive_s",
        "front.replay_s",
        "front.open_s",
        "front.lane_idle_s",
        "front.cors_origin",
        "front.unknown_id",
        *(f"qos.{name}" for name in SECTIONS["qos"].__struct_fields__),
        "limits.max_readers",
        "limits.max_writers",
        "limits.host_readers",
        "limits.host_writers",
        "limits.connections",
        "limits.client_connections",
        "limits.mode",
        "limits.wait_s",
        # Of workers that run, too; a connection that is open keeps what it began with.
        *(f"worker.{name}" for name in SECTIONS["worker"].__struct_fields__),
        "supervisor.arena_limit_bytes",
    }
)


class Reloaded(NamedTuple):
    """What comes of a reload: the settings in force from now on, and the keys of those that have changed.

    `changed` are in force, `waiting` differ in the new configuration and need a restart; `image` and `store` stand for
    all of theirs.
    """

    settings: Settings
    changed: list[str]
    waiting: list[str]


def reloaded(old: Settings, new: Settings) -> Reloaded:
    """The settings in force when the configuration becomes `new` while the service runs with `old`."""
    different = [key for key in _keys() if _value(old, key) != _value(new, key)]
    changed = [key for key in different if key in LIVE]
    waiting = [key for key in different if key not in LIVE]
    waiting += [name for name in ("image", "store") if getattr(old, name) != getattr(new, name)]
    settings = old
    for section in SECTIONS:
        names = [key.partition(".")[2] for key in changed if key.startswith(f"{section}.")]
        values = {name: getattr(getattr(new, section), name) for name in names}
        settings = replace(settings, **{section: replace(getattr(settings, section), **values)})
    return Reloaded(settings, changed, waiting)


def _keys() -> list[str]:
    return [f"{section}.{name}" for section in SECTIONS for name in SECTIONS[section].__struct_fields__]


def _value(settings: Settings, key: str) -> object:
    section, _, name = key.partition(".")
    return asdict(getattr(settings, section))[name]

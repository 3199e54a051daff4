"""What settings mean together: the defaults that depend on the host, and the relations that must hold."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from config.allow import ANY_HOST, network_of
from config.errors import ConfigError, shown
from config.export_url import SOCKET_PATH_MAX_BYTES
from config.settings import Settings
from config.store_settings import FileStore, HttpStore, Store
from config.stores import check_store

LIBRARY_FILE = "library.sqlite"
TOKEN_FILE = "tokens.json"
VISOR_USERS_FILE = "visor-users.json"
# A path of the library's own, beside those that are there already.
_PREFIX = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_TAKEN = re.compile(
    r"/(v[0-9.]+|versions|images|info|healthz|readyz|workers|metrics|status|tickets|openapi[a-z.]*)(/.*)?"
)
# A body comes in pieces of 4 KiB at least: below this it would seem to stand still.
RATE_LEAST = 65536
_HOST = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# The store that there is when none is configured, and its directory in the state directory.
STORE = "file"
IMAGES = "images"
# The store of images that stay where a URL says.
URLS = "http"
DATABASES = ("sqlite:///", "postgresql+psycopg://")


def resolve(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """`settings` with the defaults that depend on the host filled in, and paths made absolute."""
    serve, library = settings.serve, settings.library
    state_dir = os.path.abspath(serve.state_dir) if serve.state_dir else _state_dir(environ)
    return replace(
        settings,
        serve=replace(
            serve,
            front_ends=serve.front_ends or max(1, (os.cpu_count() or 1) // 2),
            state_dir=state_dir,
            unix_socket=_absolute(serve.unix_socket),
            control_socket=_absolute(serve.control_socket),
            ticket_socket=_absolute(serve.ticket_socket),
            transfer_dir=_absolute(serve.transfer_dir),
        ),
        library=replace(
            library,
            database=library.database or f"sqlite:///{os.path.join(state_dir, LIBRARY_FILE)}",
            token_file=_absolute(library.token_file) or os.path.join(state_dir, TOKEN_FILE),
            url_ca_file=_absolute(library.url_ca_file),
            visor_users_file=_absolute(library.visor_users_file) or os.path.join(state_dir, VISOR_USERS_FILE),
        ),
        store=_stores(settings, state_dir),
    )


def _stores(settings: Settings, state_dir: str) -> list[Store]:
    """Those that are named, or a directory of our own; and in any case one of images that stay where they are."""
    stores = list(settings.store) or [FileStore(id=STORE, directories=[os.path.join(state_dir, IMAGES)])]
    has_one = any(isinstance(store, HttpStore) or store.id == URLS for store in stores)
    return stores if has_one else [*stores, HttpStore(id=URLS)]


def check(settings: Settings, origins: Mapping[str, str]) -> None:
    """Raises ConfigError for resolved settings that are each allowed by itself, but cannot work.

    `origins` tells who gave each setting that is not the default.
    """
    _check_paths(settings, origins)
    _check_tls(settings, origins)
    _check_arena(settings, origins)
    _check_database(settings, origins)
    _check_visor(settings, origins)
    _check_allowed(settings, origins)
    _check_urls(settings, origins)
    _check_rates(settings, origins)
    for store in settings.store:
        check_store(store, "[[store]]")


def _check_paths(settings: Settings, origins: Mapping[str, str]) -> None:
    for name in ("unix_socket", "control_socket", "ticket_socket", "state_dir", "transfer_dir"):
        key, path = f"serve.{name}", getattr(settings.serve, name)
        if "\0" in path:
            raise ConfigError(_where(origins, key), f"{key} = {shown(path)}", "must not hold a NUL")
        length = len(os.fsencode(path))
        if name.endswith("_socket") and length > SOCKET_PATH_MAX_BYTES:
            why = f"the path is {length} bytes long, a Unix socket's is at most {SOCKET_PATH_MAX_BYTES}"
            raise ConfigError(_where(origins, key), f"{key} = {shown(path)}", why)


def _check_tls(settings: Settings, origins: Mapping[str, str]) -> None:
    """Whether all files are named; whether they can be used is seen at the start."""
    tls = settings.tls
    needed = ["tls.cert_file", "tls.key_file"] if tls.enabled else []
    needed += ["tls.client_ca_file"] if tls.enabled and tls.client_certificates != "none" else []
    for key in needed:
        if not getattr(tls, key.removeprefix("tls.")):
            asked_by = ("tls.client_certificates",) if key == "tls.client_ca_file" else ("tls.enabled",)
            raise ConfigError(_where(origins, *asked_by), key, f"is missing: {asked_by[0]} needs a PEM file there")


def _check_arena(settings: Settings, origins: Mapping[str, str]) -> None:
    front, limit = settings.front, settings.supervisor.arena_limit_bytes
    if front.request_slots > front.slots:
        where = _where(origins, "front.request_slots", "front.slots")
        why = f"must be at most front.slots, which is {front.slots}"
        raise ConfigError(where, f"front.request_slots = {front.request_slots}", why)
    arena_bytes = front.slots * front.slot_bytes
    if arena_bytes > limit:
        where = _where(origins, "supervisor.arena_limit_bytes", "front.slots", "front.slot_bytes")
        why = f"must hold at least one arena, front.slots * front.slot_bytes = {arena_bytes}"
        raise ConfigError(where, f"supervisor.arena_limit_bytes = {limit}", why)


def _check_database(settings: Settings, origins: Mapping[str, str]) -> None:
    database = settings.library.database
    if not database.startswith(DATABASES):
        # Not the value: it may hold a password.
        scheme = shown(database.partition(":")[0])
        why = f"must begin with one of {', '.join(DATABASES)}"
        raise ConfigError(_where(origins, "library.database"), f"library.database = {scheme}:…", why)


def _check_visor(settings: Settings, origins: Mapping[str, str]) -> None:
    prefix = settings.library.visor_prefix
    if prefix and (_PREFIX.fullmatch(prefix) is None or _TAKEN.fullmatch(prefix) is not None):
        why = "must be empty, or a path such as /visor that has no slash at its end and is no other service's"
        raise ConfigError(_where(origins, "library.visor_prefix"), f"library.visor_prefix = {shown(prefix)}", why)


def _check_allowed(settings: Settings, origins: Mapping[str, str]) -> None:
    for name in ("files", "nbd_sockets", "tls_files"):
        for path in getattr(settings.allow, name):
            if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
                why = "must be an absolute path without '..' and NUL"
                raise ConfigError(_where(origins, f"allow.{name}"), f"allow.{name}: {shown(path)}", why)
    for host in settings.allow.nbd_hosts:
        if host != ANY_HOST and network_of(host) is None and not _HOST.fullmatch(host):
            why = "must be a host's name, an address, a network (whose address ends where its mask does), or *"
            raise ConfigError(_where(origins, "allow.nbd_hosts"), f"allow.nbd_hosts: {shown(host)}", why)


def _check_urls(settings: Settings, origins: Mapping[str, str]) -> None:
    for entry in settings.library.url_allow:
        if network_of(entry) is None and not _HOST.fullmatch(entry):
            why = "must be a host's name, an address, or a network (whose address ends where its mask does)"
            raise ConfigError(_where(origins, "library.url_allow"), f"library.url_allow: {shown(entry)}", why)


def _check_rates(settings: Settings, origins: Mapping[str, str]) -> None:
    for name in ("host_bytes_s", "image_bytes_s", "ticket_bytes_s"):
        rate = getattr(settings.qos, name)
        if 0 < rate < RATE_LEAST:
            why = f"must be 0, which is no limit, or at least {RATE_LEAST}"
            raise ConfigError(_where(origins, f"qos.{name}"), f"qos.{name} = {rate}", why)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def _where(origins: Mapping[str, str], *keys: str) -> str:
    """Who broke the relation: whoever gave one of its settings, for the defaults keep it."""
    return next((origins[key] for key in keys if key in origins), "settings")


def _state_dir(environ: Mapping[str, str]) -> str:
    """/var/lib/mover as root, else mover in the user's state directory (XDG base directory specification)."""
    if os.geteuid() == 0:
        return "/var/lib/mover"
    state_home = environ.get("XDG_STATE_HOME", "")
    # The specification: a relative path in the variable is to be ignored.
    base = Path(state_home) if os.path.isabs(state_home) else Path.home() / ".local" / "state"
    return str(base / "mover")

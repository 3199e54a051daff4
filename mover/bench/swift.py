"""OpenStack Swift as Debian packages it, with its S3 API: four servers and memcached as plain processes on loopback.

The tests run it, too (tests/store/swift.py).
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

from mover.bench.errors import StartError

USER, SECRET = "mover:test", "its-secret-is-never-shown"
PROGRAMS = ("memcached", "swift-account-server", "swift-container-server", "swift-object-server", "swift-proxy-server")
KINDS = ("account", "container", "object")
READY_S = 120.0
# All rings in one process: each swift-ring-builder takes a second.
RINGS = """
import sys
from swift.common.ring import RingBuilder
for kind, port in zip(sys.argv[2::2], sys.argv[3::2]):
    builder = RingBuilder(2, 1, 0)
    device = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d", "weight": 1, "meta": ""}
    builder.add_dev(device | {"replication_ip": "127.0.0.1", "replication_port": int(port)})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""
COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {room}
devices = {room}/devices
mount_check = false
fallocate_reserve = 0
workers = 0
user = {user}
"""
STORAGE = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = f"""
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth container_quotas bulk slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{{memcached}}
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_{USER.replace(":", "_")} = {SECRET} .admin
""" + "".join(
    f"[filter:{name}]\nuse = egg:swift#{name}\n"
    for name in ("catch_errors", "gatekeeper", "listing_formats", "container_quotas", "bulk", "slo", "dlo")
)
SWIFT_CONF = """
[swift-hash]
swift_hash_path_suffix = of
swift_hash_path_prefix = tests
"""


@dataclass(frozen=True)
class Swift:
    """A running one: its S3 API is at `endpoint`, its own auth at `auth_url`; `memcached` is a port."""

    endpoint: str
    memcached: int

    @property
    def auth_url(self) -> str:
        """Who gives tokens."""
        return f"{self.endpoint}/auth/v1.0"

    def make_container(self, name: str) -> None:
        """A bucket, or container. Raises OSError."""
        with urlopen(Request(self.auth_url, headers={"X-Auth-User": USER, "X-Auth-Key": SECRET})) as answer:
            url, token = answer.headers["X-Storage-Url"], answer.headers["X-Auth-Token"]
        with urlopen(Request(f"{url}/{name}", headers={"X-Auth-Token": token}, method="PUT")):
            pass


def is_there() -> bool:
    """Whether all of it is installed."""
    return all(shutil.which(program) for program in PROGRAMS)


@contextmanager
def swift(room: Path, container: str) -> Iterator[Swift]:
    """Swift with an empty container. `room` must be on a file system with extended attributes."""
    ports = dict(zip((*KINDS, "proxy", "memcached"), _free_ports(5), strict=True))
    user = os.environ.get("USER", "root") if os.getuid() else "root"
    (room / "devices" / "d").mkdir(parents=True)
    (room / "swift.conf").write_text(SWIFT_CONF)
    rings = [word for kind in KINDS for word in (kind, str(ports[kind]))]
    subprocess.run(["/usr/bin/python3", "-c", RINGS, str(room), *rings], check=True)
    for kind in (*KINDS, "proxy"):
        own = STORAGE.format(kind=kind) if kind in KINDS else PROXY.format(memcached=ports["memcached"])
        (room / f"{kind}.conf").write_text(COMMON.format(port=ports[kind], room=room, user=user) + own)
    with ExitStack() as stack:
        _run(stack, room, "memcached", "-u", user, "-l", "127.0.0.1", "-p", str(ports["memcached"]))
        for kind in (*KINDS, "proxy"):
            _run(stack, room, f"swift-{kind}-server", str(room / f"{kind}.conf"))
        server = Swift(f"http://127.0.0.1:{ports['proxy']}", ports["memcached"])
        _await_container(server, container)
        yield server


def _run(stack: ExitStack, room: Path, *command: str) -> None:
    log = stack.enter_context((room / f"{command[0]}.log").open("wb"))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.kill)


def _await_container(server: Swift, container: str) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            server.make_container(container)
            return
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                raise StartError("swift", f"it has no container after {READY_S:g} s", str(error)) from error
        time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now: none of these servers can be given a socket."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]

"""OpenStack Swift as Debian packages it, with its S3 API: four servers and memcached as plain processes on loopback."""

from __future__ import annotations

import http.client
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.harness.waiting import wait_until
from tests.store.s3_servers import SECRET, S3Server

KEY = "mover:test"
KINDS = ("account", "container", "object")
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
user = root
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
user_{KEY.replace(":", "_")} = {SECRET} .admin
""" + "".join(
    f"[filter:{name}]\nuse = egg:swift#{name}\n"
    for name in ("catch_errors", "gatekeeper", "listing_formats", "container_quotas", "bulk", "slo", "dlo")
)
SWIFT_CONF = """
[swift-hash]
swift_hash_path_suffix = of
swift_hash_path_prefix = tests
"""


@contextmanager
def swift(room: Path) -> Iterator[S3Server]:
    """Swift with an empty bucket. `room` must be on a file system with extended attributes."""
    ports = dict(zip((*KINDS, "proxy", "memcached"), _free_ports(5), strict=True))
    (room / "devices" / "d").mkdir(parents=True)
    (room / "swift.conf").write_text(SWIFT_CONF)
    rings = [word for kind in KINDS for word in (kind, str(ports[kind]))]
    subprocess.run(["/usr/bin/python3", "-c", RINGS, str(room), *rings], check=True)
    for kind in (*KINDS, "proxy"):
        own = STORAGE.format(kind=kind) if kind in KINDS else PROXY.format(memcached=ports["memcached"])
        (room / f"{kind}.conf").write_text(COMMON.format(port=ports[kind], room=room) + own)
    with ExitStack() as stack:
        _run(stack, room, "memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(ports["memcached"]))
        for kind in (*KINDS, "proxy"):
            _run(stack, room, f"swift-{kind}-server", str(room / f"{kind}.conf"))
        server = S3Server(f"http://127.0.0.1:{ports['proxy']}", room, KEY, memcached=ports["memcached"])
        wait_until("Swift has the bucket", lambda: _made(server), 120)
        yield server


def _run(stack: ExitStack, room: Path, *command: str) -> None:
    log = stack.enter_context((room / f"{command[0]}.log").open("wb"))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.kill)


def _made(server: S3Server) -> bool:
    try:
        server.ask("PUT")
    except (OSError, http.client.HTTPException, AssertionError):
        return False
    return True


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now: none of these servers can be given a socket."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]

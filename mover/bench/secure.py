"""The row about TLS: what a transfer over HTTPS costs, one by itself and eight at once."""

from __future__ import annotations

from functools import partial

from mover.bench import clients, servers
from mover.bench.contest import Contender, Contest, as_rate
from mover.bench.exports import nbdkit, qemu_nbd
from mover.bench.row import Bench
from mover.bench.servers import HttpServer, Image

CONNECTIONS = 8
FRONT_ENDS = 2


def tls(bench: Bench) -> list[Contest]:
    """GET and PUT of the whole image by one curl; GETs by eight, of Mover with two front ends."""
    source = Image("source", bench.enter(qemu_nbd(bench.directory, bench.data)), bench.size_bytes)
    target = Image("target", bench.enter(nbdkit(bench.directory, "memory", str(bench.size_bytes))), bench.size_bytes)
    certificate = servers.make_certificate(bench.directory)
    https = [bench.enter(servers.mover(bench.directory, [source, target], certificate, FRONT_ENDS))]
    if bench.imageio:
        https.append(bench.enter(servers.imageio(bench.imageio, bench.directory, [source, target], certificate)))
    trust = ("--cacert", str(certificate.certificate))

    def get(http: HttpServer) -> Contender:
        run = partial(clients.curl_get, http.url("source"), bench.size_bytes, *trust)
        return Contender(http.name, "curl --output /dev/null HTTPS", run)

    def put(http: HttpServer) -> Contender:
        run = partial(clients.curl_put, f"{http.url('target')}?flush=n", bench.data, *trust)
        return Contender(http.name, "curl -T FILE HTTPS?flush=n", run)

    def together(http: HttpServer) -> Contender:
        commands = [clients.curl_to_null(http.url("source"), *trust)] * CONNECTIONS
        run = partial(clients.timed_together, commands)
        return Contender(http.name, f"{CONNECTIONS} x curl --output /dev/null HTTPS", run)

    size, all_bytes = bench.size_bytes, CONNECTIONS * bench.size_bytes
    return [
        Contest("GET, 1 connection", "MB/s", [as_rate(get(http), size) for http in https]),
        Contest("GET, 8 connections", "MB/s", [as_rate(together(http), all_bytes) for http in https]),
        Contest("PUT, 1 connection", "MB/s", [as_rate(put(http), size) for http in https]),
    ]

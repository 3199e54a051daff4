"""The row `stores`, its objects: an image into S3 and back through the library, beside OpenDAL by itself.

Both use the same OpenStack Swift, by its S3 API, with parts of one size and as many at a time. Mover's seconds are
curl's, with both digests made on the way; OpenDAL's are without the start of Python. `opendal, digests` makes
both, too, each in a thread, as Mover's worker does; `opendal` hashes nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mover.bench import clients, servers
from mover.bench import swift as swifts
from mover.bench.contest import Contender, Contest, as_rate
from mover.bench.library_data import Library
from mover.bench.row import Bench

BUCKET = "images"
MIB = 1024 * 1024
# S3's parts by default, four at a time; blocks of a download, as many.
PART_BYTES, BLOCK_BYTES, PARALLEL = 8 * MIB, 4 * MIB, 4
STORE = """\
[[store]]
type = "s3"
id = "s3"
endpoint = "{endpoint}"
bucket = "{bucket}"
credentials_file = "{credentials}"
"""
CREDENTIALS = "[default]\naws_access_key_id = {user}\naws_secret_access_key = {secret}\n"
OPENDAL = """\
import sys, time
from concurrent.futures import ThreadPoolExecutor
import opendal
import hashlib
direction, endpoint, bucket, key, secret, path, part, block, parallel = sys.argv[1:]
part, block, parallel = int(part), int(block), int(parallel)
s3 = opendal.Operator("s3", bucket=bucket, endpoint=endpoint, region="us-east-1", access_key_id=key,
                      secret_access_key=secret, disable_config_load="true", disable_ec2_metadata="true")
began = time.perf_counter()
if direction.startswith("in"):
    digests = [hashlib.md5(), hashlib.sha512()] if direction == "in, digests" else []
    hashing = [ThreadPoolExecutor(1) for digest in digests]
    with open(path, "rb") as source, s3.open("alone", "wb", chunk=part, concurrent=parallel) as target:
        while data := source.read(1 << 20):
            hashed = [thread.submit(digest.update, data) for thread, digest in zip(hashing, digests)]
            target.write(data)
            for one in hashed:
                one.result()
else:
    size = s3.stat("alone").content_length
    with ThreadPoolExecutor(parallel) as threads:
        spans = [(at, min(block, size - at)) for at in range(0, size, block)]
        if sum(threads.map(lambda span: len(s3.read("alone", offset=span[0], size=span[1])), spans)) != size:
            sys.exit("it is not whole")
print(time.perf_counter() - began)
"""


def objects(bench: Bench) -> list[Contest]:
    """An upload and a download; none where Swift is not installed."""
    if not swifts.is_there():
        return []
    # Swift keeps what it knows of objects in extended attributes, which not every place has that a bench runs in.
    room = Path(bench.enter(tempfile.TemporaryDirectory(prefix="swift-", dir="/var/tmp")))
    server = bench.enter(swifts.swift(room, BUCKET))
    credentials = room / "credentials"
    credentials.write_text(CREDENTIALS.format(user=swifts.USER, secret=swifts.SECRET))
    settings = STORE.format(endpoint=server.endpoint, bucket=BUCKET, credentials=credentials)
    held = Library(bench.enter(servers.mover(bench.directory, [], settings=settings)), bench)
    alone = partial(_alone, server, bench.data)
    image = held.new_image()
    clients.timed([*_curl(), "--upload-file", str(bench.data), held.url(image)])
    rate = partial(as_rate, moved_bytes=bench.size_bytes)
    return [
        Contest(
            "S3 upload",
            "MB/s",
            [
                rate(Contender("mover", "curl --upload-file FILE HTTP", lambda: held.upload(bench.data))),
                rate(Contender("opendal", "python: Operator.open(…, 'wb')", alone("in"))),
                rate(Contender("opendal, digests", "python: the same, and hashlib", alone("in, digests"))),
            ],
        ),
        Contest(
            "S3 download",
            "MB/s",
            [
                rate(
                    Contender(
                        "mover",
                        "curl --output /dev/null HTTP",
                        partial(clients.curl_get, held.url(image), bench.size_bytes),
                    )
                ),
                rate(Contender("opendal", "python: Operator.read(offset, size)", alone("out"))),
            ],
        ),
    ]


def _curl() -> list[str]:
    return clients.curl("--output", "/dev/null", "--header", "Content-Type: application/octet-stream")


def _alone(server: swifts.Swift, data: Path, direction: str) -> Callable[[], float]:
    """OpenDAL without Mover, in seconds."""
    about = [direction, server.endpoint, BUCKET, swifts.USER, swifts.SECRET, str(data)]
    command = [sys.executable, "-c", OPENDAL, *about, str(PART_BYTES), str(BLOCK_BYTES), str(PARALLEL)]
    return lambda: float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

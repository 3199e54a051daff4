"""The row `stores`, its transfers: a sparse library image by ticket, beside the same disk through qemu-nbd.

The client is imageio's, with four workers, or Mover's own where that is missing; the server is Mover for all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

from mover.bench import clients, servers
from mover.bench.client_row import FACTOR, IMAGEIO, WORKERS, write_sparse
from mover.bench.contest import Contender, Contest
from mover.bench.exports import qemu_nbd
from mover.bench.row import Bench
from mover.bench.servers import HttpServer, Image


def bridges(bench: Bench) -> list[Contest]:
    """A raw image, and one in qcow2, whose disk is seen."""
    size = FACTOR * bench.size_bytes
    source, qcow2, copy = (bench.directory / name for name in ("bridge-raw", "bridge-qcow2", "bridge-copy"))
    write_sparse(source, size, bench.size_bytes)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(source), str(qcow2)], check=True)
    by_nbd = {
        "raw": bench.enter(qemu_nbd(bench.directory, source, read_only=True)),
        "qcow2": bench.enter(qemu_nbd(bench.directory, qcow2, read_only=True, image_format="qcow2")),
    }
    mover = bench.enter(servers.mover(bench.directory, [Image(form, server, size) for form, server in by_nbd.items()]))
    found = []
    for form, file in (("raw", source), ("qcow2", qcow2)):
        ticket = _opened(mover, _image(mover, form, file), "download", None)["url"]
        contenders = [
            Contender("mover", "library image, by ticket", partial(_download, bench, ticket, copy)),
            Contender("qemu-nbd", "Mover over qemu-nbd", partial(_download, bench, mover.url(form), copy)),
        ]
        found.append(Contest(f"sparse {form} image by ticket, {WORKERS} connections", "s", contenders))
    return found


def _image(mover: HttpServer, form: str, file: Path) -> str:
    """The file as a library image, uploaded by a ticket, too."""
    image = _asked(mover, "POST", "/v2/images", {"disk_format": form, "container_format": "bare"})["id"]
    transfer = _opened(mover, image, "upload", file.stat().st_size)
    clients.timed([sys.executable, "-m", "mover", "upload", "--format=raw", str(file), transfer["url"]])
    _asked(mover, "DELETE", f"/v2/images/{image}/transfers/{transfer['id']}", None)
    return image


def _opened(mover: HttpServer, image: str, direction: str, size: int | None) -> dict[str, str]:
    wanted = {"direction": direction, "format": "raw" if size is None else "as-is", "timeout": 86400}
    return _asked(mover, "POST", f"/v2/images/{image}/transfers", wanted | ({} if size is None else {"size": size}))


def _asked(mover: HttpServer, method: str, path: str, body: object) -> dict[str, str]:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(mover.base_url + path, data, {"Content-Type": "application/json"}, method=method)) as answer:
        text = answer.read()
    found: dict[str, str] = json.loads(text) if text else {}
    return found


def _download(bench: Bench, url: str, copy: Path) -> float:
    copy.unlink(missing_ok=True)
    command = [sys.executable, "-m", "mover", "download", f"--max-workers={WORKERS}", "--format=raw", url, str(copy)]
    if bench.imageio is not None:
        program = IMAGEIO.format(workers=WORKERS)
        command = [str(bench.imageio.parent / "python"), "-c", program, "download", url, str(copy), "raw"]
    return clients.timed(command)[0]

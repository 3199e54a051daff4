"""An export: where an NBD server serves a disk, or the file that holds one, and the URLs that name one."""

from __future__ import annotations

import hashlib
from typing import Literal
from urllib.parse import quote

import msgspec

# Of the library, and of nobody else: no URL names one.
OF_LIBRARY = ("store", "object", "view", "part", "http")


class Export(msgspec.Struct, frozen=True):
    """An NBD export, or a file. Two exports with the same `key` are the same disk and share one worker.

    `transport` is "unix" (then `socket` is the server's path), "tcp" (then `host` and `port`), "file" (then `path`),
    "store" (then `name` is a store of library images, and `path` the image that comes in, empty for all that concerns
    the store itself), "object" (then `name` is a store, and `path` one of its objects, which is read only and never
    changes), "view" (then `path` is a library image's file, and `name` its disk format, qcow2, vmdk, vdi, vhd or vhdx:
    the disk that is in it, read only), "part" (then `path` is the file of a library image that is not there yet, and is
    written at random) or "http" (then `path` is a URL, which is read only; `version` is what the source must be, as a
    worker has told it before (ImageFacts.version), or empty for whatever it is now); `name` is the export's name at the
    server. A file is a raw disk whose bytes stand where they stand, unless `whole_file`: then it is something (qcow2,
    anything) that is read as it is and replaced as a whole, as CloudStack's transfers mean their files. A `frozen` file
    is a library image's: it is read only, and never changes; who has it open reads on when its name goes. `bitmap`
    names the dirty bitmap that `context=dirty` reports, if any.
    `tls` asks for NBD over TLS; `tls_certificates` is a directory as libnbd wants it, `tls_psk_file` and
    `tls_username` are for pre-shared keys.
    """

    transport: Literal["unix", "tcp", "file", "store", "object", "view", "part", "http"]
    socket: str = ""
    host: str = ""
    port: int = 10809
    name: str = ""
    bitmap: str | None = None
    tls: bool = False
    tls_certificates: str | None = None
    tls_psk_file: str | None = None
    tls_username: str | None = None
    path: str = ""
    whole_file: bool = False
    frozen: bool = False
    version: str = ""

    @property
    def of_library(self) -> bool:
        """It is a library image's, or a store's: one of very many, each used once in a while, none written in place."""
        return self.frozen or self.transport in OF_LIBRARY

    @property
    def key(self) -> str:
        """The canonical address and export name: what a worker is for. Bitmaps do not take part.

        It is a URL, percent-encoded: plain text would make one key of socket `/a` with name `b/c` and socket
        `/a/b` with name `c`, and so one worker of two disks.
        """
        if self.transport == "file":
            return f"file://{quote(self.path)}{'?whole' if self.whole_file else '?frozen' if self.frozen else ''}"
        if self.transport == "http":
            # A query may be a signature, and keys stand in logs.
            shown, mark, _ = self.path.partition("?")
            digest = hashlib.sha256(f"{self.path} {self.version}".encode()).hexdigest()[:32]
            scheme, _, place = shown.partition("://")
            place = place.rpartition("@")[2]  # nor is a password shown, of a URL that nobody will read
            return f"{quote(scheme)}://{quote(place, safe=':/[]%')}{'?…' if mark else ''}#{digest}"
        if self.transport in OF_LIBRARY:
            return f"{self.transport}:///{quote(self.name, safe='')}/{quote(self.path, safe='')}"
        scheme = "nbds" if self.tls else "nbd"
        name = quote(self.name, safe="")
        if self.transport == "unix":
            return f"{scheme}+unix:///{name}?socket={quote(self.socket)}"
        host = f"[{quote(self.host, safe=':')}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{name}"

"""An export: where an NBD server serves a disk, and the URLs that name one."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

import msgspec


class Export(msgspec.Struct, frozen=True):
    """An NBD export. Two exports with the same `key` are the same disk and share one worker.

    `transport` is "unix" (then `socket` is the server's path) or "tcp" (then `host` and `port`); `name` is the
    export's name at the server. `bitmap` names the dirty bitmap that `context=dirty` reports, if any.
    `tls` asks for NBD over TLS; `tls_certificates` is a directory as libnbd wants it, `tls_psk_file` and
    `tls_username` are for pre-shared keys.
    """

    transport: Literal["unix", "tcp"]
    socket: str = ""
    host: str = ""
    port: int = 10809
    name: str = ""
    bitmap: str | None = None
    tls: bool = False
    tls_certificates: str | None = None
    tls_psk_file: str | None = None
    tls_username: str | None = None

    @property
    def key(self) -> str:
        """The canonical address and export name: what a worker is for. Bitmaps do not take part.

        It is a URL, percent-encoded: plain text would make one key of socket `/a` with name `b/c` and socket
        `/a/b` with name `c`, and so one worker of two disks.
        """
        scheme = "nbds" if self.tls else "nbd"
        name = quote(self.name, safe="")
        if self.transport == "unix":
            return f"{scheme}+unix:///{name}?socket={quote(self.socket)}"
        host = f"[{quote(self.host, safe=':')}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{name}"

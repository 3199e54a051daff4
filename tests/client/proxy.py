"""A TCP proxy that harms what passes: cuts connections at chosen or random places, flips a bit, is away for a while."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading

from tests.harness.http import Address, connect

BLOCK = 65536


class Proxy:
    """Listens on a port of its own; its URLs lead to the same images. A context manager."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._luck = random.Random(1)
        self._cut_every: int | None = None
        self._flip_after: int | None = None
        self._flip_sent_after: int | None = None
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self.cuts = 0
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, image: str) -> str:
        """Where an image is, through this proxy. Another address than the server's: no Unix socket is taken."""
        return f"http://127.0.0.1:{self.port}/images/{image}"

    def cut(self, every: int | None) -> None:
        """Break a connection after about so many bytes, in whichever direction; None: no more."""
        self._cut_every = every

    def flip(self, after: int) -> None:
        """Flip one bit, once, of what the server sends, after so many bytes on one connection."""
        self._flip_after = after

    def flip_sent(self, after: int) -> None:
        """The same of what a client sends."""
        self._flip_sent_after = after

    def cut_all(self) -> None:
        """Break every connection there is."""
        with self._lock:
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._listener.close()
        self.cut_all()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        try:
            server = connect(self._address)
        except OSError:
            client.close()
            return
        with self._lock:
            self._ends += [client, server]
            left = self._next_cut()
        with client, server:
            came = went = 0
            with contextlib.suppress(OSError):
                while True:
                    for source in select.select([client, server], [], [])[0]:
                        block = bytearray(source.recv(BLOCK))
                        if not block:
                            return
                        if source is server:
                            self._maybe_flip(block, came)
                            came += len(block)
                        else:
                            self._maybe_flip_sent(block, went)
                            went += len(block)
                        left -= len(block)
                        if left < 0:
                            with self._lock:
                                self.cuts += 1
                            return
                        (server if source is client else client).sendall(block)
        with self._lock:
            self._ends.remove(client)
            self._ends.remove(server)

    def _next_cut(self) -> int:
        return 1 << 60 if self._cut_every is None else self._luck.randrange(self._cut_every // 4, 2 * self._cut_every)

    def _maybe_flip(self, block: bytearray, came: int) -> None:
        with self._lock:
            if self._flip_after is not None and came <= self._flip_after < came + len(block):
                block[self._flip_after - came] ^= 1
                self._flip_after = None

    def _maybe_flip_sent(self, block: bytearray, went: int) -> None:
        with self._lock:
            if self._flip_sent_after is not None and went <= self._flip_sent_after < went + len(block):
                block[self._flip_sent_after - went] ^= 1
                self._flip_sent_after = None

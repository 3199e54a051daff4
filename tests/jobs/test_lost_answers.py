"""A database whose answer to COMMIT is lost, or that never heard of it, at each step of a job and an upload."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.harness.mover import Mover
from tests.harness.postgres import Postgres
from tests.jobs.jobs import Jobs, tables
from tests.jobs.test_imports import DATA, assert_whole, served

pytestmark = pytest.mark.nbd

SOCKET = ".s.PGSQL.5432"


class Wire:
    """Between Mover and the database. `lose` waits for the next transaction in which `word` is said: at its COMMIT the
    connection breaks, after the database has done it, or before it hears of it.
    """

    def __init__(self, database: Path, own: Path) -> None:
        self._database = database
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(own))
        self._listener.listen(64)
        self._lock = threading.Lock()
        self._word: bytes | None = None
        self._done = False
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, word: str, done: bool) -> None:
        with self._lock:
            self._word, self._done = word.encode(), done

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._database))
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._return, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        said = b""
        with client, server, contextlib.suppress(OSError):
            while piece := client.recv(65536):
                said += piece
                if b"COMMIT\0" in piece:
                    if self._is_lost(said):
                        self._break(client, server, piece)
                        return
                    said = b""
                elif b"ROLLBACK\0" in piece:
                    said = b""
                server.sendall(piece)
            server.shutdown(socket.SHUT_RDWR)

    def _is_lost(self, said: bytes) -> bool:
        with self._lock:
            if self._word is None or self._word not in said:
                return False
            self._word = None
            self.lost += 1
            return True

    def _break(self, client: socket.socket, server: socket.socket, piece: bytes) -> None:
        client.shutdown(socket.SHUT_RDWR)  # whatever comes back reaches nobody
        if self._done:
            server.sendall(piece)
            server.shutdown(socket.SHUT_WR)  # it does what it was told, then sees the end
            while server.recv(65536):
                pass
        else:
            server.shutdown(socket.SHUT_RDWR)

    def _return(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(65536):
                client.sendall(piece)


@contextmanager
def wired(postgres: Postgres, room: Path) -> Iterator[tuple[Jobs, Wire]]:
    """A service whose database is behind a wire."""
    url = urlsplit(postgres.database())
    directory = Path(parse_qs(url.query)["host"][0])
    own = room / "wire"
    own.mkdir()
    wire = Wire(directory / SOCKET, own / SOCKET)
    database = f"{url.scheme}://{url.netloc}{url.path}?host={quote(str(own), safe='')}"
    mover = Mover(room, {}, tables(room, database=database))
    try:
        yield Jobs(mover.start(), room), wire
        mover.stop_clean()
    finally:
        mover.close()
        wire.close()


# What is said in the transaction that is lost, and whose answer it is.
STEPS = {
    "an upload is registered": "INTO image_locations",
    "a job begins": "INTO image_jobs",
    "a job is claimed": "tries=",
    "a copy is noted": "outcome=",
    "an import is registered": "INTO image_locations",
    "a copy is registered": "INTO image_locations",
}


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_what_a_lost_answer_leaves_open_is_found_out(
    postgres: Postgres, room: Path, endings: ExitStack, done: bool
) -> None:
    """Whatever was asked is done once, and whole; only a job that was to begin may be answered with 503."""
    source = served(room, "source", DATA, endings, read_only=True)
    with wired(postgres, room) as (jobs, wire):
        for number, (step, word) in enumerate(STEPS.items(), 1):
            image = jobs.create()["id"]
            if step == "a copy is registered":
                assert jobs.upload(image, DATA).status == 204
            wire.lose(word, done)
            if step == "an upload is registered":
                assert jobs.upload(image, DATA).status == 204
                stores = ["near"]
            elif step == "a copy is registered":
                stores = ["near", "far"]
                assert jobs.ended(jobs.begun(image, "copy-image", stores=["far"]))["state"] == "done"
            else:
                stores = ["near"]
                assert jobs.ended(begun(jobs, image, source.uri(), done))["state"] == "done", step
            assert wire.lost == number, step
            assert_whole(jobs, image, DATA, *stores)
            assert jobs.ask("DELETE", f"/v2/images/{image}").status == 204
            jobs.wait_for_files(image)


def begun(jobs: Jobs, image: str, source: str, done: bool) -> str:
    """The id of a job, which the client of a lost answer finds, or asks for again."""
    answer = jobs.begin(image, "disk", source=source)
    if answer.status == 202:
        return answer.headers["location"].rpartition("/")[2]
    assert answer.status == 503, answer
    found = jobs.ask("GET", f"/v2/images/{image}/tasks").json()["tasks"]
    assert len(found) == done
    return str(found[0]["id"]) if done else jobs.begun(image, "disk", source=source)

"""A double of WebHDFS, kept honest by Hadoop's documents: no HDFS can be had from Debian's packages.

It keeps files in memory, and does of the REST API what a name node and a data node do: CREATE in two steps
(`noredirect=true` answers with the data node's location), OPEN with a redirect, GETFILESTATUS, LISTSTATUS and
LISTSTATUS_BATCH, MKDIRS, DELETE, CONCAT, RENAME; errors are RemoteExceptions. A body that breaks off leaves what has
come. `quota_bytes` is a space quota; `token`, where it is not empty, is the delegation token that every request must
have.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from posixpath import dirname
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

STATUSES = {"FileNotFoundException": 404, "AccessControlException": 403, "IllegalArgumentException": 400}
HADOOP_ILLEGAL = "HadoopIllegalArgumentException"
QUOTA, EXISTS = "DSQuotaExceededException", "FileAlreadyExistsException"
BATCH = 100
BEGINNING_MS = 1_700_000_000_000


@dataclass
class Hdfs:
    """The files of one name node; paths are absolute."""

    endpoint: str = ""
    token: str = ""
    quota_bytes: int | None = None
    files: dict[str, bytearray] = field(default_factory=dict)
    directories: set[str] = field(default_factory=lambda: {"/"})
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    # Whether a request has been answered otherwise: by a test that wants trouble.
    fault: Callable[[Node, str], bool] = lambda node, operation: False

    def names(self, directory: str) -> list[str]:
        """The files below a directory."""
        return sorted(path.removeprefix(f"{directory}/") for path in self.files if path.startswith(f"{directory}/"))


class RemoteError(Exception):
    """What HDFS throws: an exception's name."""


class Node(BaseHTTPRequestHandler):
    """One request to the name node, or, below /data, to a data node."""

    protocol_version = "HTTP/1.0"  # a connection for each: none is open when a test ends
    hdfs: Hdfs
    # What a fault may want of an answer: none at all, or only the beginning of its body.
    is_mute = False
    cut_at: int | None = None

    def handle_any(self) -> None:
        """Answer as HDFS does."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        if self.hdfs.fault(self, query.get("op", "")):
            return
        with self.hdfs.lock:
            self.hdfs.requests.append(f"{self.command} {query.get('op', '')} {url.path}")
            try:
                self._answer(url.path, query, body)
            except RemoteError as error:
                name = str(error)
                said = {"exception": name, "javaClassName": f"org.apache.hadoop.{name}", "message": "it says"}
                self._send(STATUSES.get(name, 403), {"RemoteException": said})

    do_GET = do_PUT = do_POST = do_DELETE = handle_any

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> None:
        hdfs = self.hdfs
        if hdfs.token and query.get("delegation") != hdfs.token:
            raise RemoteError("AccessControlException")
        at_data_node = path.startswith("/data/")
        file = "/" + path.removeprefix("/data" if at_data_node else "/webhdfs/v1").strip("/")
        operation = query["op"]
        if operation == "CREATE" and not at_data_node:
            where = f"{hdfs.endpoint}/data{quote(file)}?{urlsplit(self.path).query}"
            self._send(200, {"Location": where})
            return
        if operation == "OPEN" and not at_data_node:
            self._file(file)
            self._send(307, None, Location=f"{hdfs.endpoint}/data{quote(file)}?{urlsplit(self.path).query}")
            return
        getattr(self, f"_{operation.lower()}")(file, query, body)

    def _file(self, file: str) -> bytearray:
        try:
            return self.hdfs.files[file]
        except KeyError:
            raise RemoteError("FileNotFoundException") from None

    def _room(self, more: int) -> None:
        quota = self.hdfs.quota_bytes
        if quota is not None and sum(map(len, self.hdfs.files.values())) + more > quota:
            raise RemoteError(QUOTA)

    def _create(self, file: str, query: dict[str, str], body: bytes) -> None:
        if file in self.hdfs.directories:
            raise RemoteError(EXISTS)
        self._room(len(body))
        self._mkdirs_of(dirname(file))
        self.hdfs.files[file] = bytearray(body)
        self._send(201, None)

    def _concat(self, file: str, query: dict[str, str], body: bytes) -> None:
        sources, target = query["sources"].split(","), self._file(file)
        found = [self._file(source) for source in sources]
        elsewhere = [source for source in sources if dirname(source) != dirname(file) or source == file]
        if elsewhere or len(set(sources)) < len(sources) or not all((target, *found)):
            raise RemoteError(HADOOP_ILLEGAL)
        for source, data in zip(sources, found, strict=True):
            target.extend(data)
            del self.hdfs.files[source]
        self._send(200, None)

    def _rename(self, file: str, query: dict[str, str], body: bytes) -> None:
        to = query["destination"]
        done = file in self.hdfs.files and to not in self.hdfs.files and dirname(to) in self.hdfs.directories
        if done:
            self.hdfs.files[to] = self.hdfs.files.pop(file)
        self._send(200, {"boolean": done})

    def _open(self, file: str, query: dict[str, str], body: bytes) -> None:
        data = self._file(file)
        offset = int(query.get("offset", 0))
        if offset > len(data):
            raise RemoteError("IllegalArgumentException")
        self._send_bytes(200, bytes(data[offset : offset + int(query.get("length", len(data)))]))

    def _status(self, path: str) -> dict[str, Any]:
        size = len(self.hdfs.files.get(path, b""))
        if path not in self.hdfs.files and path not in self.hdfs.directories:
            raise RemoteError("FileNotFoundException")
        kind = "FILE" if path in self.hdfs.files else "DIRECTORY"
        return {
            "accessTime": 0,
            "blockSize": 134217728,
            "group": "g",
            "owner": "o",
            "permission": "644",
            "length": size,
            "modificationTime": BEGINNING_MS,
            "replication": 1,
            "type": kind,
            "pathSuffix": "",
        }

    def _getfilestatus(self, file: str, query: dict[str, str], body: bytes) -> None:
        self._send(200, {"FileStatus": self._status(file)})

    def _listed(self, file: str) -> list[dict[str, Any]]:
        self._status(file)
        below = file.rstrip("/") + "/"
        found = {path for path in (*self.hdfs.files, *self.hdfs.directories) if path.startswith(below)}
        direct = sorted(path for path in found if path != below and "/" not in path[len(below) :])
        return [self._status(path) | {"pathSuffix": path[len(below) :]} for path in direct]

    def _liststatus(self, file: str, query: dict[str, str], body: bytes) -> None:
        self._send(200, {"FileStatuses": {"FileStatus": self._listed(file)}})

    def _liststatus_batch(self, file: str, query: dict[str, str], body: bytes) -> None:
        after = [one for one in self._listed(file) if one["pathSuffix"] > query.get("startAfter", "")]
        partial = {"FileStatuses": {"FileStatus": after[:BATCH]}}
        self._send(200, {"DirectoryListing": {"partialListing": partial, "remainingEntries": len(after[BATCH:])}})

    def _mkdirs_of(self, path: str) -> None:
        while path not in self.hdfs.directories:
            self.hdfs.directories.add(path)
            path = dirname(path)

    def _mkdirs(self, file: str, query: dict[str, str], body: bytes) -> None:
        self._mkdirs_of(file)
        self._send(200, {"boolean": True})

    def _delete(self, file: str, query: dict[str, str], body: bytes) -> None:
        hdfs, below = self.hdfs, f"{file}/"
        found = [path for path in (*hdfs.files, *hdfs.directories) if path == file or path.startswith(below)]
        if query.get("recursive") != "true" and found not in ([], [file]):
            raise RemoteError("PathIsNotEmptyDirectoryException")
        for path in found:
            hdfs.files.pop(path, None)
            hdfs.directories.discard(path)
        self._send(200, {"boolean": bool(found)})

    def fail(self, status: int) -> bool:
        """The fault's own answer."""
        self._send(status, None)
        return True

    def _send(self, status: int, said: dict[str, Any] | None, **headers: str) -> None:
        self._send_bytes(status, b"" if said is None else json.dumps(said).encode(), **headers)

    def _send_bytes(self, status: int, data: bytes, **headers: str) -> None:
        if self.is_mute:
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: self.cut_at])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


class _Server(ThreadingHTTPServer):
    """With room for clients that come at once: five, as the library has it, make them wait for seconds."""

    daemon_threads = True
    request_queue_size = 128


@contextmanager
def webhdfs() -> Iterator[Hdfs]:
    """A name node without files."""

    class Here(Node):
        hdfs = Hdfs()

    with _Server(("127.0.0.1", 0), Here) as server:
        Here.hdfs.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Here.hdfs
        finally:
            server.shutdown()
            thread.join()

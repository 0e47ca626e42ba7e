"""Blob storage as a download sees it: ranges, entity tags, checksums, and faults on demand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import quote, unquote, urlsplit

from himl_container.azureml.remote_files import RemoteFile

SIGNATURE = "sig=very-secret"


@dataclass
class Blob:
    data: bytes
    modified: float = 1_700_000_000
    has_md5: bool = True
    encoding: str = ""

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha1(self.data).hexdigest()[:16]}"'


@dataclass(frozen=True)
class Asked:
    """A request. :param first: and :param last: of the range."""

    name: str
    first: int
    last: int
    signature: str
    checked: bool


@dataclass(frozen=True)
class Fault:
    """What happens instead. :param status: of the answer, where it is a refusal; :param cut: after so many bytes the
    connection is closed; :param damage: the first byte is another one; :param before: called first."""

    status: int = 0
    cut: int | None = None
    damage: bool = False
    before: Callable[[], None] | None = None


@dataclass
class BlobServer:
    address: str = ""
    blobs: dict[str, Blob] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    fault: Callable[[Asked], Fault | None] = lambda asked: None
    signature: str = SIGNATURE
    lock: threading.Lock = field(default_factory=threading.Lock)

    def file(self, name: str, *, signature: str = SIGNATURE, renewable: bool = False) -> RemoteFile:
        base = f"{self.address}/container/{quote(name)}?"
        return RemoteFile(name, base + signature, (lambda: base + self.signature) if renewable else None)

    def files(self) -> list[RemoteFile]:
        return [self.file(name) for name in self.blobs]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        state: BlobServer = self.server.state  # type: ignore[attr-defined]
        asked = self._asked()
        with state.lock:
            state.asked.append(asked)
            fault = state.fault(asked) or Fault()
        if fault.before:
            fault.before()
        blob = state.blobs.get(asked.name)
        if fault.status or blob is None or asked.signature != state.signature:
            self._refuse(fault.status or (404 if blob is None else 403))
        elif self.headers.get("If-Match") not in (None, blob.etag):
            self._refuse(412)
        elif asked.first >= len(blob.data):
            self._refuse(416, {"Content-Range": f"bytes */{len(blob.data)}"})
        else:
            self._send(state, asked, fault, blob)

    def _asked(self) -> Asked:
        parts = urlsplit(self.path)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(found[1]), int(found[2])) if found else (0, 1 << 60)
        name = unquote(parts.path).removeprefix("/container/")
        return Asked(name, first, last, parts.query, "x-ms-range-get-content-md5" in self.headers)

    def _send(self, state: BlobServer, asked: Asked, fault: Fault, blob: Blob) -> None:
        body = blob.data[asked.first : asked.last + 1]
        headers = {
            "Content-Range": f"bytes {asked.first}-{asked.first + len(body) - 1}/{len(blob.data)}",
            "Content-Length": str(len(body)),
            "ETag": blob.etag,
            "Last-Modified": formatdate(blob.modified, usegmt=True),
        }
        headers |= {"x-ms-blob-content-md5": _md5(blob.data)} if blob.has_md5 else {}
        headers |= {"Content-MD5": _md5(body)} if asked.checked else {}
        headers |= {"Content-Encoding": blob.encoding} if blob.encoding else {}
        if fault.damage:
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault.cut is not None:
            body = body[: fault.cut]
            self.close_connection = True
        self._head(206, headers)
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def _refuse(self, status: int, headers: dict[str, str] | None = None) -> None:
        self._head(status, {**(headers or {}), "Content-Length": "0"})

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        return


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is a part of these tests."""


@contextlib.contextmanager
def blob_server(**blobs: bytes) -> Iterator[BlobServer]:
    """Serve blobs on the loopback interface."""
    server = _Server(("127.0.0.1", 0), _Handler)
    state = BlobServer(f"http://127.0.0.1:{server.server_address[1]}", {name: Blob(blobs[name]) for name in blobs})
    server.state = state  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()

"""Sending blobs: started, sent in chunks, resumed where the registry stopped, and compared with what it then has.

A blob of up to 32 MiB goes in one request (POST, PUT), a larger one in chunks of that size (POST, PATCH..., PUT).
32 MiB because a chunk is what has to be sent again when a registry keeps nothing of a broken one (three seconds of a
100 Mbit/s line), because it stays below the usual limits of proxies in front of registries (100 MB), and because the
round trip after it is then below a tenth of the chunk's time on a 1 Gbit/s line.

Where an upload broke, the registry is asked how much of it it has. Registries that keep nothing of a chunk that came in
part go on with that chunk; the ``distribution`` server (up to 2.8 at least) gives such an upload up, and it is begun
again, unless the blob turns out to be there.

The location at which an upload continues is the registry's word; only addresses of the registry itself are accepted
(:func:`himl_container.registry.headers.location`), because it gets the layer and the login.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from himl_container.errors import RegistryError, StorageError
from himl_container.registry.access import Access
from himl_container.registry.answers import Answer, Body, Request
from himl_container.registry.api import Sent
from himl_container.registry.headers import error_codes, error_text, location, parse_upload_range, printable
from himl_container.registry.model import Descriptor
from himl_container.registry.retries import Failure, RetryableError

CHUNK = 32 << 20
"""Bytes of a chunk, and of the largest blob that is sent in one request."""
_PIECE = 256 << 10
_UNUSABLE = frozenset({400, 404, 409, 416})
"""Answers to a part of an upload after which the upload is begun again, or continued where the registry says."""


class Source(Protocol):
    """What is to be uploaded; can be read from any place, any number of times."""

    def read(self, start: int, length: int) -> Iterator[bytes]:
        """Yield a part in pieces."""

    def digest(self) -> str:
        """Return the digest of what is really there."""


@dataclass(frozen=True)
class FileSource:
    """A file; read in pieces, so that its size does not matter."""

    path: Path

    def read(self, start: int, length: int) -> Iterator[bytes]:
        """Yield a part in pieces.

        :raises StorageError: the file cannot be read, or has become shorter.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                while length:
                    piece = file.read(min(_PIECE, length))
                    if not piece:
                        raise StorageError("The file became shorter while it was sent", where=str(self.path))
                    length -= len(piece)
                    yield piece
        except OSError as error:
            raise StorageError(f"The file cannot be read: {error.strerror}", where=str(self.path)) from error

    def digest(self) -> str:
        """Return the digest of what is really there."""
        value = hashlib.sha256()
        for piece in self.read(0, self.path.stat().st_size):
            value.update(piece)
        return f"sha256:{value.hexdigest()}"


@dataclass(frozen=True)
class BytesSource:
    """Bytes in memory."""

    data: bytes

    def read(self, start: int, length: int) -> Iterator[bytes]:
        """Yield a part in pieces."""
        for position in range(start, start + length, _PIECE):
            yield self.data[position : min(position + _PIECE, start + length)]

    def digest(self) -> str:
        """Return the digest of what is really there."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"


class Upload:
    """One blob on its way into a repository. Used by one thread.

    :param begun: the location of an upload that the registry has begun already (a mount that it did not make).
    :param verify: called after the registry said that it has the blob; raises when it does not.
    :param arrived: whether the repository has the blob; asked when a broken upload is gone, because then the answer
        to its last request may have been lost.
    """

    def __init__(
        self,
        access: Access,
        descriptor: Descriptor,
        source: Source,
        *,
        arrived: Callable[[], bool],
        verify: Callable[[], None],
        begun: str = "",
        sent: Sent | None = None,
        chunk: int = CHUNK,
    ) -> None:
        self._access = access
        self._descriptor = descriptor
        self._source = source
        self._arrived = arrived
        self._verify = verify
        self._sent = sent
        self._chunk = chunk
        self._what = f"Upload of {descriptor.digest[:19]} ({descriptor.size} bytes)"
        self._where = access.where
        self._location = begun
        self._offset = 0
        self._told = 0
        self._broken: Failure | None = None

    def run(self) -> None:
        """Send the blob.

        A try that got further than any before does not count: a large layer over a bad line arrives in the end.

        :raises RegistryError: it cannot be sent, or the registry then has something else.
        :raises StorageError: it cannot be read.
        """
        attempt, furthest = 1, 0
        while True:
            try:
                if not self._send():
                    self._verify()
                self._tell(self._descriptor.size)
                return
            except RetryableError as error:  # noqa: PERF203
                self._broken = error.failure
                attempt = 1 if self._offset > furthest else attempt
                furthest = max(furthest, self._offset)
                self._access.transport.patience.again(self._what, self._where, error.failure, attempt)
                attempt += 1

    def _send(self) -> bool:
        """Send what the registry does not have yet. Return whether it had everything already."""
        size = self._descriptor.size
        if self._broken is not None and self._location:
            if self._has_arrived(self._broken):
                return True
            self._broken = None
        if not self._location:
            self._begin()
        if self._offset == 0 and size <= self._chunk:
            self._finish(self._body(0, size))
            return False
        while self._offset < size:
            self._send_chunk(min(self._chunk, size - self._offset))
        self._finish(None)
        return False

    def _begin(self) -> None:
        answer = self._asked("POST", self._access.path("blobs/uploads/"), expect=(202,))
        self._location = location(answer.headers.get("Location"), answer.url)
        self._offset = 0
        smallest = answer.headers.get("OCI-Chunk-Min-Length", "")
        if smallest.isascii() and smallest.isdigit() and len(smallest) < 16:
            self._chunk = max(self._chunk, int(smallest))

    def _has_arrived(self, broken: Failure) -> bool:
        """Find out where an upload that broke stands, and whether all of it is there.

        A full disk leaves ``distribution`` a link that it cannot read, and it answers 500 when it is asked then: what
        helps the reader is why the upload broke.
        """
        try:
            return not self._resume() and self._arrived()
        except RegistryError as error:
            error.what += f"; the upload had failed before: {printable(broken.text)}"
            error.hint = broken.hint or error.hint
            raise

    def _resume(self) -> bool:
        """Ask how much the registry has of an upload that broke; forget the upload when it is gone."""
        answer = self._asked("GET", self._location, expect=(200, 202, 204, *_UNUSABLE))
        has = None if answer.status in _UNUSABLE else parse_upload_range(answer.headers.get("Range"))
        if has is None or has > self._descriptor.size:
            self._location, self._offset = "", 0
            return False
        self._move(answer, has)
        return True

    def _send_chunk(self, length: int) -> None:
        end = self._offset + length
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{self._offset}-{end - 1}"}
        body = self._body(self._offset, length)
        answer = self._once("PATCH", self._location, (202, *_UNUSABLE), headers, body)
        if answer.status in _UNUSABLE:
            self._unusable(answer)
        has = parse_upload_range(answer.headers.get("Range")) if "Range" in answer.headers else end
        if has is None or not self._offset < has <= end:
            self._location = ""
            raise RetryableError(Failure(f"the registry says that it has {has} bytes after {end} were sent"))
        self._move(answer, has)

    def _finish(self, body: Body | None) -> None:
        digest = self._descriptor.digest
        target = f"{self._location}{'&' if '?' in self._location else '?'}digest={quote(digest, safe='')}"
        headers = {"Content-Type": "application/octet-stream"}
        answer = self._once("PUT", target, (201, 204, *_UNUSABLE), headers, body)
        if answer.status in _UNUSABLE:
            self._unusable(answer)
        reported = answer.headers.get("Docker-Content-Digest")
        if reported is not None and reported.startswith("sha256:") and reported != digest:
            raise RegistryError(f"The registry stored {digest} as {reported[:80]!r}", where=self._where)

    def _unusable(self, answer: Answer) -> None:
        """Decide what a refused part means.

        :raises RetryableError: the upload is begun again, or continued where the registry says.
        :raises RegistryError: what we have is not what we say.
        """
        if answer.status != 416:
            self._location, self._offset = "", 0
        if "DIGEST_INVALID" in error_codes(answer.data):
            found = self._source.digest()
            if found != self._descriptor.digest:
                raise RegistryError(
                    f"What is to be sent is not what it should be: {found} instead of {self._descriptor.digest}",
                    where=self._where,
                    hint="The disk or another program changed it; 'himl-container cache prune' removes it.",
                )
        said = error_text(answer.data)
        raise RetryableError(Failure(f"the registry answered {answer.status}{f', {said}' if said else ''}"))

    def _move(self, answer: Answer, offset: int) -> None:
        if answer.headers.get("Location"):
            self._location = location(answer.headers.get("Location"), answer.url)
        self._offset = offset

    def _body(self, start: int, length: int) -> Body:
        def pieces() -> Iterator[bytes]:
            self._tell(start)
            for piece in self._source.read(start, length):
                yield piece
                self._tell(self._told + len(piece))

        return Body(pieces, length)

    def _tell(self, position: int) -> None:
        if self._sent is not None and position != self._told:
            self._sent(position - self._told)
        self._told = position

    def _asked(self, method: str, target: str, expect: tuple[int, ...]) -> Answer:
        """Send a request that carries nothing of the blob: it has tries of its own, those of the blob are for sending.

        With the same few tries for all of it, every third request that fails would end one of thirty blobs.
        """
        access = self._access
        return access.transport.request(Request(method, target, self._what, scope=access.push, expect=expect))

    def _once(
        self, method: str, target: str, expect: tuple[int, ...], headers: Mapping[str, str], body: Body | None
    ) -> Answer:
        access = self._access
        return access.transport.once(Request(method, target, self._what, access.push, headers, body, expect))

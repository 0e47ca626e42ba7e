"""Reading parts of blobs over signed addresses.

Every answer tells the blob's size and entity tag, so that parts of different contents are never put
together.
Exceptions name the file and never its address, which is as good as a key.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from himl_container.azureml.remote_files import RemoteFile
from himl_container.errors import AzureMLError

if TYPE_CHECKING:
    import requests

LARGEST_CHECKED = 4 << 20
"""Bytes of the largest range of which blob storage tells the MD5 (``x-ms-range-get-content-md5``)."""

_PIECE = 1 << 20
_TIMEOUT = (20.0, 60.0)
"""Seconds to connect, and between two arrivals."""
_FORBIDDEN, _MISSING, _CHANGED, _NO_SUCH_RANGE = 403, 404, 412, 416


class InterruptedTransfer(AzureMLError, ConnectionError):  # noqa: N818
    """The connection was lost, or brought something else than was sent; another try may do better."""

    def __init__(self, what: str) -> None:
        super().__init__(what, hint="Look at the network, and try again: what has arrived is kept.")


class ChangedFile(AzureMLError):  # noqa: N818
    """The file is another one than that of which earlier parts were read."""


class RefusedRead(AzureMLError):  # noqa: N818
    """Blob storage refused to give a part of a file.

    :param status_code: of the answer; :param response: its headers say when to come back.
    """

    def __init__(self, what: str, status_code: int, response: object, *, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.status_code, self.response = status_code, response


@dataclass(frozen=True)
class Facts:
    """What blob storage says about a file.

    :param size: in bytes. :param etag: changes with the content. :param md5: of the whole content, where it is known.
    :param modified: seconds since 1970 of the last change; 0 where it is not told.
    """

    size: int
    etag: str
    md5: bytes = b""
    modified: float = 0.0


@dataclass(frozen=True)
class Piece:
    """A part of a file. :param first: place of its first byte. :param md5: of this part, where it was asked for."""

    facts: Facts
    first: int
    length: int
    md5: bytes
    _answer: Any

    def chunks(self, *, check: bool) -> Iterator[bytes]:
        """Yield the bytes.

        :param check: compare them with the MD5 that the answer has.
        :raises InterruptedTransfer: they are not all there, or not those that were sent.
        """
        from urllib3.exceptions import HTTPError

        digest, count = hashlib.md5(usedforsecurity=False), 0
        # As stored: a file that was uploaded with a Content-Encoding must not be unpacked on the way.
        pieces = self._answer.raw.stream(_PIECE, decode_content=False) if self.length else ()
        try:
            for chunk in pieces:
                count += len(chunk)
                if count > self.length:
                    break
                if check:
                    digest.update(chunk)
                yield chunk
        except (HTTPError, OSError) as error:
            raise InterruptedTransfer(f"the connection was lost after {count} bytes ({type(error).__name__})") from None
        if count != self.length:
            raise InterruptedTransfer(f"{count} bytes came where {self.length} were told")
        if check and self.md5 and digest.digest() != self.md5:
            raise InterruptedTransfer("the bytes that came do not agree with their MD5")


class BlobReader:
    """Reads files over one pool of connections; may be used by several threads.

    :param connections: at most so many at a time are kept.
    """

    def __init__(self, connections: int) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._session = requests.Session()
        self._session.mount("https://", HTTPAdapter(pool_connections=4, pool_maxsize=connections))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    @contextlib.contextmanager
    def read(
        self, file: RemoteFile, first: int, length: int, *, etag: str = "", check: bool = False
    ) -> Iterator[Piece]:
        """Give a part of a file; a shorter one where the file ends.

        :param etag: of the content that the part must belong to.
        :param check: ask for the part's MD5 too, which is told of at most :data:`LARGEST_CHECKED` bytes.
        :raises ChangedFile: the content is another one.
        :raises InterruptedTransfer: no answer came. :raises RefusedRead: the answer is a refusal.
        """
        headers = {"Range": f"bytes={first}-{first + length - 1}", "Accept-Encoding": "identity"}
        headers |= {"If-Match": etag} if etag else {}
        headers |= {"x-ms-range-get-content-md5": "true"} if check and length <= LARGEST_CHECKED else {}
        address = file.address
        answer = self._get(file, address, headers)
        if answer.status_code == _FORBIDDEN and file.renewed(address):
            answer.close()
            answer = self._get(file, file.address, headers)
        with contextlib.closing(answer):
            yield _piece(file, answer, first, length)

    def _get(self, file: RemoteFile, address: str, headers: Mapping[str, str]) -> requests.Response:
        import requests

        try:
            return self._session.get(
                address, headers=dict(headers), stream=True, timeout=_TIMEOUT, allow_redirects=False
            )
        except requests.exceptions.SSLError as error:
            cause = f"{type(error).__name__}: the certificate of the storage is not trusted"
            raise AzureMLError(f"{file.name}: {cause}", hint="REQUESTS_CA_BUNDLE names the trusted ones.") from None
        except requests.RequestException as error:
            raise InterruptedTransfer(f"{file.name}: no answer ({type(error).__name__})") from None


def _piece(file: RemoteFile, answer: requests.Response, first: int, length: int) -> Piece:
    status, headers = answer.status_code, answer.headers
    if status == _NO_SUCH_RANGE:  # the file ends at the range's first byte, or before it
        told = headers.get("Content-Range", "")
        size = _number(told.removeprefix("bytes */")) if told.startswith("bytes */") else first
        return Piece(Facts(size, ""), first, 0, b"", answer)
    if status == _CHANGED:
        raise ChangedFile(f"{file.name} was changed while it was being downloaded")
    if status not in (200, 206):
        hint = "The signed address has expired, or was never good for this." if status == _FORBIDDEN else ""
        known = " (there is no such file)" if status == _MISSING else ""
        raise RefusedRead(f"{file.name}: the storage answered {status}{known}", status, answer, hint=hint)
    whole = headers.get("Content-Range", "").rpartition("/")[2] if status == 206 else headers.get("Content-Length", "")
    size = _number(whole)
    if status == 200 and first:
        raise RefusedRead(f"{file.name}: the storage sends no parts of files", status, answer)
    known_md5 = headers.get("x-ms-blob-content-md5") or (headers.get("Content-MD5", "") if status == 200 else "")
    facts = Facts(size, headers.get("ETag", ""), _bytes(known_md5), _time(headers.get("Last-Modified", "")))
    expected = size - first if status == 200 else max(0, min(length, size - first))
    return Piece(facts, first, expected, _bytes(headers.get("Content-MD5", "")), answer)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InterruptedTransfer("the answer does not tell the file's size")
    return int(text)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _time(text: str) -> float:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return 0.0

"""Fetching blobs: continued after a cut, never more bytes than the descriptor says, compared with their digest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from himl_container.errors import RegistryError, StorageError
from himl_container.registry.access import Access
from himl_container.registry.answers import Request, Stream
from himl_container.registry.api import Sent, WrongContentError
from himl_container.registry.descriptors import checked_digest
from himl_container.registry.headers import parse_content_range
from himl_container.registry.model import Descriptor, sha256_of
from himl_container.registry.retries import Failure, RetryableError


def blob_pieces(access: Access, descriptor: Descriptor) -> Iterator[bytes]:
    """Yield a blob's bytes, continued with ``Range`` where the connection was cut.

    A try that brought something does not count, so that a large layer over a bad line arrives in the end.

    :raises RegistryError: the registry does not have it, or what it has does not agree with size or digest; the latter
        at the end, after the bytes were given.
    """
    where, transport = access.where, access.transport
    digest = checked_digest(descriptor.digest, where)
    path, what = access.path(f"blobs/{digest}"), f"Download of {digest[:19]} ({descriptor.size} bytes)"
    value, offset, attempt = hashlib.sha256(), 0, 1
    while True:
        before = offset
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with transport.open(
                Request("GET", path, what, scope=access.pull, headers=headers, expect=(200, 206))
            ) as stream:
                skip = offset - _first_byte(stream, offset, descriptor.size, where)
                for piece in stream.pieces():
                    rest = piece[skip:]
                    skip -= len(piece) - len(rest)
                    if offset + len(rest) > descriptor.size:
                        raise RegistryError(f"{what}: the registry sends more", where=where)
                    value.update(rest)
                    offset += len(rest)
                    if rest:
                        yield rest
            if offset == descriptor.size:
                break
            raise RetryableError(Failure(f"the answer ended after {offset} bytes"))
        except RetryableError as error:
            attempt = 1 if offset > before else attempt
            transport.patience.again(what, where, error.failure, attempt)
            attempt += 1
    if f"sha256:{value.hexdigest()}" != digest:
        raise wrong_content(digest, f"sha256:{value.hexdigest()}", where)


def _first_byte(stream: Stream, wanted: int, size: int, where: str) -> int:
    """Return the place of an answer's first byte in the blob.

    :raises RegistryError: the answer is another part than was asked for, or of a blob of another size.
    """
    length = stream.headers.get("Content-Length", "")
    first, whole = 0, int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
    if stream.status == 206:
        found = parse_content_range(stream.headers.get("Content-Range"))
        if found is None or found[0] > wanted:
            raise RegistryError(f"The registry sent another part of a blob than was asked for ({wanted}-)", where=where)
        first, whole = found
    if whole is not None and whole != size:
        raise RegistryError(f"A blob has {whole} bytes in the registry, not {size}", where=where)
    return first


def download(access: Access, descriptor: Descriptor, target: Path, received: Sent | None = None) -> None:
    """Fetch a blob into a file, which gets its name only when it is whole.

    :param received: told how many more bytes have come in.
    :raises RegistryError: it cannot be had, or is not what its descriptor says.
    :raises StorageError: the file cannot be written.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:80]}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            for piece in blob_pieces(access, descriptor):
                file.write(piece)
                if received is not None:
                    received(len(piece))
        Path(temporary).replace(target)
        temporary = ""
    except OSError as error:
        raise StorageError(f"The blob cannot be written: {error.strerror}", where=str(target)) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def small_blob(access: Access, digest: str, limit: int) -> bytes:
    """Return a blob of at most ``limit`` bytes.

    :raises RegistryError: it cannot be had, is larger, or does not agree with its digest.
    """
    path = access.path(f"blobs/{checked_digest(digest, access.where)}")
    answer = access.transport.request(
        Request("GET", path, f"Download of {digest[:19]}", scope=access.pull, limit=limit)
    )
    if sha256_of(answer.data) != digest:
        raise wrong_content(digest, sha256_of(answer.data), access.where)
    return answer.data


def wrong_content(digest: str, found: str, where: str) -> WrongContentError:
    """Return the error for content that is not what it was asked for by."""
    return WrongContentError(
        f"What the registry gives as {digest} is {found}",
        where=where,
        hint="The registry's storage or something in front of it is damaged; nothing of this is used.",
    )

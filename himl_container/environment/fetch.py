"""Fetching a source distribution, checked and kept by its hash.

Wheels are fetched by uv and Conda packages by rattler; a source distribution is fetched here because neither hands out
the file itself. Credentials: those of the index whose host serves the file, else the user's netrc.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import netrc
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from himl_container.cache import Cache
from himl_container.environment.model import PipIndexes
from himl_container.environment.urls import redact, strip_credentials
from himl_container.errors import ArtifactError

_ATTEMPTS = 3
_BLOCK = 1 << 20
_NO_INDEXES = PipIndexes()


def fetch(url: str, sha256: str, *, cache: Cache, indexes: PipIndexes = _NO_INDEXES) -> Path:
    """Return a file with a hash, from ``<cache>/sdists/<sha256>/`` or its address.

    :raises ArtifactError: it cannot be fetched, or is not the file that the hash names.
    """
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not name or name in {".", ".."} or "\0" in name:
        raise ArtifactError("the address does not name a file", where=redact(url))
    path = cache.root / "sdists" / sha256 / name
    if path.is_file():
        return path
    with cache.new_file() as temporary:
        found = _download(url, temporary, indexes)
        if found != sha256:
            raise ArtifactError(
                f"the file is not the one that was locked: its sha256 is {found}, expected {sha256}",
                where=redact(url),
                hint="If the change is known and wanted, run 'himl-container lock --upgrade'.",
            )
        cache.folder("sdists", sha256)
        os.replace(temporary, path)
    return path


def _download(url: str, target: Path, indexes: PipIndexes) -> str:
    """Fetch a file and return its sha256; what may be better next time is tried again."""
    reason = ""
    for _ in range(_ATTEMPTS):
        digest, reason = _attempt(url, target, indexes)
        if digest:
            return digest
    raise _failed(url, reason)


def _attempt(url: str, target: Path, indexes: PipIndexes) -> tuple[str, str]:
    """Return the sha256, or an empty text and why it may be tried again."""
    digest = hashlib.sha256()
    try:
        with _open(url, indexes) as source, target.open("wb") as file:
            for block in _blocks(source):
                digest.update(block)
                file.write(block)
    except urllib.error.HTTPError as error:
        if error.code < 500:
            raise _failed(url, f"{error.code} {error.reason}") from error
        return "", f"{error.code} {error.reason}"
    except urllib.error.URLError as error:
        if url.startswith("file:"):
            raise _failed(url, str(error.reason)) from error
        return "", str(error.reason)
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        return "", str(error) or type(error).__name__
    return digest.hexdigest(), ""


def _blocks(source: IO[bytes]) -> Iterator[bytes]:
    while block := source.read(_BLOCK):
        yield block
    # A connection that ends early raises IncompleteRead only for reads of a given length below the rest.
    missing = getattr(source, "length", 0)
    if missing:
        raise http.client.IncompleteRead(b"", missing)


def _open(url: str, indexes: PipIndexes) -> Any:
    bare, user, password = strip_credentials(url)
    request = urllib.request.Request(bare, headers={"User-Agent": "himl-container"})  # noqa: S310 (scheme checked below)
    if request.type not in {"http", "https", "file"}:
        raise _failed(url, f"the scheme {request.type!r} is not supported")
    if not (user or password):
        user, password = _credentials(bare, indexes)
    if user or password:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        # Unredirected: a redirect to another host must not carry the password along.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return urllib.request.urlopen(request, timeout=60)  # noqa: S310


def _credentials(url: str, indexes: PipIndexes) -> tuple[str, str]:
    host = urlsplit(url).netloc
    for index in (*indexes.private, indexes.index, *indexes.find_links):
        bare, user, password = strip_credentials(index)
        if (user or password) and urlsplit(bare).netloc == host:
            return user, password
    try:
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(url).hostname or "")
    except (OSError, netrc.NetrcParseError):
        return "", ""
    return (entry[0], entry[2] or "") if entry else ("", "")


def _failed(url: str, reason: str) -> ArtifactError:
    return ArtifactError(
        f"cannot be fetched: {reason}",
        where=redact(url),
        hint="Check the network; for a private index, give user and password in a netrc or the index's address.",
    )

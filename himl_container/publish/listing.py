"""What is in a layer: each path with what its content hashes to, and which package owns it.

Packages say themselves what they own: Conda's records (``conda-meta/*.json``), the ``RECORD`` of wheels, Debian's lists
(``/var/lib/dpkg/info/*.list``). Those lie in the layer that the package lies in, so no other layer has to be read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, cast

from himl_container.errors import RegistryError
from himl_container.publish.tar_reader import TarEntry, TarReader

_LARGEST_RECORD = 64 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_CONDA = re.compile(r"(?P<prefix>.*?)(?:^|/)conda-meta/(?P<name>[^/]+)-(?P<version>[^/-]+)-(?P<build>[^/-]+)\.json\Z")
_WHEEL = re.compile(r"(?P<site>.*?)(?:^|/)(?P<name>[^/-]+)-(?P<version>[^/]+)\.dist-info/RECORD\Z")
_DEBIAN = re.compile(r"var/lib/dpkg/info/(?P<name>[a-z0-9.+-]+)(?::[a-z0-9-]+)?\.list\Z")
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


class Package(NamedTuple):
    """A package as a layer's own records name it; ``kind`` is ``conda``, ``pip`` or ``deb``."""

    kind: str
    name: str


class Fact(NamedTuple):
    """What can differ between two files of one path.

    :param kind: as in :class:`TarEntry`; ``whiteout`` for a path of a lower layer that this one takes away; ``opaque``
        for the mark of a folder whose lower content it takes away.
    :param content: sha256 of the content, as bytes; empty for what has none.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    content: bytes


@dataclass
class Listing:
    """The content of one layer, or of several on top of each other.

    :param facts: by path, relative to the root of the file system.
    :param owners: package of a path, where one claims it.
    :param versions: of the packages that have their record here; empty where a record does not say it.
    :param size: bytes of the archive.
    :param digest: of the uncompressed archive; empty for several layers.
    """

    facts: dict[str, Fact] = field(default_factory=dict)
    owners: dict[str, Package] = field(default_factory=dict)
    versions: dict[Package, str] = field(default_factory=dict)
    size: int = 0
    digest: str = ""

    def put(self, upper: Listing) -> None:
        """Put the next layer on top (OCI image specification, "Whiteouts")."""
        gone = {path for path, fact in upper.facts.items() if fact.kind == "whiteout"}
        opaque = {path.rpartition("/")[0] for path, fact in upper.facts.items() if fact.kind == "opaque"}
        if gone or opaque:
            covered = [path for path in self.facts if path in gone or _is_below(path, gone | opaque)]
            for path in covered:
                del self.facts[path]
        self.facts.update(upper.facts)
        self.owners.update(upper.owners)
        self.versions.update(upper.versions)
        self.size += upper.size


def list_layer(chunks: Iterable[bytes], *, diff_id: str = "", where: str = "layer", limit: int = 0) -> Listing:
    """Read a layer, compressed or not, to its end.

    :param chunks: its bytes.
    :param diff_id: what the uncompressed bytes must hash to; empty to take them as they are.
    :param limit: uncompressed bytes that it may have; 0 for any number.
    :raises RegistryError: it is damaged, no archive, or another layer.
    """
    stream = _Hashing(uncompressed(chunks, where=where, limit=limit))
    listing = Listing()
    reader = TarReader(cast("BinaryIO", stream), where)
    for entry in reader:
        record = entry.kind == "file" and entry.size <= _LARGEST_RECORD and is_record(entry.path)
        total, kept = hashlib.sha256(), []
        for piece in reader.content():
            total.update(piece)
            if record:
                kept.append(piece)
        _add(listing, entry, total.digest() if entry.kind == "file" else b"")
        if record:
            _read_record(entry.path, b"".join(kept), listing)
    while stream.read(1 << 20):
        pass  # what follows the last entry belongs to the layer's digest
    listing.size, listing.digest = stream.size, stream.digest
    if diff_id and stream.digest != diff_id:
        raise RegistryError(
            f"a layer is not the one that the image's configuration names: {stream.digest[:19]}, not {diff_id[:19]}",
            where=where,
        )
    return listing


def uncompressed(chunks: Iterable[bytes], *, where: str, limit: int = 0) -> BinaryIO:
    """Return a stream of chunks as a file that is read forward, unpacked where its first bytes say gzip or zstd.

    Reading takes no more memory than what is asked for, however much a few bytes unpack to. Reading raises
    RegistryError where the content is damaged.

    :param limit: bytes after which reading raises RegistryError too, since some kilobytes can unpack to what takes
        hours to read; 0 for none.
    """
    import zstandard
    from isal import igzip

    file = io.BufferedReader(_Chunks(iter(chunks)), buffer_size=1 << 18)
    head = file.peek(4)[:4]
    source: BinaryIO = cast("BinaryIO", file)
    if head.startswith(_GZIP):
        source = cast("Any", igzip).IGzipFile(fileobj=file, mode="rb")
    elif head == _ZSTD:
        unpacker = zstandard.ZstdDecompressor()  # refuses a window of more than 128 MB, and so bounds the memory
        source = cast("BinaryIO", unpacker.stream_reader(cast("Any", file), read_across_frames=True))
    return cast("BinaryIO", _Unpacked(source, where, limit))


def is_record(path: str) -> bool:
    """Whether a path is that of a package's own record of what it owns."""
    return any(pattern.match(path) for pattern in (_CONDA, _WHEEL, _DEBIAN))


class _Chunks(io.RawIOBase):
    """Chunks as a raw file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Unpacked:
    """A stream whose own ways of being damaged have become errors of ours."""

    def __init__(self, source: BinaryIO, where: str, limit: int) -> None:
        import gzip
        import zlib

        import zstandard
        from isal.igzip_lib import IsalError

        self._source = source
        self._where = where
        self._limit = self._left = limit
        self._damage = (EOFError, gzip.BadGzipFile, zlib.error, cast("Any", IsalError), zstandard.ZstdError)

    def read(self, size: int) -> bytes:
        try:
            data = self._source.read(size)
        except self._damage as error:
            raise RegistryError(f"a layer is damaged: {error}", where=self._where) from error
        self._left -= len(data)
        if self._limit and self._left < 0:
            raise RegistryError(f"a layer unpacks to more than {self._limit} bytes", where=self._where)
        return data


class _Hashing:
    """Hashes and counts what is read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._total = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._total.update(data)
        self.size += len(data)
        return data

    @property
    def digest(self) -> str:
        return "sha256:" + self._total.hexdigest()


def _add(listing: Listing, entry: TarEntry, content: bytes) -> None:
    folder, _, name = entry.path.rpartition("/")
    if name == _OPAQUE:
        listing.facts[entry.path] = Fact("opaque", 0, 0, 0, 0, "", b"")
    elif name.startswith(_WHITEOUT):
        path = f"{folder}/{name[len(_WHITEOUT) :]}".lstrip("/")
        listing.facts[path] = Fact("whiteout", 0, 0, 0, 0, "", b"")
    elif entry.path:
        listing.facts[entry.path] = Fact(
            entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.target, content
        )


def _is_below(path: str, folders: set[str]) -> bool:
    while path:
        path = path.rpartition("/")[0]
        if path in folders:
            return True
    return False


def _read_record(path: str, data: bytes, listing: Listing) -> None:
    """Take over what a package says that it owns; a record that cannot be read owns nothing."""
    conda, wheel, debian = _CONDA.match(path), _WHEEL.match(path), _DEBIAN.match(path)
    if conda:
        package, version = Package("conda", conda["name"]), f"{conda['version']} {conda['build']}"
        owned = [*_conda_paths(data, conda["prefix"]), path]
    elif wheel:
        package, version = Package("pip", wheel["name"].lower().replace("_", "-")), wheel["version"]
        owned = _wheel_paths(data, wheel["site"])
    else:
        package, version = Package("deb", debian["name"] if debian else ""), ""
        owned = [line.strip("/") for line in data.decode("utf-8", "surrogateescape").splitlines()]
    listing.versions[package] = version
    listing.owners.update(dict.fromkeys(owned, package))


def _conda_paths(data: bytes, prefix: str) -> list[str]:
    try:
        record = json.loads(data.decode("utf-8", "surrogateescape"))
        files = record.get("files") if isinstance(record, Mapping) else None
    except (ValueError, RecursionError):
        return []
    listed = files if isinstance(files, list) else []
    return [_joined(prefix, file) for file in listed if isinstance(file, str)]


def _wheel_paths(data: bytes, site: str) -> list[str]:
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))
    except csv.Error:
        return []
    return [_joined(site, row[0]) for row in rows if row]


def _joined(folder: str, path: str) -> str:
    return posixpath.normpath(posixpath.join("/", folder, path)).lstrip("/")

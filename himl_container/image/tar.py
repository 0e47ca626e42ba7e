"""Writing tar archives whose bytes depend on nothing but names, kinds, modes and contents.

POSIX ustar headers, with a pax extended header (IEEE Std 1003.1, "pax Interchange Format") only where a value does not
fit. Owner 0:0, one fixed time, sorted names, each parent folder once. Headers are formatted here, not by ``tarfile``,
which takes several times as long for it: an environment has a hundred thousand files.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from himl_container.image.model import EPOCH

Kind = Literal["file", "link", "folder"]

_BLOCK = 512
_RECORD = 20 * _BLOCK
_CHUNK = 1 << 18
_OCTAL_SIZE_LIMIT = 8**11
_TYPES: dict[Kind, bytes] = {"file": b"0", "link": b"2", "folder": b"5"}


class ContentError(Exception):
    """A file is not what was announced: it is gone, has another size, or another hash."""

    def __init__(self, entry: Entry, what: str) -> None:
        super().__init__(f"{entry.path}: {what}")
        self.entry = entry


@dataclass(frozen=True)
class Entry:
    """One entry of an archive.

    :param path: relative, with ``/``, without a slash at the end.
    :param executable: mode 0755 instead of 0644 (folders always have 0755, links 0777).
    :param data: content of a file that has no ``source``.
    :param source: the file that holds the content.
    :param offset, size: the part of ``source`` that is the content; a size of -1 means all of it.
    :param target: what a symbolic link points to.
    :param sha256: what the content must hash to (hex); empty to take it as it is.
    :param owner: whose the entry is, for messages.
    """

    path: str
    kind: Kind = "file"
    executable: bool = False
    data: bytes = b""
    source: Path | None = None
    offset: int = 0
    size: int = -1
    target: str = ""
    sha256: str = ""
    owner: str = ""


@dataclass(frozen=True)
class Written:
    """What was written: the archive's digest (``sha256:<hex>``), its bytes, the number of its entries."""

    digest: str
    size: int
    entries: int


def write_tar(entries: Iterable[Entry], out: BinaryIO) -> Written:
    """Write an archive. Two entries of one path are a mistake of the caller, and so is an unsafe path.

    :raises ContentError: a source is gone or is not what its entry says.
    :raises ValueError: a path is absolute, leaves the archive, or comes twice.
    """
    sink = _Sink(out)
    count = 0
    for entry in _with_folders(entries):
        count += 1
        if entry.kind == "file":
            _write_file(entry, sink)
        else:
            sink.write(header(entry, 0))
    sink.write(bytes(2 * _BLOCK))
    sink.write(bytes(-sink.size % _RECORD))
    sink.flush()
    return Written("sha256:" + sink.hash.hexdigest(), sink.size, count)


def header(entry: Entry, size: int) -> bytes:
    """Return the header blocks of an entry whose content has ``size`` bytes."""
    name = entry.path + "/" if entry.kind == "folder" else entry.path
    mode = 0o777 if entry.kind == "link" else 0o755 if entry.executable or entry.kind == "folder" else 0o644
    raw_name = os.fsencode(name)
    raw_target = os.fsencode(entry.target)
    prefix, short = _split(raw_name)
    extended: list[tuple[bytes, bytes]] = []
    if short is None or not raw_name.isascii():
        extended.append((b"path", raw_name))
        prefix, short = b"", (short if short is not None and not prefix else raw_name[:100])
    if len(raw_target) > 100 or not raw_target.isascii():
        extended.append((b"linkpath", raw_target))
    if size >= _OCTAL_SIZE_LIMIT:
        extended.append((b"size", b"%d" % size))
    block = _block(short, prefix, mode, size % _OCTAL_SIZE_LIMIT, kind=_TYPES[entry.kind], target=raw_target[:100])
    if not extended:
        return block
    records = b"".join(_pax_record(key, value) for key, value in extended)
    pax = _block(b"././@PaxHeader", b"", 0o644, len(records), kind=b"x", target=b"")
    return pax + records + bytes(-len(records) % _BLOCK) + block


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Divide a name between the fields ``prefix`` (155 bytes) and ``name`` (100); None where it does not fit."""
    if len(name) <= 100:
        return b"", name
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > 100:
        return b"", None
    return name[:cut], name[cut + 1 :]


_TAIL = b"ustar\x0000" + bytes(64) + b"0000000\x000000000\x00"  # magic, version, no owner names, no device


def _block(name: bytes, prefix: bytes, mode: int, size: int, *, kind: bytes, target: bytes) -> bytes:
    start = b"%s%07o\x000000000\x000000000\x00%011o\x00%011o\x00" % (name.ljust(100, b"\0"), mode, size, EPOCH)
    end = kind + target.ljust(100, b"\0") + _TAIL + prefix.ljust(155, b"\0") + bytes(12)
    checksum = sum(start) + sum(end) + 8 * 0x20
    return start + b"%06o\x00 " % checksum + end


def _pax_record(key: bytes, value: bytes) -> bytes:
    """One ``<length> <key>=<value>`` line; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if length != rest + len(str(length)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _with_folders(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries sorted by path, each after its parent folders."""
    known: set[str] = set()
    last = ""
    for entry in sorted(entries, key=_order):
        path = entry.path
        if posixpath.normpath(path) != path or path in ("", ".") or path.startswith("/") or path.split("/")[0] == "..":
            raise ValueError(f"not a path inside an archive: {path!r}")
        if entry.kind == "folder" and path in known:
            continue
        # Sorted by parts, a file comes directly before whatever lies "below" it.
        if path == last or path in known or (last not in known and path.startswith(last + "/")):
            raise ValueError(f"twice in one archive: {path!r}")
        last = path
        yield from _parents(path, known)
        if entry.kind == "folder":
            known.add(path)
        yield entry


def _order(entry: Entry) -> list[str]:
    return entry.path.split("/")


def _parents(path: str, known: set[str]) -> Iterator[Entry]:
    parent = posixpath.dirname(path)
    if parent and parent not in known:
        yield from _parents(parent, known)
        known.add(parent)
        yield Entry(parent, "folder")


class _Sink:
    """The archive under way: collects small pieces, hashes and writes them in large ones."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.hash = hashlib.sha256()
        self.size = 0
        self.pending: list[bytes] = []
        self.waiting = 0

    def write(self, data: bytes) -> None:
        if not data:
            return
        self.pending.append(data)
        self.waiting += len(data)
        self.size += len(data)
        if self.waiting >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        data = self.pending[0] if len(self.pending) == 1 else b"".join(self.pending)
        self.pending.clear()
        self.waiting = 0
        self.hash.update(data)
        self.out.write(data)


def _write_file(entry: Entry, sink: _Sink) -> None:
    if entry.source is None:
        sink.write(header(entry, len(entry.data)) + entry.data + bytes(-len(entry.data) % _BLOCK))
        return
    try:
        descriptor = os.open(entry.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise ContentError(entry, error.strerror or str(error)) from error
    try:
        size = entry.size if entry.size >= 0 else os.fstat(descriptor).st_size
        sink.write(header(entry, size))
        _copy(entry, descriptor, size, sink)
    finally:
        os.close(descriptor)
    sink.write(bytes(-size % _BLOCK))


def _copy(entry: Entry, descriptor: int, size: int, sink: _Sink) -> None:
    """Copy exactly ``size`` bytes; a file that is shorter or longer by then was changed under our hands."""
    if entry.offset:
        os.lseek(descriptor, entry.offset, os.SEEK_SET)
    content = hashlib.sha256() if entry.sha256 else None
    left = size
    while left:
        data = os.read(descriptor, min(left, _CHUNK))
        if not data:
            raise ContentError(entry, f"ends {left} bytes early")
        left -= len(data)
        if content is not None:
            content.update(data)
        sink.write(data)
    if entry.size < 0 and os.read(descriptor, 1):
        raise ContentError(entry, "grew while it was read")
    if content is not None and content.hexdigest() != entry.sha256:
        raise ContentError(entry, f"sha256 is {content.hexdigest()}, expected {entry.sha256}")

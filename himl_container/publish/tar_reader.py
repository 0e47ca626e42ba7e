"""Reading a layer of anybody's as a stream: entry by entry, in bounded memory, whatever the archive says of itself.

POSIX ustar and pax (IEEE Std 1003.1, "pax Interchange Format"), and what GNU tar writes instead (long names, numbers in
base 256, sparse files). ``tarfile`` takes several times as long for the headers, and reads an extended header of any
announced size into memory.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

from himl_container.errors import RegistryError

Kind = Literal["file", "link", "hardlink", "folder", "other"]

_BLOCK = 512
_CHUNK = 1 << 20
_LONGEST_EXTENSION = 1 << 20
_LONGEST_LENGTH = 20  # digits, and the blank behind them
_MOST_ENTRIES = 5_000_000
_KINDS: dict[bytes, Kind] = {
    **{b"0": "file", b"\0": "file", b"7": "file", b"S": "file"},
    **{b"1": "hardlink", b"2": "link", b"5": "folder"},
}


class TarEntry(NamedTuple):
    """One entry. ``path`` is relative, without ``.``, and without a slash at either end; the root's is empty.

    :param size: bytes of content in the archive.
    :param mode: permission bits.
    :param target: of a symbolic or hard link.
    """

    path: str
    kind: Kind
    size: int
    mode: int
    uid: int
    gid: int
    target: str


class TarReader:
    """Iterates over the entries of an archive; between two, :meth:`content` gives the content of the last one."""

    def __init__(self, stream: BinaryIO, where: str = "layer") -> None:
        self._stream = stream
        self._where = where
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[TarEntry]:
        """Yield the entries, in the archive's order.

        :raises RegistryError: it is no archive, is cut off, or is made to exhaust the reader.
        """
        extended: dict[str, str] = {}
        count = 0
        while header := self._header():
            kind, size = header[156:157], _number(header[124:136], self._where)
            if kind in b"xgLK":
                self._begin(size)
                self._extend(kind, extended)
                continue
            size = _decimal(extended.get("size"), size)
            self._begin(size if kind not in b"12345" else 0)
            if kind == b"S":
                self._skip_sparse_map(header)
            count += 1
            if count > _MOST_ENTRIES:
                raise self._bad(f"it has more than {_MOST_ENTRIES} entries")
            yield self._entry(header, kind, extended)
            extended = {}

    def content(self) -> Iterator[bytes]:
        """Yield the content of the entry that came last, in pieces."""
        while self._left:
            piece = self._stream.read(min(_CHUNK, self._left))
            if not piece:
                raise self._bad("it is cut off")
            self._left -= len(piece)
            yield piece

    def _begin(self, size: int) -> None:
        if size < 0:
            raise self._bad("an entry has a negative size")
        self._left, self._padding = size, -size % _BLOCK

    def _header(self) -> bytes:
        for _ in self.content():
            pass
        if self._padding:
            self._exactly(self._padding)
            self._padding = 0
        header = self._stream.read(_BLOCK)
        if not header or not header.strip(b"\0"):
            return b""  # an archive without its last, empty blocks is complete for every reader
        header += self._exactly(_BLOCK - len(header)) if len(header) < _BLOCK else b""
        if _number(header[148:156], self._where) != sum(header) - sum(header[148:156]) + 8 * 32:
            raise self._bad("it is not a tar archive")
        return header

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            piece = self._stream.read(size)
            if not piece:
                raise self._bad("it is cut off")
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def _extend(self, kind: bytes, extended: dict[str, str]) -> None:
        if self._left > _LONGEST_EXTENSION:
            raise self._bad("it has a name of more than a megabyte")
        data = b"".join(self.content())
        if kind == b"x":
            extended.update(_records(data))
        elif kind != b"g":  # what a global header may say (a comment, a time) does not matter here
            extended["path" if kind == b"L" else "linkpath"] = _text(data)

    def _skip_sparse_map(self, header: bytes) -> None:
        """Skip the further blocks of an old GNU sparse file's map; its content is compared as it is stored."""
        more = header[482]
        while more:
            more = self._exactly(_BLOCK)[504]

    def _entry(self, header: bytes, kind: bytes, extended: dict[str, str]) -> TarEntry:
        name, prefix = _text(header[:100]), _text(header[345:500])
        # GNU's own format keeps times where POSIX has the prefix of a name.
        whole = f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name
        path = posixpath.normpath("/" + extended.get("path", whole)).strip("/")
        return TarEntry(
            path=path,
            kind=_KINDS.get(kind, "other"),
            size=self._left,
            mode=_number(header[100:108], self._where) & 0o7777,
            uid=_decimal(extended.get("uid"), _number(header[108:116], self._where)),
            gid=_decimal(extended.get("gid"), _number(header[116:124], self._where)),
            target=extended.get("linkpath", _text(header[157:257])) if kind in b"12" else "",
        )

    def _bad(self, why: str) -> RegistryError:
        return _damaged(self._where, why)


def _number(field: bytes, where: str) -> int:
    """Read a number: octal digits, or GNU's base 256, which the first bit announces."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise _damaged(where, "it is not a tar archive") from error


def _decimal(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else otherwise


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _records(data: bytes) -> dict[str, str]:
    """Read ``<length> <key>=<value>`` lines; the length counts the whole line. What is malformed ends the list."""
    found: dict[str, str] = {}
    start = 0
    while start < len(data):
        digits = data[start : start + _LONGEST_LENGTH].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        if length <= len(digits):
            break  # no line is as short as its own length; who went on from here would come back to it for ever
        key, equals, value = data[start + len(digits) + 1 : start + length - 1].partition(b"=")
        if not equals:
            break
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        start += length
    return found


def _damaged(where: str, why: str) -> RegistryError:
    return RegistryError(f"a layer cannot be read: {why}", where=where)

"""Which shared libraries the files of an environment need, and which of those the environment itself does not have.

Nothing but the standard library, and syntax that Python 3.7 reads: the smoke test also runs this source with the
image's own interpreter. The rules are those of ``ld.so(8)`` for ``DT_RPATH``, ``DT_RUNPATH`` and ``$ORIGIN``; the file
format is that of the System V ABI, "Object Files" and "Dynamic Linking".
"""

from __future__ import annotations

import posixpath
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from mmap import mmap
    from typing import TypeAlias

    Data: TypeAlias = "bytes | mmap"

MAGIC = b"\x7fELF"

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 15, 29
# Of 64-bit files, then of 32-bit ones: file header from e_phoff on, program header, dynamic entry, and the positions of
# type, offset, address and length in a program header.
_WIDE = (32, "QQIHHH", "IIQQQQ", "qQ", (0, 2, 3, 5))
_NARROW = (28, "IIIHHH", "IIIII", "iI", (0, 1, 2, 4))


class Elf(NamedTuple):
    """What the loader reads of a file. ``program`` means that it can be started by itself."""

    needed: list[str]
    rpath: list[str]
    runpath: list[str]
    program: bool


def read_elf(data: Data, start: int, size: int) -> Elf | None:
    """Read the ELF file at ``data[start:start + size]``; None for what is none, is not dynamic, or is damaged.

    :param data: only the parts that are needed are touched.
    """
    if size < 52 or data[start : start + 4] != MAGIC:
        return None
    try:
        return _read(data, start, size)
    except (struct.error, IndexError, ValueError, OverflowError):
        return None


def _read(data: Data, start: int, size: int) -> Elf | None:
    wide, order = data[start + 4] == 2, "<" if data[start + 5] == 1 else ">"
    at, header, segment, entry, fields = _WIDE if wide else _NARROW
    phoff, _, _, _, length, count = struct.unpack_from(order + header, data, start + at)
    segments = [struct.unpack_from(order + segment, data, start + phoff + index * length) for index in range(count)]
    picked = [tuple(one[field] for field in fields) for one in segments]
    dynamic = [(offset, count) for kind, offset, _, count in picked if kind == _PT_DYNAMIC]
    if not dynamic or sum(dynamic[0]) > size:
        return None
    tags = _tags(data, start + dynamic[0][0], dynamic[0][1], struct.Struct(order + entry))
    loads = [one[1:] for one in picked if one[0] == _PT_LOAD]
    texts = _texts(data, start, start + size, tags, loads)
    program = any(one[0] == _PT_INTERP for one in picked)
    return Elf(texts[_DT_NEEDED], _folders(texts[_DT_RPATH]), _folders(texts[_DT_RUNPATH]), program)


def _tags(data: Data, at: int, size: int, entry: struct.Struct) -> list[tuple[int, int]]:
    tags = []
    for tag, value in entry.iter_unpack(data[at : at + size // entry.size * entry.size]):
        if tag == _DT_NULL:
            break
        tags.append((tag, value))
    return tags


def _texts(
    data: Data, start: int, end: int, tags: list[tuple[int, int]], loads: list[tuple[int, ...]]
) -> dict[int, list[str]]:
    """Return the texts of each tag that has some; the string table is found by its address in memory."""
    found: dict[int, list[str]] = {_DT_NEEDED: [], _DT_RPATH: [], _DT_RUNPATH: []}
    address = dict(tags).get(_DT_STRTAB, -1)
    tables = [offset + address - low for offset, low, length in loads if low <= address < low + length]
    for tag, value in tags:
        if tag in found and tables:
            at = start + tables[0] + value
            stop = data.find(b"\0", at, end)
            found[tag].append(bytes(data[at : stop if stop >= 0 else end]).decode("utf-8", "replace"))
    return found


def _folders(values: list[str]) -> list[str]:
    return [folder for value in values for folder in value.split(":") if folder]


def outside(files: Mapping[str, Elf], links: Mapping[str, str], prefix: str) -> dict[str, list[str]]:
    """Return what the environment's programs and extension modules need from outside the environment.

    A library counts for each program or extension module that loads it, directly or through others. A library or plugin
    that none of them loads does not count: packages bring parts for libraries that need not be there.

    :param files: the environment's ELF files by absolute path.
    :param links: its symbolic links to files: absolute path to absolute path.
    :param prefix: the environment's folder.
    :returns: library name to a sorted list of ``program:<path>`` and ``module:<top-level module>``.
    """
    python_rpath = _rpath_of_python(files, prefix)
    direct = {path: _direct(path, elf, files, links, python_rpath) for path, elf in files.items()}
    users: dict[str, set[str]] = {}
    for path, elf in files.items():
        root = _root(path, elf.program, prefix)
        for library in _needs(path, direct) if root else ():
            users.setdefault(library, set()).add(root)
    return {library: sorted(users[library]) for library in sorted(users)}


def _direct(
    path: str, elf: Elf, files: Mapping[str, Elf], links: Mapping[str, str], python_rpath: list[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the libraries that a file loads from within the environment (name: path), and the names of the others."""
    folders = _expand(path, elf.runpath or elf.rpath)
    if not elf.runpath and not elf.program:
        folders += python_rpath  # the loader searches the main program's DT_RPATH too
    inside: dict[str, str] = {}
    missing = []
    for library in elf.needed:
        candidates = [library] if "/" in library else [folder + "/" + library for folder in folders]
        found = [real for real in (_real(candidate, links) for candidate in candidates) if real in files]
        if found:
            inside[library] = found[0]
        else:
            missing.append(library)
    return inside, missing


def _real(path: str, links: Mapping[str, str]) -> str:
    for _ in range(8):  # as many links in a row as anybody makes; a circle ends
        if path not in links:
            break
        path = links[path]
    return path


def _rpath_of_python(files: Mapping[str, Elf], prefix: str) -> list[str]:
    for path in sorted(files):
        if files[path].program and path.startswith(prefix + "/bin/python"):
            return [] if files[path].runpath else _expand(path, files[path].rpath)
    return []


def _expand(path: str, folders: Iterable[str]) -> list[str]:
    origin = posixpath.dirname(path)
    return [posixpath.normpath(folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)) for folder in folders]


def _root(path: str, program: bool, prefix: str) -> str:
    """Return what loads this file by itself, empty for a library."""
    if program:
        return "program:" + path if path.startswith(prefix + "/bin/") else ""
    _, found, inside = path.partition("/site-packages/")
    name = posixpath.basename(path)
    if not found or not name.endswith(".so") or name.startswith("lib"):
        return ""
    module = inside.split("/")[0].partition(".")[0]
    return "module:" + module if module.isidentifier() else ""


def _needs(path: str, direct: Mapping[str, tuple[dict[str, str], list[str]]]) -> set[str]:
    """Return every library from outside that the file, or any library it loads, needs."""
    seen, waiting = {path}, [path]
    missing: set[str] = set()
    loaded: set[str] = set()
    while waiting:
        inside, names = direct[waiting.pop()]
        missing.update(names)
        loaded.update(inside)
        new = [library for library in inside.values() if library not in seen]
        seen.update(new)
        waiting.extend(new)
    return missing - loaded  # a library that is loaded already serves whoever asks for it by name

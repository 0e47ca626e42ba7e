"""Compiles Python files to bytecode that is the same bytes every time. Run by the environment's own interpreter.

Not a module of the package: it is executed as a script, by any Python from 3.8 on, with an empty environment
but ``PYTHONHASHSEED=0``. Standard output begins with the tag of this Python's ``.pyc`` names. Then standard input
brings jobs, ``{"out": file, "files": [[source, final, shipped, time, sha256], ..]}``, and each is answered: by the
bytes of each file's code in ``out`` in order, -1 where a file does not compile; or ``{"errno": .., "path": ..}``, or
``{"damaged": path}``. Each message is its length (4 bytes, little-endian) and its value in marshal's version 2, which
every Python reads.

Nothing is imported that is not needed: JSON, hashes and ``importlib.util`` take longer than the interpreter's own start
(31 ms with them, 12 without), and a changed wheel waits for that. What the compiler warns of goes to nobody.

``shipped`` is the ``.pyc`` that the package has for the source, or empty; ``time`` the source's, seconds, as the
package has it. Where Python itself would use that ``.pyc`` (import system, "Cached bytecode invalidation"), its code is
taken, which costs a thousandth of compiling.

Why the same bytes: the code is hash-based (PEP 552, unchecked) instead of carrying a time; ``co_filename`` is the final
path. What remains is marshal, which marks an object as "may be referred to again" when its reference count is above
one; and that depends on what else the process has seen (interned names, cached numbers). So every object of the code
that can be reached is held once more while it is written, and all of them get the mark. Likewise strings of one
character are one object in the whole process, and whether they are interned is in the format: all of them are, here.
"""

from __future__ import annotations

import sys

# The folder of this script must not shadow the standard library.
sys.path[:] = [path for path in sys.path if path != __file__.rpartition("/")[0]]

import _frozen_importlib_external as _files  # noqa: E402
import _imp  # noqa: E402
import marshal  # noqa: E402
import os  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any
else:
    CodeType = type((lambda: None).__code__)

_CHARACTERS = [sys.intern(chr(number)) for number in range(256)]  # kept, or they would not stay interned
_HEADER = _files.MAGIC_NUMBER + (0b01).to_bytes(4, "little")
_ATTRIBUTES = (
    "co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_filename", "co_name", "co_qualname",
    "co_code", "co_linetable", "co_lnotab", "co_exceptiontable",
)  # fmt: skip
_BEFORE_SORTED_SETS = sys.version_info < (3, 11)


def _source_hash(source: bytes) -> bytes:
    """Return what ``importlib.util.source_hash`` does."""
    return _imp.source_hash(int.from_bytes(_files.MAGIC_NUMBER, "little"), source)


def compiled(source: bytes, final: str) -> bytes | None:
    """Return the ``.pyc`` of a source's bytes, or None when it is not Python of this version."""
    try:
        code = compile(source, final, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return None
    held: list[object] = []
    sets: list[frozenset[Any]] = []
    _hold(code, held, sets)
    data = _sorted_sets(code, sets) if _BEFORE_SORTED_SETS and sets else marshal.dumps(code)
    del held
    return _HEADER + _source_hash(source) + data


def _hold(value: object, held: list[object], sets: list[frozenset[Any]]) -> None:
    held.append(value)
    if isinstance(value, CodeType):
        for name in _ATTRIBUTES:
            if name != "co_lnotab" or sys.version_info < (3, 10):
                _hold(getattr(value, name, None), held, sets)
    elif isinstance(value, (tuple, frozenset)):
        if isinstance(value, frozenset) and len(value) > 1:
            sets.append(value)
        for item in value:
            _hold(item, held, sets)


def _sorted_sets(code: CodeType, sets: list[frozenset[Any]]) -> bytes:
    """Before 3.11, a set constant is written in the order of its hashes, and the hash of None is an address.

    The older version 2 of the format has no references, so the bytes of a set stand in it as they are and can be put
    into order there. Every Python reads it.
    """
    data = marshal.dumps(code, 2)
    for value in sets:
        items = [marshal.dumps(item, 2) for item in value]
        start = b">" + len(items).to_bytes(4, "little")
        data = data.replace(start + b"".join(items), start + b"".join(sorted(items)))
    return data


def taken(source: bytes, shipped: bytes, time: int) -> bytes | None:
    """Return a shipped ``.pyc`` with the header of ours, or None when Python would not use it for this source."""
    digest = _source_hash(source)
    flags = int.from_bytes(shipped[4:8], "little")
    fields = (time & 0xFFFFFFFF).to_bytes(4, "little") + (len(source) & 0xFFFFFFFF).to_bytes(4, "little")
    fits = shipped[8:16] == (digest if flags & 0b01 else fields)
    if shipped[:4] != _files.MAGIC_NUMBER or flags not in (0, 0b01, 0b11) or not fits:
        return None
    try:
        whole = isinstance(marshal.loads(shipped[16:]), CodeType)  # noqa: S302  # as Python would
    except (EOFError, ValueError, TypeError):
        whole = False
    return _HEADER + digest + shipped[16:] if whole else None


class DamagedError(Exception):
    """A file is not the one that its package has."""


def one(source: str, final: str, shipped: str, time: int, sha256: str) -> bytes | None:
    """Return the ``.pyc`` of one file of a job."""
    with open(source, "rb") as file:
        text = file.read()
    if shipped:
        with open(shipped, "rb") as file:
            data = file.read()
        import hashlib

        if hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedError(shipped)
        return taken(text, data, time) or compiled(text, final)
    return compiled(text, final)


def run(job: dict[str, Any]) -> list[int] | dict[str, Any]:
    """Do one job and return its answer."""
    sizes = []
    try:
        with open(job["out"], "wb") as out:
            for fields in job["files"]:
                data = one(*fields)
                sizes.append(-1 if data is None else out.write(data))
    except DamagedError as error:
        return {"damaged": str(error)}
    except OSError as error:
        return {"errno": error.errno, "path": str(error.filename or job["out"])}
    return sizes


def main() -> None:
    """Answer jobs until standard input ends."""
    os.nice(5)  # as the process that lays packages out does
    answer(sys.implementation.cache_tag)
    read = sys.stdin.buffer.read
    while size := read(4):
        answer(run(marshal.loads(read(int.from_bytes(size, "little")))))  # noqa: S302  # from our own process


def answer(value: Any) -> None:
    """Write one message."""
    data = marshal.dumps(value, 2)
    sys.stdout.buffer.write(len(data).to_bytes(4, "little") + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""Small ELF files that say which libraries they need; enough for a reader, not for a processor."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_HEADER, _SEGMENT = 64, 56


def shared_library(needed: Sequence[str] = (), *, rpath: str = "", runpath: str = "", program: bool = False) -> bytes:
    """Return a 64-bit little-endian ELF file with a dynamic section (System V ABI, "Object Files")."""
    strings = b"\0"
    tags = []
    for tag, text in [*((1, name) for name in needed), (15, rpath), (29, runpath)]:
        if text:
            tags.append((tag, len(strings)))
            strings += text.encode() + b"\0"
    segments = 3 if program else 2
    table_at = _HEADER + segments * _SEGMENT
    dynamic_at = table_at + len(strings) + -len(strings) % 8
    address = 0x1000  # of offset 0: the loader's addresses are not offsets
    tags += [(5, address + table_at), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
    size = dynamic_at + len(dynamic)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, _HEADER, 0, 0, _HEADER, _SEGMENT, segments, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, address, address, size, size, 0x1000)
    dyn = struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, address + dynamic_at, 0, len(dynamic), len(dynamic), 8)
    interpreter = struct.pack("<IIQQQQQQ", 3, 4, 0, 0, 0, 0, 0, 1) if program else b""
    body = header + load + dyn + interpreter
    return body + strings.ljust(dynamic_at - table_at, b"\0") + dynamic

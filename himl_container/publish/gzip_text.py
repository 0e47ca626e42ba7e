"""Documents for a registry, compressed: they are many small texts, and an image has some of its own."""

from __future__ import annotations

import zlib

_GZIP = 31  # zlib's "window bits" for a gzip member with the largest window


def gzipped(data: bytes) -> bytes:
    """Return a gzip member; without name and time, so equal texts give equal bytes wherever zlib is the same."""
    packer = zlib.compressobj(9, zlib.DEFLATED, _GZIP)
    return packer.compress(data) + packer.flush()


def gunzipped(data: bytes, limit: int) -> bytes | None:
    """Return what a gzip member holds; None where it is none, is cut short, or holds more than ``limit`` bytes."""
    try:
        unpacker = zlib.decompressobj(_GZIP)
        text = unpacker.decompress(data, limit)
    except zlib.error:
        return None
    return text if unpacker.eof else None

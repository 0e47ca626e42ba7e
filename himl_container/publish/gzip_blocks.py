"""gzip on all cores: one stream per layer, cut into blocks that any thread may compress.

A gzip member is deflate data between a header and a checksum (RFC 1952), and deflate data may be cut anywhere when each
piece ends at a byte (``Z_SYNC_FLUSH``) and begins with the last 32 KB before it as its dictionary. So the result is one
ordinary gzip member, whose bytes depend on the block size and on nothing else: not on the number of threads, the time
or the file's name.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

BLOCK = 1 << 20
"""Bytes of input that are compressed at a time; part of the format, because it decides the result's bytes."""

_WINDOW = 32 << 10  # how far back deflate may refer (RFC 1951)
_LEVEL = 1
# Magic, deflate, no flags, no time, no extra flags, "unknown" system: RFC 1952, "Member header and trailer".
_HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))


def gzip_blocks(blocks: Iterable[bytes], pool: ThreadPoolExecutor, *, ahead: int) -> Iterator[bytes]:
    """Yield a gzip member of what the blocks hold, a piece for each block.

    :param blocks: pieces of exactly :data:`BLOCK` bytes, the last one shorter or empty.
    :param pool: the threads that compress; those of several layers may share them.
    :param ahead: blocks that are under way at a time; with their results they are what memory this takes.
    """
    from isal import isal_zlib

    crc, size, before = 0, 0, b""
    waiting: collections.deque[Future[bytes]] = collections.deque()
    try:
        yield _HEADER
        for block in blocks:
            crc = isal_zlib.crc32(block, crc)
            size += len(block)
            waiting.append(pool.submit(_deflate, block, before))
            before = block[-_WINDOW:]
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        # An empty last block is the end of the deflate data; then checksum and length (modulo 2**32).
        yield isal_zlib.compressobj(_LEVEL, wbits=-15).flush()
        yield crc.to_bytes(4, "little") + (size % (1 << 32)).to_bytes(4, "little")
    finally:
        for future in waiting:
            future.cancel()


def _deflate(block: bytes, before: bytes) -> bytes:
    from isal import isal_zlib

    if before:
        engine = isal_zlib.compressobj(_LEVEL, wbits=-15, zdict=before)
    else:
        engine = isal_zlib.compressobj(_LEVEL, wbits=-15)
    return bytes(engine.compress(block) + engine.flush(isal_zlib.Z_SYNC_FLUSH))

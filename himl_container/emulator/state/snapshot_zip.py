"""Snapshots as zip files: made piece by piece, and laid out."""

from __future__ import annotations

import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, cast

from himl_container.emulator.state.paths import write_below
from himl_container.emulator.state.snapshot_tree import File

Open = Callable[[str], Iterator[bytes]]
"""Gives the bytes of a blob."""

_READERS = 8
_SMALL = 1 << 20
_CHUNK = 1 << 20
_LEVEL = 1
"""Of compression. The file is written once and read on the same machine; source is small."""


def zipped(folders: Sequence[str], files: Mapping[str, File], opened: Open) -> Iterator[bytes]:
    """Yield a zip file in pieces; no more than the small files that are fetched ahead is held at once."""
    sink = _Sink()
    with zipfile.ZipFile(cast("IO[bytes]", sink), "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for path in folders:
            archive.writestr(zipfile.ZipInfo(f"{path}/"), b"")
        for path, size, chunks in _contents(files, opened):
            info = zipfile.ZipInfo(path)
            info.compress_type, info.external_attr, info.file_size = zipfile.ZIP_DEFLATED, 0o100644 << 16, size
            with archive.open(info, "w") as entry:
                for chunk in chunks:
                    entry.write(chunk)
                    if len(sink.data) >= _CHUNK:
                        yield sink.take()
            if len(sink.data) >= _CHUNK:
                yield sink.take()
    yield sink.take()


def lay_out(archive: Iterator[bytes], paths: Iterable[str], folder: Path) -> None:
    """Write files of a zip file that :func:`zipped` made below a folder.

    :raises Refusal: 400, the folder has a link in the way. :raises OSError: the disk.
    """
    with tempfile.TemporaryFile() as file:
        for chunk in archive:
            file.write(chunk)
        with zipfile.ZipFile(file) as opened:
            for path in paths:
                with opened.open(path) as entry:
                    write_below(folder, path, iter(partial(entry.read, _CHUNK), b""))


def _contents(files: Mapping[str, File], opened: Open) -> Iterator[tuple[str, int, Iterable[bytes]]]:
    """Yield files with their sizes and bytes. Small ones are fetched ahead, a few at a time: each is a round trip."""

    def fetch(file: File) -> Iterable[bytes]:
        chunks = opened(file.blob)
        return list(chunks) if file.size <= _SMALL else chunks

    waiting = deque(files.items())
    ahead: deque[tuple[str, File, Future[Iterable[bytes]]]] = deque()
    with ThreadPoolExecutor(_READERS) as pool:
        while waiting or ahead:
            while waiting and len(ahead) < 2 * _READERS:
                path, file = waiting.popleft()
                ahead.append((path, file, pool.submit(fetch, file)))
            path, file, fetched = ahead.popleft()
            yield path, file.size, fetched.result()


class _Sink:
    """What a zip file is written to, piece by piece: no seeking, so nothing of it has to be kept."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def flush(self) -> None:
        return

    def take(self) -> bytes:
        taken = bytes(self.data)
        self.data.clear()
        return taken

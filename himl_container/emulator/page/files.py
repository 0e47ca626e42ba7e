"""Files of runs on the page: listings, the end of a log while it is written, downloads, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from himl_container.emulator.blobs import RUNS_CONTAINER, Blobs
from himl_container.emulator.http import Answer, not_found
from himl_container.emulator.state.artifacts import RUN_ORIGIN, Artifacts, blob_name, container_of

TAIL = 64 * 1024
"""Bytes of a log that the page shows at first."""

LARGEST_PIECE = 256 * 1024
MOST_FILES = 1000

LOG_FOLDERS = ("user_logs", "azureml-logs", "system_logs", "logs")
"""In which a run's logs are, the one that people want first."""

_FIRST = ("user_logs/std_log.txt", "azureml-logs/hyperdrive.txt")
_LARGEST_PICTURE = 20 * 2**20
_PICTURES: Mapping[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
    b"<svg": "image/svg+xml",
    b"<?xml": "image/svg+xml",
}


@dataclass(frozen=True)
class FileRow:
    """A file in a listing. ``size`` in bytes; None where nothing was uploaded yet."""

    path: str
    size: int | None


@dataclass(frozen=True)
class Piece:
    """A part of a log.

    :param text: whole letters only; :param start, end: in bytes.
    :param restarted: whether the file is shorter than the reader thought, and so another one.
    """

    text: str
    start: int
    end: int
    restarted: bool = False


class RunFiles:
    """Reads the files of runs."""

    def __init__(self, artifacts: Artifacts, blobs: Blobs) -> None:
        self._artifacts, self._blobs = artifacts, blobs

    def listing(self, run_id: str) -> tuple[list[FileRow], int]:
        """Return a run's files by name, at most :data:`MOST_FILES`, and how many there are."""
        files = self._artifacts.list(run_id)
        prefix = f"{RUN_ORIGIN}/{container_of(run_id)}/"
        sizes = {blob.name: blob.size for blob in self._blobs.list(RUNS_CONTAINER, prefix)} if files else {}
        return [FileRow(file.path, sizes.get(blob_name(file))) for file in files[:MOST_FILES]], len(files)

    def logs(self, run_id: str) -> list[str]:
        """Return the paths of a run's logs, the one that people want first."""
        found = [file.path for folder in LOG_FOLDERS for file in self._artifacts.list(run_id, folder)]
        return sorted(found, key=lambda path: path not in _FIRST)

    def tail(self, run_id: str, path: str) -> Piece:
        """Return the end of a log, from the beginning of a line on.

        :raises Refusal: 404, there is no such file.
        """
        size = self._artifacts.size(run_id, path)
        start = max(0, size - TAIL)
        data = self._artifacts.read(run_id, path, start, size - start) if size else b""
        if start:
            skipped = data.find(b"\n") + 1
            start, data = start + skipped, data[skipped:]
        return _piece(data, start)

    def after(self, run_id: str, path: str, offset: int) -> Piece:
        """Return what was written to a log after a place, at most :data:`LARGEST_PIECE`.

        :raises Refusal: 404, there is no such file.
        """
        size = self._artifacts.size(run_id, path)
        if offset > size:
            tail = self.tail(run_id, path)
            return Piece(tail.text, tail.start, tail.end, restarted=True)
        length = min(size - offset, LARGEST_PIECE)
        return _piece(self._artifacts.read(run_id, path, offset, length) if length else b"", offset)

    def download(self, run_id: str, path: str) -> Answer:
        """Return a file, streamed, to be saved and not shown.

        :raises Refusal: 404, there is no such file, or nothing was uploaded for it yet.
        """
        name, size = self._blob(run_id, path)
        saved = quote(path.rpartition("/")[2], safe="")
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(size),
            "content-disposition": f"attachment; filename*=UTF-8''{saved}",
        }
        return Answer(200, self._stream(name, size), headers)

    def picture(self, run_id: str, path: str) -> Answer:
        """Return a picture, to be shown. What it is the bytes say and not the name; nothing in it is carried out.

        :raises Refusal: 404, there is no such file, or it is no picture.
        """
        name, size = self._blob(run_id, path)
        begin = self._blobs.read(RUNS_CONTAINER, name, 0, 16).lstrip()
        kind = next((kind for magic, kind in _PICTURES.items() if begin.startswith(magic)), None)
        if kind is None or size > _LARGEST_PICTURE:
            raise not_found(f"Picture {path}")
        return Answer(200, self._stream(name, size), {"content-type": kind, "content-length": str(size)})

    def _blob(self, run_id: str, path: str) -> tuple[str, int]:
        name = blob_name(self._artifacts.find(RUN_ORIGIN, container_of(run_id), path))
        blob = self._blobs.stat(RUNS_CONTAINER, name)
        if blob is None:
            raise not_found(f"File {path}")
        return name, blob.size

    def _stream(self, name: str, size: int) -> Iterator[bytes]:
        """Yield so many bytes and no more: a log may have grown since its size was announced."""
        for chunk in self._blobs.stream(RUNS_CONTAINER, name):
            yield chunk[:size]
            size -= len(chunk)
            if size <= 0:
                return


def _piece(data: bytes, start: int) -> Piece:
    # A letter of which a part has not been written yet waits for the next piece.
    for cut in range(min(3, len(data)) + 1):
        try:
            text = data[: len(data) - cut].decode()
        except UnicodeDecodeError:
            continue
        return Piece(text, start, start + len(data) - cut)
    return Piece(data.decode("utf-8", "replace"), start, start + len(data))

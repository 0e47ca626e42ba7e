"""Files of runs: their names in SQLite, their bytes in blobs.

A file belongs to an origin and a container, as in Azure: ``ExperimentRun`` and ``dcid.<run id>`` for what a run wrote,
``LocalUpload`` and a random name for what was uploaded without a run (models, wheels).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from himl_container.emulator.blobs import RUNS_CONTAINER, Blobs
from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.paths import checked_path, checked_prefix, write_below

RUN_ORIGIN = "ExperimentRun"
ORIGINS = (RUN_ORIGIN, "LocalUpload", "ExperimentNotebook", "Environment")

_PICTURE = re.compile(r".*\.(bmp|exr|gif|jpe?g|p[bgp]m|png|rast|rgb|tiff?|webp|xbm)", re.IGNORECASE | re.DOTALL)
"""What Python's ``imghdr``, which the SDK asks for the type of a picture, knows."""

_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,299}")
_MAX_BLOB_NAME = 1024


@dataclass(frozen=True)
class Artifact:
    """One file. ``created`` in seconds since the epoch."""

    origin: str
    container: str
    path: str
    created: float

    @property
    def artifact_id(self) -> str:
        """Its name in the wire's terms."""
        return f"{self.origin}/{self.container}/{self.path}"


_TABLES = """
CREATE TABLE IF NOT EXISTS artifacts (
    origin TEXT NOT NULL, container TEXT NOT NULL, path TEXT NOT NULL, created REAL NOT NULL,
    PRIMARY KEY (origin, container, path)) WITHOUT ROWID;
"""


class Artifacts:
    """All files of all runs, and those without a run.

    The methods that take a run's id are for the compute and the page; the others are what the service is made of.
    """

    def __init__(self, database: Database, blobs: Blobs, clock: Callable[[], float]) -> None:
        self._database, self._blobs, self._clock = database, blobs, clock
        database.make_tables(_TABLES)

    # --- files of a run ---

    def record(self, run_id: str, path: str) -> Artifact:
        """Note that a run has a file, whose bytes somebody else puts into its blob; one that is known stays.

        :raises Refusal: 400, the path is not one (:func:`himl_container.emulator.state.paths.checked_path`).
        """
        artifact = self._artifact(RUN_ORIGIN, container_of(run_id), path)
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?, ?)",
                (artifact.origin, artifact.container, artifact.path, artifact.created),
            )
        return artifact

    def append_log(self, run_id: str, path: str, data: bytes) -> None:
        """Append to a file of a run, which is made when it is missing.

        :raises Refusal: 400, a bad path. :raises StorageError: the storage failed.
        """
        artifact = self._artifact(RUN_ORIGIN, container_of(run_id), path)
        self._blobs.append(RUNS_CONTAINER, blob_name(artifact), data)
        self.record(run_id, path)  # at last: who sees the name reads the bytes, from the storage itself

    def upload(self, run_id: str, path: str, source: Path | bytes | Iterable[bytes]) -> None:
        """Store a file of a run, streamed, in place of one of the same name.

        :raises Refusal: 400, a bad path. :raises StorageError: the storage failed.
        """
        artifact = self._artifact(RUN_ORIGIN, container_of(run_id), path)
        self._blobs.put(RUNS_CONTAINER, blob_name(artifact), source)
        self.record(run_id, path)

    def list(self, run_id: str, prefix: str = "") -> list[Artifact]:  # the word of the contract
        """Return a run's files below a folder (or all), by name."""
        return list(self.below(RUN_ORIGIN, container_of(run_id), prefix))

    def url(self, run_id: str, path: str) -> str:
        """Return the address from which a file of a run can be read, with a signature.

        :raises Refusal: 404, there is no such file.
        """
        return self.address(self.find(RUN_ORIGIN, container_of(run_id), path))

    def read(self, run_id: str, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Return a part of a file of a run; empty where nothing has been written to it yet.

        :raises Refusal: 404, there is no such file.
        """
        artifact = self.find(RUN_ORIGIN, container_of(run_id), path)
        try:
            return self._blobs.read(RUNS_CONTAINER, blob_name(artifact), start, length)
        except FileNotFoundError:
            return b""

    def size(self, run_id: str, path: str) -> int:
        """Return the size of a file of a run in bytes; 0 where nothing has been written to it yet.

        :raises Refusal: 404, there is no such file.
        """
        blob = self._blobs.stat(RUNS_CONTAINER, blob_name(self.find(RUN_ORIGIN, container_of(run_id), path)))
        return blob.size if blob else 0

    def download_folder(self, run_id: str, prefix: str, folder: Path) -> int:
        """Lay the files below ``prefix`` out in a folder, each under its whole path; return how many.

        Nothing is written outside the folder, also where it contains symbolic links: a file below one is refused.

        :raises Refusal: 400, a name leads out of the folder. :raises OSError: the disk.
        """
        count = 0
        for artifact in self.list(run_id, prefix):
            try:
                write_below(folder, artifact.path, self._blobs.stream(RUNS_CONTAINER, blob_name(artifact)))
            except FileNotFoundError:
                continue  # noted, and never uploaded
            count += 1
        return count

    # --- any file ---

    def find(self, origin: str, container: str, path: str) -> Artifact:
        """Return a file.

        :raises Refusal: 400 a bad name, 404 there is none.
        """
        wanted = self._artifact(origin, container, path)
        row = self._database.row(
            "SELECT * FROM artifacts WHERE origin = ? AND container = ? AND path = ?",
            (wanted.origin, wanted.container, wanted.path),
        )
        if row is None:
            raise not_found(f"Artifact {wanted.artifact_id}")
        return Artifact(*row)

    def create(self, origin: str, container: str, path: str) -> Artifact:
        """Note a new file, to be uploaded by the client.

        :raises Refusal: 400 a bad name, 409 there is one of that name.
        """
        artifact = self._artifact(origin, container, path)
        with self._database.write() as connection:
            cursor = connection.execute(
                "INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?, ?)",
                (artifact.origin, artifact.container, artifact.path, artifact.created),
            )
        if cursor.rowcount == 0:
            # The words are Azure's, which users know and search for.
            message = f"Resource Conflict: ArtifactId {artifact.artifact_id} already exists."
            raise Refusal(409, "UserError", message)
        return artifact

    def below(
        self, origin: str, container: str, prefix: str = "", *, after: str = "", limit: int = -1
    ) -> Iterator[Artifact]:
        """Yield the files of a container below a folder (a single file for its whole name), by name.

        :param after: begin behind this path; :param limit: how many at most, -1 for all.
        """
        prefix = checked_prefix(prefix)
        sql = "SELECT * FROM artifacts WHERE origin = ? AND container = ? AND path > ?"
        values: tuple[object, ...] = (_origin(origin), container, after)
        if prefix:
            # Code points order as the bytes of UTF-8 do, and "/" is followed by "0": everything below the folder.
            sql += " AND (path = ? OR (path >= ? AND path < ?))"
            values = (*values, prefix, f"{prefix}/", f"{prefix}0")
        for row in self._database.rows(f"{sql} ORDER BY path LIMIT ?", (*values, limit)):
            yield Artifact(*row)

    def delete(self, artifact: Artifact) -> None:
        """Delete a file, its bytes first; nothing happens where there is none."""
        self._blobs.delete(RUNS_CONTAINER, blob_name(artifact))
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM artifacts WHERE origin = ? AND container = ? AND path = ?",
                (artifact.origin, artifact.container, artifact.path),
            )

    def address(self, artifact: Artifact, permission: str = "r") -> str:
        """Return a file's address with a signature.

        :param permission: as :meth:`himl_container.emulator.blobs.Blobs.signed_url`.
        """
        return plain_url(self._blobs.signed_url(RUNS_CONTAINER, blob_name(artifact), permission))

    def _artifact(self, origin: str, container: str, path: str) -> Artifact:
        if not _CONTAINER.fullmatch(container):
            raise Refusal(
                400, "UserError", "The container of an artifact has letters, digits, '-', '_' and '.', at most 300."
            )
        artifact = Artifact(_origin(origin), container, artifact_path(path), self._clock())
        if len(blob_name(artifact)) > _MAX_BLOB_NAME:
            raise Refusal(400, "UserError", "The artifact's path is too long.")
        return artifact


def artifact_path(path: str) -> str:
    """Return the path under which a file is kept that a client calls so.

    ``Run.log_image(path="/home/me/plot.png")`` calls the picture by the whole path of its file (``ImageMetric`` in
    ``core/_metrics.py`` of the SDK). It is kept without the slash at its beginning; other absolute paths are refused.

    :raises Refusal: 400, as :func:`himl_container.emulator.state.paths.checked_path`.
    """
    if path.startswith("/") and _PICTURE.fullmatch(path):
        path = path[1:]
    return checked_path(path, "artifact's path")


def container_of(run_id: str) -> str:
    """Return the name under which a run's files are kept."""
    return f"dcid.{run_id}"


def blob_name(artifact: Artifact) -> str:
    """Return the name of a file's blob, which is the file's name except for four letters.

    The SDK takes the name out of a URL without decoding it, so ``%``, ``?`` and ``#`` cannot be in it
    (``_file_utils/upload.py``, ``get_block_blob_service_credentials``); ``~`` stands for them.
    """
    return re.sub(r"[~%?#]", lambda letter: f"~{ord(letter[0]):02X}", artifact.artifact_id)


def plain_url(signed: str) -> str:
    """Return a signed address whose path is not encoded, as the SDK needs it: it encodes the path that it is given."""
    path, _, query = signed.partition("?")
    return f"{unquote(path)}?{query}"


def _origin(origin: str) -> str:
    # Paths do not distinguish case, and the origin is one word of three.
    for known in ORIGINS:
        if origin.lower() == known.lower():
            return known
    raise Refusal(400, "UserError", f"{origin[:50]!r} is not an origin of artifacts.")

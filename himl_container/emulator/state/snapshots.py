"""Snapshots of source folders: a tree of names and hashes, and the blobs that hold the files.

A snapshot names only the files that its client uploaded for it; the others are those of its parent. Blobs are never
deleted, because a client that has seen a snapshot does not send the same files again
(``_base_sdk_common/project_snapshot_cache.py`` of the SDK).
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from himl_container.emulator.blobs import SNAPSHOTS_CONTAINER, Blobs
from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.artifacts import plain_url
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.paths import checked_path, make_folder_below, write_below
from himl_container.emulator.state.snapshot_tree import MAX_FILES, File, leaves
from himl_container.emulator.state.snapshot_zip import lay_out, zipped

MAX_BYTES = 2 * 1024**3
"""The SDK stops at 300 MB by itself, unless its user has raised that; what Azure's service takes is not known."""

NOTHING = str(uuid.UUID(int=0))
"""What the SDK calls the snapshot of an empty folder in an empty workspace; there is none of this id."""

_FEW = 8
"""So many files are fetched one by one; more come as the zip file, which is made once for all jobs of the snapshot."""

_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UPLOAD = re.compile(r"uploads/([0-9a-f-]{36})/[0-9]{1,6}")


@dataclass(frozen=True)
class Snapshot:
    """One snapshot.

    :param tree: as the client sent it, for the client: ``name``, ``type``, ``hash``, ``timestamp``, ``children``.
    :param files: by path; :param folders: the paths of all folders, parents first.
    """

    snapshot_id: str
    parent_id: str
    created: float
    tree: Mapping[str, Any]
    files: Mapping[str, File]
    folders: Sequence[str]

    @property
    def size(self) -> int:
        """All its files together, in bytes."""
        return sum(file.size for file in self.files.values())


_TABLES = """
CREATE TABLE IF NOT EXISTS snapshots (
    number INTEGER PRIMARY KEY AUTOINCREMENT, snapshot_id TEXT NOT NULL UNIQUE, parent_id TEXT NOT NULL,
    created REAL NOT NULL, tree TEXT NOT NULL, files TEXT NOT NULL, folders TEXT NOT NULL);
"""


class Snapshots:
    """All snapshots of the workspace."""

    def __init__(self, database: Database, blobs: Blobs, clock: Callable[[], float]) -> None:
        self._database, self._blobs, self._clock = database, blobs, clock
        self._lock = threading.Lock()
        self._zips: dict[str, threading.Lock] = {}
        database.make_tables(_TABLES)

    def get(self, snapshot_id: str) -> Snapshot:
        """Return a snapshot.

        :raises Refusal: 400, it is not an id; 404, there is none.
        """
        row = self._database.row("SELECT * FROM snapshots WHERE snapshot_id = ?", (_checked_id(snapshot_id),))
        if row is None:
            raise not_found(f"Snapshot {snapshot_id}")
        files = {path: File(*file) for path, file in json.loads(row["files"]).items()}
        tree, folders = json.loads(row["tree"]), json.loads(row["folders"])
        return Snapshot(row["snapshot_id"], row["parent_id"], row["created"], tree, files, folders)

    def latest(self) -> Snapshot | None:
        """Return the newest snapshot, from which a client goes on that knows none; None in an empty workspace."""
        row = self._database.row("SELECT snapshot_id FROM snapshots ORDER BY number DESC LIMIT 1")
        return None if row is None else self.get(row["snapshot_id"])

    def places(self, paths: Sequence[str]) -> dict[str, str]:
        """Return an address to which each file of a new snapshot can be uploaded, with a signature.

        :raises Refusal: 400, a name is not a relative path, or comes twice, or there are too many.
        """
        if len(paths) > MAX_FILES:
            raise Refusal(400, "UserError", f"A snapshot has at most {MAX_FILES} files.")
        upload = uuid.uuid4()
        places = {}
        for number, path in enumerate(paths):
            checked_path(path, "name of a file")
            # Blobs are numbered, so that no letter of a name has to be encoded.
            name = f"uploads/{upload}/{number}"
            places[path] = plain_url(self._blobs.signed_url(SNAPSHOTS_CONTAINER, name, "rcw"))
        if len(places) != len(paths):
            raise Refusal(400, "UserError", "A file is named twice.")
        return places

    def create(self, snapshot_id: str, parent_id: str, tree: object, uploads: Mapping[str, str]) -> Snapshot:
        """Store a snapshot whose new files have been uploaded. The same snapshot again (a retry) changes nothing.

        :param uploads: path → address, as :meth:`places` gave it.
        :raises Refusal: 400, a bad tree, a name that leads out, a file that was neither uploaded nor in the parent;
            409, the id is taken by another; 413, too large.
        """
        snapshot_id = _checked_id(snapshot_id)
        hashes, folders = leaves(tree)
        there = self._uploaded(uploads)
        parent = self._files_of(parent_id)
        files = {}
        for path, digest in hashes.items():
            known = there.get(path)
            if known is None:
                inherited = parent.get(path)
                if inherited is None or inherited.hash != digest:
                    raise Refusal(
                        400, "UserError", f"File {path} was not uploaded, and the parent snapshot has no such file."
                    )
                known = inherited
            files[path] = File(known.blob, known.size, digest)
        if stray := sorted(set(there) - set(files)):
            raise Refusal(400, "UserError", f"File {stray[0]} was uploaded, but is not in the tree.")
        if sum(file.size for file in files.values()) > MAX_BYTES:
            raise Refusal(413, "UserError", f"A snapshot has at most {MAX_BYTES} bytes.")
        document = json.dumps(tree)
        with self._database.write() as connection:
            row = self._database.row("SELECT tree FROM snapshots WHERE snapshot_id = ?", (snapshot_id,))
            if row is not None and row["tree"] != document:
                raise Refusal(409, "UserError", f"Snapshot {snapshot_id} exists already.")
            if row is None:
                connection.execute(
                    "INSERT INTO snapshots (snapshot_id, parent_id, created, tree, files, folders)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (snapshot_id, parent_id, self._clock(), document, json.dumps(files), json.dumps(folders)),
                )
        return self.get(snapshot_id)

    def unpack(self, snapshot_id: str, folder: Path) -> None:
        """Lay a snapshot out in a folder, which is made when it is missing. Nothing is written outside it.

        :raises Refusal: 404, there is no such snapshot. :raises StorageError: the storage. :raises OSError: the disk.
        """
        snapshot = self.get(snapshot_id)
        folder.mkdir(parents=True, exist_ok=True)
        for path in snapshot.folders:
            make_folder_below(folder, path)
        if len(snapshot.files) > _FEW:
            lay_out(self._blobs.stream(SNAPSHOTS_CONTAINER, self._zip(snapshot)), snapshot.files, folder)
            return
        for path, file in snapshot.files.items():
            write_below(folder, path, self._blobs.stream(SNAPSHOTS_CONTAINER, file.blob))

    def zip_url(self, snapshot_id: str) -> str:
        """Return the address of a snapshot as a zip file, with a signature; it is made where it is not there yet.

        :raises Refusal: 404, there is no such snapshot. :raises StorageError: the storage failed.
        """
        return plain_url(self._blobs.signed_url(SNAPSHOTS_CONTAINER, self._zip(self.get(snapshot_id))))

    def _zip(self, snapshot: Snapshot) -> str:
        """Return the name of the zip file's blob, made once however many ask for it."""
        name = f"zips/{snapshot.snapshot_id}.zip"
        with self._lock:
            making = self._zips.setdefault(name, threading.Lock())
        with making:
            if self._blobs.stat(SNAPSHOTS_CONTAINER, name) is None:
                opened = partial(self._blobs.stream, SNAPSHOTS_CONTAINER)
                self._blobs.put(SNAPSHOTS_CONTAINER, name, zipped(snapshot.folders, snapshot.files, opened))
        return name

    def _files_of(self, snapshot_id: str) -> Mapping[str, File]:
        """A parent that is not known is no error: a client may send everything and name any parent."""
        if not _ID.fullmatch(snapshot_id):
            return {}
        try:
            return self.get(snapshot_id).files
        except Refusal:
            return {}

    def _uploaded(self, uploads: Mapping[str, str]) -> dict[str, File]:
        """Return where each upload lies, asking the storage once for each round of uploads, not once a file."""
        names = {checked_path(path, "name of a file"): self._blob_of(url) for path, url in uploads.items()}
        there: dict[str, int] = {}
        for round_ in {name.rpartition("/")[0] for name in names.values()}:
            there |= {blob.name: blob.size for blob in self._blobs.list(SNAPSHOTS_CONTAINER, f"{round_}/")}
        for path, name in names.items():
            if name not in there:
                raise Refusal(400, "UserError", f"File {path} is named, but nothing was uploaded for it.")
        return {path: File(name, there[name], "") for path, name in names.items()}

    def _blob_of(self, url: str) -> str:
        base = self._blobs.url(SNAPSHOTS_CONTAINER, "")
        name = url.partition("?")[0].removeprefix(base).lstrip("/") if url.startswith(base) else ""
        if not _UPLOAD.fullmatch(name):
            raise Refusal(400, "UserError", "A BlobUri is not one that this service gave out.")
        return name


def _checked_id(snapshot_id: str) -> str:
    if not _ID.fullmatch(snapshot_id):
        raise Refusal(400, "UserError", "The id of a snapshot is not a GUID.")
    return snapshot_id.lower()

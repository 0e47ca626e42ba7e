"""Datasets: saved definitions, and the names and versions under which some of them are registered."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.database import Database

Kind = Literal["file", "tabular"]
KINDS: tuple[Kind, ...] = ("file", "tabular")

State = Literal["Active", "Deprecated", "Archived"]
STATES: tuple[State, ...] = ("Active", "Deprecated", "Archived")


@dataclass(frozen=True)
class SavedDataset:
    """A definition of a dataset: where its files are and how they are read. It never changes.

    :param dataflow: as the SDK sent it, see :mod:`himl_container.emulator.data.dataflow`.
    """

    saved_id: str
    kind: Kind
    dataflow: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetVersion:
    """A registered dataset.

    :param dataset_id: of all versions of the name; :param newest: whether no later version exists.
    :param created: seconds since the epoch, as ``modified``.
    """

    dataset_id: str
    name: str
    version: int
    saved: SavedDataset
    state: State = "Active"
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    newest: bool = True
    created: float = 0.0
    modified: float = 0.0


_TABLES = """
CREATE TABLE IF NOT EXISTS saved_datasets (
    saved_id TEXT PRIMARY KEY, kind TEXT NOT NULL, dataflow TEXT NOT NULL, properties TEXT NOT NULL,
    digest TEXT NOT NULL, created REAL NOT NULL);
CREATE INDEX IF NOT EXISTS saved_of_digest ON saved_datasets (digest);
CREATE TABLE IF NOT EXISTS datasets (
    dataset_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS dataset_versions (
    dataset_id TEXT NOT NULL REFERENCES datasets(dataset_id) ON DELETE CASCADE, version INTEGER NOT NULL,
    saved_id TEXT NOT NULL UNIQUE REFERENCES saved_datasets(saved_id), description TEXT NOT NULL, tags TEXT NOT NULL,
    created REAL NOT NULL, modified REAL NOT NULL, PRIMARY KEY (dataset_id, version));
"""

_SELECT = """
SELECT d.dataset_id, d.name, d.state, v.version, v.saved_id, v.description, v.tags, v.created, v.modified, s.kind,
    s.dataflow, s.properties,
    v.version = (SELECT max(version) FROM dataset_versions WHERE dataset_id = d.dataset_id) AS newest
FROM datasets d JOIN dataset_versions v USING (dataset_id) JOIN saved_datasets s USING (saved_id)
"""


class Datasets:
    """All datasets of the workspace."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        database.make_tables(_TABLES)

    def save(self, kind: Kind, dataflow: str, properties: Mapping[str, Any]) -> SavedDataset:
        """Keep a definition; an equal one that is kept already and not registered is the answer."""
        digest = _digest(kind, dataflow, properties)
        with self._database.write():
            # One that is registered has a name and tags, which are nothing to somebody who has the same files.
            row = self._database.row(
                "SELECT * FROM saved_datasets WHERE digest = ? "
                "AND saved_id NOT IN (SELECT saved_id FROM dataset_versions) ORDER BY created",
                (digest,),
            )
            return _saved(row) if row else self._insert(kind, dataflow, properties)

    def find_saved(self, saved_id: str) -> SavedDataset:
        """Return a saved definition.

        :raises Refusal: 404, there is none.
        """
        row = self._database.row("SELECT * FROM saved_datasets WHERE saved_id = ?", (saved_id,))
        if row is None:
            raise not_found(f"Dataset {saved_id[:100]!r}")
        return _saved(row)

    def register(
        self,
        name: str,
        kind: Kind,
        dataflow: str,
        *,
        properties: Mapping[str, Any] | None = None,
        saved_id: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
        new_version: bool = False,
    ) -> DatasetVersion:
        """Register a definition under a name.

        :param saved_id: of the definition where it is saved already; else a new one is made, so that each version has
            its own.
        :param new_version: whether the name may be taken; the definition then becomes its next version.
        :raises Refusal: 400 the saved definition is registered already, 404 there is no such one, 409 the name is
            taken.
        """
        with self._database.write() as connection:
            row = self._database.row("SELECT dataset_id FROM datasets WHERE name = ?", (name,))
            if row is not None and not new_version:
                raise Refusal(409, "UserError", f'There is already a dataset registered under name "{name}".')
            taken = self.of_saved(saved_id) if saved_id else None
            if taken is not None:
                # The words that the SDK looks for (``_register`` in ``data/abstract_dataset.py``).
                message = f"Dataset {saved_id} has been registered as {taken.name}:{taken.version} (name:version)."
                raise Refusal(400, "UserError", message)
            saved = self.find_saved(saved_id) if saved_id else self._insert(kind, dataflow, properties or {})
            now = self._clock()
            dataset_id = row["dataset_id"] if row else str(uuid.uuid4())
            if row is None:
                connection.execute("INSERT INTO datasets VALUES (?, ?, 'Active', ?)", (dataset_id, name, now))
            last = self._database.row(
                "SELECT max(version) AS last FROM dataset_versions WHERE dataset_id = ?", (dataset_id,)
            )
            version = ((last["last"] if last else None) or 0) + 1
            connection.execute(
                "INSERT INTO dataset_versions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (dataset_id, version, saved.saved_id, description, json.dumps(dict(tags or {})), now, now),
            )
        return self.get(name, version)

    def get(self, name: str, version: int | None = None) -> DatasetVersion:
        """Return a version of a name, the newest without one.

        :raises Refusal: 404, there is none.
        """
        condition, values = ("", ()) if version is None else ("AND v.version = ?", (version,))
        row = self._database.row(f"{_SELECT} WHERE d.name = ? {condition} ORDER BY v.version DESC", (name, *values))
        if row is None:
            raise not_found(f"Dataset {name[:300]!r}" + ("" if version is None else f" (version {version})"))
        return _version(row)

    def by_id(self, dataset_id: str, version: int | None = None) -> DatasetVersion:
        """Return a version of a dataset by its id, the newest without one.

        :raises Refusal: 404, there is none.
        """
        row = self._database.row("SELECT name FROM datasets WHERE dataset_id = ?", (dataset_id,))
        if row is None:
            raise not_found(f"Dataset {dataset_id[:100]!r}")
        return self.get(row["name"], version)

    def of_saved(self, saved_id: str) -> DatasetVersion | None:
        """Return under which name and version a saved definition is registered; None where it is not."""
        row = self._database.row(f"{_SELECT} WHERE v.saved_id = ?", (saved_id,))
        return None if row is None else _version(row)

    def page(
        self, after: str = "", limit: int = -1, *, archived: bool = False, containing: str = ""
    ) -> list[DatasetVersion]:
        """Return the newest version of each name, by name.

        :param after: begin behind this name; :param limit: how many at most, -1 for all.
        :param archived: whether to include what is archived; :param containing: a part of the name.
        """
        rows = self._database.rows(
            f"{_SELECT} WHERE newest AND d.name > ? AND (? OR d.state != 'Archived') AND instr(lower(d.name), ?) > 0 "
            "ORDER BY d.name LIMIT ?",
            (after, archived, containing.lower(), limit),
        )
        return [_version(row) for row in rows]

    def versions(self, dataset_id: str) -> list[DatasetVersion]:
        """Return all versions of a dataset, the newest first."""
        rows = self._database.rows(f"{_SELECT} WHERE d.dataset_id = ? ORDER BY v.version DESC", (dataset_id,))
        return [_version(row) for row in rows]

    def change(self, dataset_id: str, version: int, description: str, tags: Mapping[str, str]) -> DatasetVersion:
        """Change a version's description and tags.

        :raises Refusal: 404, there is none.
        """
        with self._database.write() as connection:
            connection.execute(
                "UPDATE dataset_versions SET description = ?, tags = ?, modified = ? "
                "WHERE dataset_id = ? AND version = ?",
                (description, json.dumps(dict(tags)), self._clock(), dataset_id, version),
            )
            return self.by_id(dataset_id, version)

    def set_state(self, dataset_id: str, state: State) -> None:
        """Archive a dataset, or take it back.

        :raises Refusal: 404, there is none.
        """
        with self._database.write() as connection:
            changed = connection.execute("UPDATE datasets SET state = ? WHERE dataset_id = ?", (state, dataset_id))
            if not changed.rowcount:
                raise not_found(f"Dataset {dataset_id[:100]!r}")

    def unregister(self, name: str) -> None:
        """Forget a name and its versions; their definitions stay saved, for the runs that used them.

        :raises Refusal: 404, there is none.
        """
        with self._database.write() as connection:
            if not connection.execute("DELETE FROM datasets WHERE name = ?", (name,)).rowcount:
                raise not_found(f"Dataset {name[:300]!r}")

    def _insert(self, kind: Kind, dataflow: str, properties: Mapping[str, Any]) -> SavedDataset:
        saved = SavedDataset(str(uuid.uuid4()), kind, dataflow, dict(properties))
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO saved_datasets VALUES (?, ?, ?, ?, ?, ?)",
                (
                    saved.saved_id,
                    kind,
                    dataflow,
                    json.dumps(saved.properties),
                    _digest(kind, dataflow, properties),
                    self._clock(),
                ),
            )
        return saved


def _digest(kind: Kind, dataflow: str, properties: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([kind, dataflow, properties], sort_keys=True).encode()).hexdigest()


def _saved(row: sqlite3.Row) -> SavedDataset:
    return SavedDataset(row["saved_id"], row["kind"], row["dataflow"], json.loads(row["properties"]))


def _version(row: sqlite3.Row) -> DatasetVersion:
    return DatasetVersion(
        dataset_id=row["dataset_id"],
        name=row["name"],
        version=row["version"],
        saved=_saved(row),
        state=row["state"],
        description=row["description"],
        tags=json.loads(row["tags"]),
        newest=bool(row["newest"]),
        created=row["created"],
        modified=row["modified"],
    )

"""Datastores: names for containers of blobs, and the credentials to reach them."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from himl_container.emulator.blobs import FILES_CONTAINER, RUNS_CONTAINER
from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.database import Database

BLOB = "AzureBlob"

DEFAULT_STORE = "workspaceblobstore"
ARTIFACT_STORE = "workspaceartifactstore"
FILE_STORE = "workspacefilestore"

CONFLICT = "Another datastore with the same name already exists"
"""The SDK looks for these words (``data/constants.py``) to change an existing datastore with ``overwrite=True``."""

_NAME = re.compile(r"[A-Za-z0-9_]{1,255}")

SECTIONS: Mapping[str, str] = {
    "AzureBlob": "azureStorageSection",
    "AzureFile": "azureStorageSection",
    "AzureDataLakeGen2": "azureStorageSection",
    "AzureDataLake": "azureDataLakeSection",
    "AzureSqlDatabase": "azureSqlDatabaseSection",
    "AzurePostgreSql": "azurePostgreSqlSection",
    "AzureMySql": "azureMySqlSection",
    "Hdfs": "hdfsSection",
    "DBFS": "",
}
"""Kinds of datastores, and where the wire keeps what is known of each (``_restclient/models/data_store.py``)."""


@dataclass(frozen=True)
class Datastore:
    """One datastore.

    :param kind: one of :data:`SECTIONS`.
    :param section: its section of the wire as it was registered, with credentials; of a built-in one without.
    :param built_in: made by the workspace itself; its credentials are those of the workspace's storage account.
    """

    name: str
    kind: str
    section: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    built_in: bool = False
    created: float = 0.0

    @property
    def account(self) -> str:
        """The storage account; empty where there is none."""
        return str(self.section.get("accountName") or "")

    @property
    def container(self) -> str:
        """The container of blobs, or the file share; empty where there is none."""
        return str(self.section.get("containerName") or "")


_TABLES = """
CREATE TABLE IF NOT EXISTS datastores (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, section TEXT NOT NULL, tags TEXT NOT NULL, built_in INTEGER NOT NULL,
    created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS default_datastore (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL);
"""


class Datastores:
    """All datastores of the workspace. Names do not distinguish case; Azure keeps them in small letters.

    :param account: the workspace's storage account, which the built-in datastores belong to.
    """

    def __init__(self, database: Database, account: str, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        database.make_tables(_TABLES)
        share = {"accountName": account, "containerName": "azureml-filestore"}
        with database.write() as connection:
            for name, kind, section in (
                (DEFAULT_STORE, BLOB, {"accountName": account, "containerName": FILES_CONTAINER}),
                (ARTIFACT_STORE, BLOB, {"accountName": account, "containerName": RUNS_CONTAINER}),
                (FILE_STORE, "AzureFile", share),
            ):
                connection.execute(
                    "INSERT OR IGNORE INTO datastores VALUES (?, ?, ?, '{}', 1, ?)",
                    (name, kind, json.dumps(section), clock()),
                )

    def create(self, name: str, kind: str, section: Mapping[str, Any], tags: Mapping[str, str]) -> Datastore:
        """Register a datastore.

        :raises Refusal: 400, a bad name, or there is one of that name.
        """
        name = checked_name(name)
        made = Datastore(name, kind, section, tags, False, self._clock())
        with self._database.write() as connection:
            if self.find(name) is not None:
                raise Refusal(400, "UserError", f"{CONFLICT}: {name}.")
            connection.execute("INSERT INTO datastores VALUES (?, ?, ?, ?, ?, ?)", _row(made))
        return made

    def replace(self, name: str, kind: str, section: Mapping[str, Any], tags: Mapping[str, str]) -> Datastore:
        """Change where a datastore leads to and its credentials.

        :raises Refusal: 404 there is none, 400 it is a built-in one or of another kind.
        """
        with self._database.write() as connection:
            old = self.get(name)
            if old.built_in:
                raise Refusal(400, "UserError", f"Datastore {old.name} belongs to the workspace and cannot be changed.")
            if old.kind != kind:
                raise Refusal(400, "UserError", f"Datastore {old.name} is of the type {old.kind}, not {kind}.")
            made = Datastore(old.name, kind, section, tags, False, old.created)
            connection.execute("REPLACE INTO datastores VALUES (?, ?, ?, ?, ?, ?)", _row(made))
        return made

    def find(self, name: str) -> Datastore | None:
        """Return a datastore; None where there is none."""
        row = self._database.row("SELECT * FROM datastores WHERE name = ?", (name.lower(),))
        return None if row is None else _datastore(row)

    def get(self, name: str) -> Datastore:
        """Return a datastore.

        :raises Refusal: 404, there is none.
        """
        found = self.find(name)
        if found is None:
            raise not_found(f"Datastore {name[:100]!r}")
        return found

    def page(self, after: str = "", limit: int = -1) -> list[Datastore]:
        """Return the datastores by name.

        :param after: begin behind this name; :param limit: how many at most, -1 for all.
        """
        sql = "SELECT * FROM datastores WHERE name > ? ORDER BY name LIMIT ?"
        return [_datastore(row) for row in self._database.rows(sql, (after, limit))]

    def delete(self, name: str) -> bool:
        """Forget a datastore, not its data; false where there is none. The workspace's own becomes the default.

        :raises Refusal: 400, it is a built-in one.
        """
        with self._database.write() as connection:
            old = self.find(name)
            if old is None:
                return False
            if old.built_in:
                raise Refusal(400, "UserError", f"Datastore {old.name} belongs to the workspace and cannot be deleted.")
            connection.execute("DELETE FROM datastores WHERE name = ?", (old.name,))
            connection.execute("DELETE FROM default_datastore WHERE name = ?", (old.name,))
        return True

    def default(self) -> Datastore:
        """Return the default datastore."""
        row = self._database.row("SELECT name FROM default_datastore")
        return self.get(row["name"] if row else DEFAULT_STORE)

    def set_default(self, name: str) -> None:
        """Choose the default datastore.

        :raises Refusal: 404, there is none.
        """
        with self._database.write() as connection:
            connection.execute("REPLACE INTO default_datastore VALUES (1, ?)", (self.get(name).name,))


def checked_name(name: object) -> str:
    """Return a datastore's name in small letters.

    :raises Refusal: 400, it has other characters than letters, digits and underscores
        (``core/datastore.py`` of the SDK), or more than 255.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refusal(400, "UserError", "A datastore's name has letters, digits and '_', at most 255.")
    return name.lower()


def _row(store: Datastore) -> tuple[object, ...]:
    section, tags = json.dumps(dict(store.section)), json.dumps(dict(store.tags))
    return (store.name, store.kind, section, tags, int(store.built_in), store.created)


def _datastore(row: sqlite3.Row) -> Datastore:
    return Datastore(
        row["name"],
        row["kind"],
        json.loads(row["section"]),
        json.loads(row["tags"]),
        bool(row["built_in"]),
        row["created"],
    )

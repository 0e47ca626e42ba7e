"""Registered models: names and versions for files that a run wrote or somebody uploaded, which an asset names."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.database import Database

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True)
class Asset:
    """What a model consists of.

    :param artifacts: ``{"id": ...}`` names a file, ``{"prefix": ...}`` all below a folder, as
        ``<origin>/<container>/<path>``.
    """

    asset_id: str
    name: str
    artifacts: tuple[Mapping[str, str], ...]
    description: str = ""
    kind: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    run_id: str = ""
    owner: str = ""
    created: float = 0.0


@dataclass(frozen=True)
class Model:
    """One version of a model.

    :param url: ``aml://asset/<id>``.
    :param values: further fields of the wire that are only kept (``mimeType``, ``framework``, ``unpack``, ...).
    :param owner: the run whose job registered it; empty for a user.
    :param created_by: name of the user or run; :param created: seconds since the epoch, as ``modified``.
    """

    name: str
    version: int
    url: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Mapping[str, str], ...] = ()
    run_id: str = ""
    experiment: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""
    created_by: str = ""
    created: float = 0.0
    modified: float = 0.0

    @property
    def model_id(self) -> str:
        """Its name in the wire's terms."""
        return f"{self.name}:{self.version}"


_TABLES = """
CREATE TABLE IF NOT EXISTS assets (asset_id TEXT PRIMARY KEY, created REAL NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS asset_artifacts (
    asset_id TEXT NOT NULL REFERENCES assets(asset_id) ON DELETE CASCADE, place TEXT NOT NULL, path TEXT NOT NULL,
    folder INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS assets_of_place ON asset_artifacts (place);
CREATE TABLE IF NOT EXISTS models (
    name TEXT NOT NULL, version INTEGER NOT NULL, created REAL NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (name, version));
CREATE TABLE IF NOT EXISTS model_numbers (name TEXT PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS upload_owners (container TEXT PRIMARY KEY, run_id TEXT NOT NULL);
"""


class Models:
    """All models of the workspace, and their assets."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        database.make_tables(_TABLES)

    # --- assets ---

    def create_asset(self, asset: Asset) -> Asset:
        """Keep an asset; its id and time are given here.

        :raises Refusal: 400, it names no file in the wire's terms.
        """
        made = replace(asset, asset_id=uuid.uuid4().hex, created=self._clock())
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO assets VALUES (?, ?, ?)", (made.asset_id, made.created, json.dumps(made.__dict__))
            )
            connection.executemany(
                "INSERT INTO asset_artifacts VALUES (?, ?, ?, ?)",
                [(made.asset_id, *_artifact_place(item)) for item in made.artifacts],
            )
        return made

    def asset(self, asset_id: str) -> Asset:
        """Return an asset.

        :raises Refusal: 404, there is none.
        """
        row = self._database.row("SELECT document FROM assets WHERE asset_id = ?", (asset_id,))
        if row is None:
            raise not_found(f"Asset {asset_id[:100]!r}")
        return _asset(row)

    def assets(self) -> list[Asset]:
        """Return all assets, the newest first."""
        return [_asset(row) for row in self._database.rows("SELECT document FROM assets ORDER BY created DESC")]

    def change_asset(self, asset: Asset) -> None:
        """Keep an asset's description, tags and properties; its files stay as they are."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE assets SET document = ? WHERE asset_id = ?", (json.dumps(asset.__dict__), asset.asset_id)
            )

    def delete_asset(self, asset_id: str) -> bool:
        """Forget an asset, not its files; false where there is none.

        :raises Refusal: 400, a model has it.
        """
        with self._database.write() as connection:
            users = [model.model_id for model in self.all() if model.url == f"aml://asset/{asset_id}"]
            if users:
                raise Refusal(400, "UserError", f"The asset is used by {', '.join(users[:5])}.")
            return bool(connection.execute("DELETE FROM assets WHERE asset_id = ?", (asset_id,)).rowcount)

    def holds(self, origin: str, container: str, path: str) -> bool:
        """Whether a file, or all files below a path, belong to an asset."""
        rows = self._database.rows(
            "SELECT path, folder FROM asset_artifacts WHERE place = ?", (f"{origin}/{container}".lower(),)
        )
        path = path.strip("/")
        if {"", ".", ".."} & set(path.split("/")):
            return False  # it may lead elsewhere
        return any(
            path == row["path"] or (row["folder"] and (not row["path"] or path.startswith(f"{row['path']}/")))
            for row in rows
        )

    # --- uploads without a run ---

    def claim(self, container: str, run_id: str) -> bool:
        """Make a new container of uploaded files that of a run's job; false where it is somebody else's.

        :param run_id: empty for a user, who may write to every container.
        """
        with self._database.write() as connection:
            connection.execute("INSERT OR IGNORE INTO upload_owners VALUES (?, ?)", (container, run_id))
            return self.owner(container) == run_id or not run_id

    def owner(self, container: str) -> str | None:
        """Return the run whose job made a container of uploaded files; empty for a user, None for nobody yet."""
        row = self._database.row("SELECT run_id FROM upload_owners WHERE container = ?", (container,))
        return None if row is None else str(row["run_id"])

    # --- models ---

    def register(self, model: Model) -> Model:
        """Keep the next version of a name; a number is never given twice, also where versions were deleted.

        :raises Refusal: 400 a bad name, 404 its asset does not exist.
        """
        if not _NAME.fullmatch(model.name):
            raise Refusal(
                400, "UserError", "A model's name has letters, digits, '-', '_' and '.', at most 255, no mark first."
            )
        with self._database.write() as connection:
            if model.url.startswith("aml://asset/"):
                self.asset(model.url.removeprefix("aml://asset/"))
            connection.execute("INSERT OR IGNORE INTO model_numbers VALUES (?, 0)", (model.name,))
            connection.execute("UPDATE model_numbers SET last = last + 1 WHERE name = ?", (model.name,))
            row = self._database.row("SELECT last FROM model_numbers WHERE name = ?", (model.name,))
            now = self._clock()
            made = replace(model, version=row["last"] if row else 1, created=now, modified=now)
            connection.execute(
                "INSERT INTO models VALUES (?, ?, ?, ?)", (made.name, made.version, now, json.dumps(made.__dict__))
            )
        return made

    def get(self, model_id: str) -> Model:
        """Return a version by ``name:version``.

        :raises Refusal: 404, there is none.
        """
        name, _, version = model_id.rpartition(":")
        row = None
        if version.isascii() and version.isdigit() and len(version) < 10:
            values = (name, int(version))
            row = self._database.row("SELECT document FROM models WHERE name = ? AND version = ?", values)
        if row is None:
            raise not_found(f"Model {model_id[:300]!r}")
        return _model(row)

    def all(self, name: str = "") -> list[Model]:
        """Return the versions of a name, or of all names, the newest first."""
        sql = "SELECT document FROM models WHERE name = ? OR ? = '' ORDER BY created DESC, version DESC"
        return [_model(row) for row in self._database.rows(sql, (name, name))]

    def change(self, model_id: str, change: Callable[[Model], Model]) -> Model:
        """Change a version by a function of what it is now, in one transaction.

        :raises Refusal: 404, there is none.
        """
        with self._database.write() as connection:
            made = replace(change(self.get(model_id)), modified=self._clock())
            connection.execute(
                "UPDATE models SET document = ? WHERE name = ? AND version = ?",
                (json.dumps(made.__dict__), made.name, made.version),
            )
        return made

    def delete(self, model_id: str) -> bool:
        """Forget a version, not its files; false where there is none."""
        try:
            model = self.get(model_id)
        except Refusal:
            return False
        with self._database.write() as connection:
            connection.execute("DELETE FROM models WHERE name = ? AND version = ?", (model.name, model.version))
        return True


def latest_only(models: Iterable[Model]) -> list[Model]:
    """Return the newest version of each name."""
    newest: dict[str, int] = {}
    items = list(models)
    for model in items:
        newest[model.name] = max(model.version, newest.get(model.name, 0))
    return [model for model in items if newest[model.name] == model.version]


def artifact_parts(item: Mapping[str, str]) -> tuple[str, str, str, bool]:
    """Return origin, container and path of what an asset names, and whether it is a folder.

    :raises Refusal: 400, it is not in the wire's terms.
    """
    folder = not item.get("id")
    name = str(item.get("prefix") if folder else item.get("id"))
    origin, _, rest = name.partition("/")
    container, _, path = rest.partition("/")
    path = path.strip("/")
    if not origin or not container or not path or ".." in path.split("/"):
        raise Refusal(400, "UserError", f"{name[:300]!r} is not a file or folder of artifacts.")
    return origin, container, path, folder


def _artifact_place(item: Mapping[str, str]) -> tuple[str, str, int]:
    origin, container, path, folder = artifact_parts(item)
    return f"{origin}/{container}".lower(), path, int(folder)


def _asset(row: sqlite3.Row) -> Asset:
    document = json.loads(row["document"])
    document["artifacts"] = tuple(document["artifacts"])
    return Asset(**document)


def _model(row: sqlite3.Row) -> Model:
    document = json.loads(row["document"])
    document["datasets"] = tuple(document["datasets"])
    return Model(**document)

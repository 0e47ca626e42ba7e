"""Environments: definitions under names and versions, their labels, and the builds of their images."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.database import Database

LATEST = "latest"
"""The label that the newest version of every environment has."""

AUTOSAVED = "Autosave_"
"""Begins the version of a definition that was only submitted, never registered; as Azure's do."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 _.()-]{0,254}")
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,99}")
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_RESERVED = ("azureml", "microsoft")
_NUMBER = re.compile(r"[0-9]{1,9}")
_PARTS = ("python", "docker", "environmentVariables", "spark", "inferencingStackVersion", "r")

_TABLES = """
CREATE TABLE IF NOT EXISTS environments (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, version TEXT NOT NULL, autosaved INTEGER NOT NULL,
    created REAL NOT NULL, hash TEXT NOT NULL, definition TEXT NOT NULL, UNIQUE (name, version));
CREATE INDEX IF NOT EXISTS environments_by_hash ON environments (name, hash);
CREATE TABLE IF NOT EXISTS environment_labels (
    name TEXT NOT NULL, label TEXT NOT NULL, version TEXT NOT NULL, PRIMARY KEY (name, label)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS image_builds (
    build_id TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL,
    created REAL NOT NULL);
"""


@dataclass(frozen=True)
class Environment:
    """One version of an environment.

    :param definition: what the SDK sent (``python``, ``docker``, ...), without name and version. May hold the password
        of a registry.
    """

    name: str
    version: str
    created: float
    definition: Mapping[str, Any]


@dataclass(frozen=True)
class ImageBuild:
    """A build that somebody asked for. ``status`` is ``Running``, ``Succeeded`` or ``Failed``."""

    build_id: str
    name: str
    version: str
    status: str
    error: str = ""


class Environments:
    """All environments of the workspace."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        database.make_tables(_TABLES)

    # --- definitions ---

    def register(self, name: str, definition: Mapping[str, Any], version: str = "") -> Environment:
        """Keep a definition under a name.

        Without a version it gets the next number, or keeps the newest version where that is equal. An older equal one
        is not taken: whoever registers a definition expects to find it as the newest.

        :raises Refusal: 400 a bad or reserved name, 409 the version exists and is another definition.
        """
        name = _checked_name(name)
        if name.lower().startswith(_RESERVED):
            raise Refusal(
                400, "UserError", "Names that begin with AzureML or Microsoft are those of curated environments."
            )
        content = _content(definition)
        with self._database.write():
            if version:
                return self._register_version(name, _checked_version(version), content)
            newest = self.find(name)
            if newest is not None and hash_of(newest.definition) == hash_of(content):
                return newest
            return self._insert(name, str(self._next_number(name)), content)

    def of_run(self, environment: Mapping[str, Any]) -> Environment:
        """Return the environment of a run configuration, which is kept where nobody has registered it.

        :param environment: a whole definition with or without a version, or only a name and a version.
        :raises Refusal: 400, there is no such environment, or the name is none.
        """
        name, version = _checked_name(environment.get("name")), environment.get("version") or ""
        content = _content(environment)
        with self._database.write():
            if version:
                found = self.find(name, _checked_version(version))
                if found is None and not content:
                    raise Refusal(400, "UserError", f"Environment {name}, version {version}, does not exist.")
                return found or self._insert(name, version, content)
            found = self.find(name)
            if not content:
                if found is None:
                    raise Refusal(400, "UserError", f"Environment {name} does not exist.")
                return found
            digest = hash_of(content)
            if found is None or hash_of(found.definition) != digest:
                found = self._autosaved(name, digest)
            time = datetime.fromtimestamp(self._clock(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            return found or self._insert(name, f"{AUTOSAVED}{time}_{digest[:8]}", content, autosaved=True)

    def named(self, environment: Mapping[str, Any], experiment: str) -> dict[str, Any]:
        """Return the ``environment`` of a run configuration as the run keeps it: whole, with its name and version.

        ``Run.get_environment`` of the SDK asks for that version. One without a name gets Azure's for it.

        :raises Refusal: 400, as :meth:`of_run`.
        """
        name = environment.get("name") or f"Experiment {experiment} Environment"
        found = self.of_run({**environment, "name": name})
        whole = environment if _content(environment) else found.definition
        return {**whole, "name": found.name, "version": found.version}

    def find(self, name: str, version: str = "") -> Environment | None:
        """Return a version of an environment, or the newest registered one; None where there is none."""
        sql = "SELECT * FROM environments WHERE name = ? AND "
        if version:
            row = self._database.row(sql + "version = ?", (name, version))
        else:
            row = self._database.row(sql + "NOT autosaved ORDER BY number DESC LIMIT 1", (name,))
        return None if row is None else _environment(row)

    def get(self, name: str, version: str = "") -> Environment:
        """Return a version of an environment, or the newest registered one.

        :raises Refusal: 404, there is none.
        """
        found = self.find(name, version)
        if found is None:
            raise not_found(f"Environment {name}{f', version {version},' if version else ''}")
        return found

    def newest(self) -> list[Environment]:
        """Return the newest registered version of every environment, by name."""
        rows = self._database.rows(
            "SELECT * FROM environments WHERE number IN "
            "(SELECT max(number) FROM environments WHERE NOT autosaved GROUP BY name) ORDER BY name"
        )
        return [_environment(row) for row in rows]

    def versions(self, name: str) -> list[Environment]:
        """Return the registered versions of an environment, the oldest first.

        :raises Refusal: 404, there is none.
        """
        sql = "SELECT * FROM environments WHERE name = ? AND NOT autosaved ORDER BY number"
        found = [_environment(row) for row in self._database.rows(sql, (name,))]
        if not found:
            raise not_found(f"Environment {name}")
        return found

    # --- labels ---

    def label(self, name: str, version: str, labels: Sequence[object]) -> None:
        """Give a version labels, each of which another version of the name may have had before.

        :raises Refusal: 400 a bad label, 404 there is no such version.
        """
        self.get(name, version)
        for label in labels:
            if not isinstance(label, str) or not _LABEL.fullmatch(label) or label.lower() == LATEST:
                raise Refusal(400, "UserError", f"{str(label)[:50]!r} cannot be a label.")
        with self._database.write() as connection:
            values = [(name, label, version) for label in labels]
            connection.executemany("INSERT OR REPLACE INTO environment_labels VALUES (?, ?, ?)", values)

    def labelled(self, name: str, label: str) -> Environment:
        """Return the version that has a label.

        :raises Refusal: 404, there is none.
        """
        if label.lower() == LATEST:
            return self.get(name)
        row = self._database.row("SELECT version FROM environment_labels WHERE name = ? AND label = ?", (name, label))
        if row is None:
            raise not_found(f"Label {label} of environment {name}")
        return self.get(name, row["version"])

    # --- builds ---

    def begin_build(self, name: str, version: str) -> ImageBuild:
        """Note a build of a version's image."""
        build = ImageBuild(str(uuid.uuid4()), name, version, "Running")
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO image_builds VALUES (?, ?, ?, ?, '', ?)",
                (build.build_id, name, version, build.status, self._clock()),
            )
        return build

    def end_build(self, build_id: str, status: str, error: str = "") -> None:
        """Note how a build ended."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE image_builds SET status = ?, error = ? WHERE build_id = ?", (status, error, build_id)
            )

    def get_build(self, build_id: str) -> ImageBuild:
        """Return a build.

        :raises Refusal: 404, there is none.
        """
        row = self._database.row("SELECT * FROM image_builds WHERE build_id = ?", (build_id,))
        if row is None:
            raise not_found("The build")
        return ImageBuild(row["build_id"], row["name"], row["version"], row["status"], row["error"])

    def fail_unfinished_builds(self, error: str) -> None:
        """Note that builds of an emulator that has ended will not go on."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE image_builds SET status = 'Failed', error = ? WHERE status = 'Running'", (error,)
            )

    # --- parts ---

    def _register_version(self, name: str, version: str, content: Mapping[str, Any]) -> Environment:
        found = self.find(name, version)
        if found is None:
            return self._insert(name, version, content)
        if hash_of(found.definition) != hash_of(content):
            # "If instance matches - no-op, otherwise conflict should occur" (``Environment.build`` of the SDK).
            text = f"Environment {name}, version {version}, exists and has another definition."
            raise Refusal(409, "UserError", f"{text} Leave the version out to register the next one.")
        return found

    def _autosaved(self, name: str, digest: str) -> Environment | None:
        sql = "SELECT * FROM environments WHERE name = ? AND hash = ? AND autosaved ORDER BY number DESC LIMIT 1"
        row = self._database.row(sql, (name, digest))
        return None if row is None else _environment(row)

    def _next_number(self, name: str) -> int:
        rows = self._database.rows("SELECT version FROM environments WHERE name = ?", (name,))
        return max((int(row["version"]) for row in rows if _NUMBER.fullmatch(row["version"])), default=0) + 1

    def _insert(self, name: str, version: str, content: Mapping[str, Any], *, autosaved: bool = False) -> Environment:
        made = Environment(name, version, self._clock(), content)
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO environments VALUES (NULL, ?, ?, ?, ?, ?, ?)",
                (name, version, autosaved, made.created, hash_of(content), json.dumps(content)),
            )
        return made


def hash_of(definition: Mapping[str, Any]) -> str:
    """Return the hash of what a definition says; nothing said and ``null`` are the same."""
    text = json.dumps(_said(definition), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _said(value: Any) -> Any:
    if isinstance(value, Mapping):
        found = {key: _said(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item not in (None, {}, [])}
    return [_said(item) for item in value] if isinstance(value, list) else value


def _content(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a definition under the names of the SDK's answers; it sends some with a capital."""
    names = {name.lower(): name for name in _PARTS}
    found = {names[key.lower()]: item for key, item in document.items() if key.lower() in names and item is not None}
    for name, item in found.items():
        if name != "inferencingStackVersion" and not isinstance(item, Mapping):
            raise Refusal(400, "UserError", f"{name} of the environment is not an object.")
    return found


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refusal(
            400, "UserError", "An environment's name has letters, digits, blanks and '-', '_', '.', at most 255."
        )
    return name


def _checked_version(version: object) -> str:
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise Refusal(400, "UserError", "An environment's version has letters, digits and '-', '_', '.', at most 100.")
    return version


def _environment(row: sqlite3.Row) -> Environment:
    return Environment(row["name"], row["version"], row["created"], json.loads(row["definition"]))

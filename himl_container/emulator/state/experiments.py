"""Experiments: the names under which runs are kept."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.database import Database

EXPERIMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}")


@dataclass(frozen=True)
class Experiment:
    """An experiment of the workspace.

    :param archived_time: when it was archived, in seconds since the epoch; None for an active one.
    """

    name: str
    experiment_id: str
    created: float
    tags: Mapping[str, str | None] = field(default_factory=dict)
    description: str = ""
    archived_time: float | None = None

    @property
    def archived(self) -> bool:
        """Whether it has been archived."""
        return self.archived_time is not None


_TABLES = """
CREATE TABLE IF NOT EXISTS experiments (
    experiment_id TEXT PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE, created REAL NOT NULL, archived REAL,
    document TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS active_experiments ON experiments (name) WHERE archived IS NULL;
"""


class Experiments:
    """All experiments. Of one name there is one that is active, and any number that are archived."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        database.make_tables(_TABLES)

    def experiment(self, name: str) -> Experiment:
        """Return the active experiment of a name.

        :raises Refusal: 404, there is none.
        """
        row = self._database.row("SELECT * FROM experiments WHERE name = ? AND archived IS NULL", (name,))
        if row is None:
            raise not_found(f"Experiment {name}")
        return _experiment(row)

    def experiments_of_name(self, name: str) -> list[Experiment]:
        """Return the active and the archived experiments of a name, the active one first."""
        sql = "SELECT * FROM experiments WHERE name = ? ORDER BY archived IS NOT NULL, archived DESC"
        return [_experiment(row) for row in self._database.rows(sql, (name,))]

    def experiment_of_id(self, experiment_id: str) -> Experiment:
        """Return the experiment of an id.

        :raises Refusal: 404, there is none.
        """
        row = self._database.row("SELECT * FROM experiments WHERE experiment_id = ?", (experiment_id,))
        if row is None:
            raise not_found(f"Experiment {experiment_id}")
        return _experiment(row)

    def experiments(self) -> list[Experiment]:
        """Return all experiments, the newest first."""
        rows = self._database.rows("SELECT * FROM experiments ORDER BY created DESC, rowid DESC")
        return [_experiment(row) for row in rows]

    def make_experiment(self, name: str) -> Experiment:
        """Return the active experiment of a name, made where there is none.

        :raises Refusal: 400, the name is not one that Azure takes.
        """
        if not EXPERIMENT.fullmatch(name):
            raise Refusal(400, "UserError", "An experiment's name has letters, digits, '-' and '_', at most 255.")
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO experiments VALUES (?, ?, ?, NULL, '{}')",
                (str(uuid.uuid4()), name, self._clock()),
            )
        return self.experiment(name)

    def change_experiment(self, experiment_id: str, **values: object) -> Experiment:
        """Change ``tags`` or ``description`` of an experiment.

        :raises Refusal: 404, there is none.
        """
        with self._database.write() as connection:
            old = self.experiment_of_id(experiment_id)
            document = {"tags": dict(old.tags), "description": old.description, **values}
            connection.execute(
                "UPDATE experiments SET document = ? WHERE experiment_id = ?", (json.dumps(document), experiment_id)
            )
        return self.experiment_of_id(experiment_id)

    def archive_experiment(self, experiment_id: str, archived: bool) -> Experiment:
        """Archive an experiment, whose name is free then, or make it active again.

        :raises Refusal: 404 there is none; 409 another of its name is active.
        """
        with self._database.write() as connection:
            old = self.experiment_of_id(experiment_id)
            if old.archived is archived:
                return old
            try:
                connection.execute(
                    "UPDATE experiments SET archived = ? WHERE experiment_id = ?",
                    (self._clock() if archived else None, experiment_id),
                )
            except sqlite3.IntegrityError:
                raise Refusal(409, "UserError", f"Another experiment of the name {old.name} is active.") from None
        return self.experiment_of_id(experiment_id)


def _experiment(row: sqlite3.Row) -> Experiment:
    document: dict[str, Any] = json.loads(row["document"])
    return Experiment(row["name"], row["experiment_id"], row["created"], archived_time=row["archived"], **document)

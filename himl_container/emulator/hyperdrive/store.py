"""What has to be known of searches after a kill: what was asked for, and which parameters which child got."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from himl_container.emulator.state.database import Database

_TABLES = """
CREATE TABLE IF NOT EXISTS searches (run_id TEXT PRIMARY KEY, document TEXT NOT NULL, ended INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS search_samples (
    run_id TEXT NOT NULL, number INTEGER NOT NULL, child_id TEXT NOT NULL UNIQUE, parameters TEXT NOT NULL,
    PRIMARY KEY (run_id, number)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Sample:
    """The parameters of one child. ``number`` counts the children of a search, from 0."""

    number: int
    child_id: str
    parameters: Mapping[str, Any]


class SearchStore:
    """All searches."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.make_tables(_TABLES)

    def add(self, run_id: str, document: Mapping[str, Any]) -> None:
        """Note a new search, as it was sent."""
        with self._database.write() as connection:
            connection.execute("INSERT INTO searches (run_id, document) VALUES (?, ?)", (run_id, json.dumps(document)))

    def document(self, run_id: str) -> dict[str, Any] | None:
        """Return what was sent; None where the run is no search."""
        row = self._database.row("SELECT document FROM searches WHERE run_id = ?", (run_id,))
        return None if row is None else dict(json.loads(row["document"]))

    def unfinished(self) -> list[str]:
        """Return the searches that have something left to do, in the order of their submission."""
        return [
            row["run_id"] for row in self._database.rows("SELECT run_id FROM searches WHERE NOT ended ORDER BY rowid")
        ]

    def end(self, run_id: str) -> None:
        """Note that nothing is left to do."""
        with self._database.write() as connection:
            connection.execute("UPDATE searches SET ended = 1 WHERE run_id = ?", (run_id,))

    def add_sample(self, run_id: str, sample: Sample) -> None:
        """Note the parameters of a child."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO search_samples VALUES (?, ?, ?, ?)",
                (run_id, sample.number, sample.child_id, json.dumps(sample.parameters)),
            )

    def samples(self, run_id: str) -> list[Sample]:
        """Return the children of a search, in their order."""
        rows = self._database.rows("SELECT * FROM search_samples WHERE run_id = ? ORDER BY number", (run_id,))
        return [Sample(row["number"], row["child_id"], json.loads(row["parameters"])) for row in rows]

    def sample_of(self, child_id: str) -> Sample | None:
        """Return the parameters of a child; None where the run is no child of a search."""
        row = self._database.row("SELECT * FROM search_samples WHERE child_id = ?", (child_id,))
        return None if row is None else Sample(row["number"], row["child_id"], json.loads(row["parameters"]))

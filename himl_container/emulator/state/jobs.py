"""Jobs of the compute that have not ended: what has to be known of them after a kill of the emulator."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from himl_container.emulator.state.database import Database

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    position INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL UNIQUE, cluster TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0, outcome TEXT NOT NULL DEFAULT '');
"""


@dataclass(frozen=True)
class Job:
    """One job.

    :param position: counts all jobs, in the order of their submission.
    :param attempt: how often it was preempted.
    :param seconds: how long its earlier starts ran.
    :param outcome: how it ended where only its files were left to be uploaded: ``status`` and ``error``.
    """

    position: int
    run_id: str
    cluster: str
    attempt: int = 0
    seconds: float = 0
    outcome: Mapping[str, Any] = field(default_factory=dict)


class Jobs:
    """All jobs that have not ended."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.make_tables(_TABLES)

    def add(self, run_id: str, cluster: str) -> Job:
        """Note a new job at the end of the queue; nothing changes for one that is known."""
        with self._database.write() as connection:
            connection.execute("INSERT OR IGNORE INTO jobs (run_id, cluster) VALUES (?, ?)", (run_id, cluster))
        job = self.find(run_id)
        assert job is not None
        return job

    def find(self, run_id: str) -> Job | None:
        """Return a job; None where there is none, or it has ended."""
        row = self._database.row("SELECT * FROM jobs WHERE run_id = ?", (run_id,))
        return None if row is None else _job(row)

    def all(self) -> list[Job]:
        """Return all jobs, in the order of their submission."""
        return [_job(row) for row in self._database.rows("SELECT * FROM jobs ORDER BY position")]

    def preempted(self, run_id: str, seconds: float) -> Job | None:
        """Count a preemption of a start that ran this long; the job keeps its place in the order."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE jobs SET attempt = attempt + 1, seconds = seconds + ? WHERE run_id = ?", (seconds, run_id)
            )
        return self.find(run_id)

    def note_outcome(self, run_id: str, status: str, error: Mapping[str, Any]) -> None:
        """Note how a job ended, before its files are uploaded."""
        document = json.dumps({"status": status, "error": dict(error)})
        with self._database.write() as connection:
            connection.execute("UPDATE jobs SET outcome = ? WHERE run_id = ?", (document, run_id))

    def remove(self, run_id: str) -> None:
        """Forget a job that has ended."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM jobs WHERE run_id = ?", (run_id,))


def _job(row: sqlite3.Row) -> Job:
    outcome = json.loads(row["outcome"]) if row["outcome"] else {}
    return Job(row["position"], row["run_id"], row["cluster"], row["attempt"], row["seconds"], outcome)

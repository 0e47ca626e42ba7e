"""Runs: what happened to whom, in which experiment, under which parent."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.experiments import Experiment, Experiments
from himl_container.emulator.state.run import Run, Status, iso, tag_map, text_map

__all__ = ["Experiment", "Listener", "Run", "Runs", "Status", "iso", "tag_map", "text_map"]

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")

Listener = Callable[[Run, Run], None]
"""Told of a run before and after a change of its status, after the change was stored."""


_TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, experiment_id TEXT NOT NULL REFERENCES experiments(experiment_id), number INTEGER NOT NULL,
    parent_id TEXT NOT NULL, root_id TEXT NOT NULL, status TEXT NOT NULL, created REAL NOT NULL,
    document TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS runs_of_experiment ON runs (experiment_id, created);
CREATE INDEX IF NOT EXISTS runs_of_parent ON runs (parent_id, created);
CREATE INDEX IF NOT EXISTS runs_of_root ON runs (root_id, created);
"""


class Runs(Experiments):
    """All runs, and their experiments."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        super().__init__(database, clock)
        self._listeners: list[Listener] = []
        database.make_tables(_TABLES)

    def listen(self, listener: Listener) -> None:
        """Tell a function of every change of status from now on."""
        self._listeners.append(listener)

    def create(
        self, experiment: str, run_id: str, *, status: Status = Status.NOT_STARTED, parent_id: str = "", **values: Any
    ) -> Run:
        """Create a run; ``values`` are further fields of :class:`Run`.

        :raises Refusal: 400 a bad name, 404 no such parent, 409 the id is taken.
        """
        if not RUN_ID.fullmatch(run_id):
            raise Refusal(400, "UserError", "A run's id has letters, digits, '-', '_' and '.', at most 255.")
        where = self.make_experiment(experiment)
        with self._database.write() as connection:
            if self.find(run_id) is not None:
                raise Refusal(409, "UserError", f"Run {run_id} exists already.")
            root = self.get(parent_id).root_id if parent_id else run_id
            row = self._database.row(
                "SELECT max(number) AS last FROM runs WHERE experiment_id = ?", (where.experiment_id,)
            )
            run = Run(
                run_id=run_id,
                experiment=where.name,
                experiment_id=where.experiment_id,
                number=((row["last"] if row else None) or 0) + 1,
                status=status,
                created=self._clock(),
                parent_id=parent_id,
                root_id=root,
                **values,
            )
            connection.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run_id, where.experiment_id, run.number, parent_id, root, status.value, run.created, _document(run)),
            )
        return run

    def find(self, run_id: str) -> Run | None:
        """Return a run; None where there is none."""
        row = self._database.row("SELECT * FROM runs WHERE run_id = ?", (run_id,))
        return None if row is None else self._run(row)

    def get(self, run_id: str) -> Run:
        """Return a run.

        :raises Refusal: 404, there is none.
        """
        run = self.find(run_id)
        if run is None:
            raise not_found(f"Run {run_id}")
        return run

    def change(self, run_id: str, change: Callable[[Run], Run]) -> Run:
        """Change a run by a function of what it is now, in one transaction; listeners hear of a new status.

        :raises Refusal: 404, there is none.
        """
        with self._database.write() as connection:
            old = self.get(run_id)
            new = change(old)
            connection.execute(
                "UPDATE runs SET status = ?, document = ? WHERE run_id = ?", (new.status.value, _document(new), run_id)
            )
        if new.status is not old.status:
            for listener in tuple(self._listeners):
                listener(old, new)
        return new

    def set_status(
        self,
        run_id: str,
        status: Status,
        *,
        error: Mapping[str, Any] | None = None,
        unless: Iterable[Status] = (),
    ) -> Run:
        """Change a run's status; a run that has ended stays as it is. Start and end are noted when they happen.

        :param unless: where the run has one of these, nothing changes.
        """
        stay = frozenset(unless)

        def change(run: Run) -> Run:
            if run.status.ended or run.status in stay:
                return run
            now = self._clock()
            started = run.started or (now if status is Status.RUNNING else None)
            return replace(
                run, status=status, started=started, ended=now if status.ended else None, error=dict(error or run.error)
            )

        return self.change(run_id, change)

    def children(self, run_id: str, *, recursive: bool = False) -> list[Run]:
        """Return the children of a run, or all its descendants, in the order of creation."""
        if not recursive:
            return self._list("parent_id = ?", (run_id,))
        found, queue = [], [run_id]
        while queue:
            children = self._list("parent_id = ?", (queue.pop(0),))
            found += children
            queue += [child.run_id for child in children]
        return found

    def statuses(self, run_id: str) -> dict[str, Status]:
        """Return the status of each child of a run by its id, in the order of creation, without reading the runs."""
        rows = self._database.rows(
            "SELECT run_id, status FROM runs WHERE parent_id = ? ORDER BY created, number", (run_id,)
        )
        return {row["run_id"]: Status(row["status"]) for row in rows}

    def of_experiment(self, experiment: str) -> list[Run]:
        """Return the runs of the active experiment of a name, in the order of creation."""
        return self._list(
            "experiment_id = (SELECT experiment_id FROM experiments WHERE name = ? AND archived IS NULL)", (experiment,)
        )

    def of_experiment_id(self, experiment_id: str) -> list[Run]:
        """Return an experiment's runs, in the order of creation."""
        return self._list("experiment_id = ?", (experiment_id,))

    def of_root(self, root_id: str) -> list[Run]:
        """Return a run without a parent and all its descendants, in the order of creation."""
        return self._list("root_id = ?", (root_id,))

    def delete_experiment(self, experiment_id: str) -> None:
        """Delete an experiment without runs.

        :raises Refusal: 404 there is none, 400 it has runs.
        """
        with self._database.write() as connection:
            name = self.experiment_of_id(experiment_id).name
            try:
                connection.execute("DELETE FROM experiments WHERE experiment_id = ?", (experiment_id,))
            except sqlite3.IntegrityError:
                # "Only empty experiments can be deleted" (``Experiment.delete`` of the SDK).
                raise Refusal(
                    400, "UserError", f"Experiment {name} has runs, and only an empty one can be deleted."
                ) from None

    def unfinished(self) -> list[Run]:
        """Return all runs that have not ended."""
        return self._list("status NOT IN ('Completed', 'Failed', 'Canceled')", ())

    def all(self) -> list[Run]:
        """Return all runs, in the order of creation."""
        return self._list("1", ())

    def related(self, run_id: str, other: str) -> bool:
        """Whether ``other`` is ``run_id`` or a descendant of it."""
        current: str = other
        while current:
            if current == run_id:
                return True
            run = self.find(current)
            current = run.parent_id if run else ""
        return False

    def _list(self, condition: str, values: tuple[object, ...]) -> list[Run]:
        # Only conditions written in this module arrive here.
        sql = f"SELECT * FROM runs WHERE {condition} ORDER BY created, number"  # noqa: S608
        return [self._run(row) for row in self._database.rows(sql, values)]

    def _run(self, row: sqlite3.Row) -> Run:
        document = json.loads(row["document"])
        document["status"] = Status(document["status"])
        for name in ("input_datasets", "output_datasets", "warnings"):
            document[name] = tuple(document[name])
        return Run(**document)


def _document(run: Run) -> str:
    return json.dumps(run.__dict__, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(type(value).__name__)

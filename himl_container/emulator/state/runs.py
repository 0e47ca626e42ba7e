"""Runs: what happened to whom, in which experiment, under which parent."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from himl_container.emulator.http import Refusal, not_found
from himl_container.emulator.state.database import Database

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
EXPERIMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,254}")


class Status(str, Enum):
    """A run's status, in the words of the wire (``core/run.py`` of the SDK, ``RunStatus``)."""

    NOT_STARTED = "NotStarted"
    QUEUED = "Queued"
    PREPARING = "Preparing"
    PROVISIONING = "Provisioning"
    STARTING = "Starting"
    RUNNING = "Running"
    CANCEL_REQUESTED = "CancelRequested"
    FINALIZING = "Finalizing"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"

    @property
    def ended(self) -> bool:
        """Whether nothing comes after it."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELED)


@dataclass(frozen=True)
class Run:
    """One run.

    :param number: counts the runs of an experiment, from 1.
    :param parent_id: empty for a run without a parent; :param root_id: its own id then.
    :param run_type: ``azureml.scriptrun``, ``hyperdrive``, ``azureml.PipelineRun`` and so on, as the SDK names it.
    :param created: times are seconds since the epoch; None for what has not happened.
    :param definition: the run configuration as submitted; empty for a run that was started from outside.
    :param error: the ``error`` object of the wire; empty where nothing failed.
    """

    run_id: str
    experiment: str
    experiment_id: str
    number: int
    status: Status
    created: float
    parent_id: str = ""
    root_id: str = ""
    run_type: str = "azureml.scriptrun"
    started: float | None = None
    ended: float | None = None
    display_name: str = ""
    description: str = ""
    target: str = ""
    created_by: str = ""
    snapshot_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    definition: Mapping[str, Any] = field(default_factory=dict)
    input_datasets: tuple[Mapping[str, Any], ...] = ()
    output_datasets: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[Mapping[str, Any], ...] = ()
    error: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data_container_id(self) -> str:
        """Under which name its files are kept."""
        return f"dcid.{self.run_id}"


@dataclass(frozen=True)
class Experiment:
    """An experiment of the workspace."""

    name: str
    experiment_id: str
    created: float
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    archived: bool = False


Listener = Callable[[Run, Run], None]
"""Told of a run before and after a change of its status, after the change was stored."""


_TABLES = """
CREATE TABLE IF NOT EXISTS experiments (
    name TEXT PRIMARY KEY COLLATE NOCASE, experiment_id TEXT NOT NULL UNIQUE, created REAL NOT NULL,
    document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, experiment TEXT NOT NULL REFERENCES experiments(name), number INTEGER NOT NULL,
    parent_id TEXT NOT NULL, root_id TEXT NOT NULL, status TEXT NOT NULL, created REAL NOT NULL,
    document TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS runs_of_experiment ON runs (experiment, created);
CREATE INDEX IF NOT EXISTS runs_of_parent ON runs (parent_id, created);
CREATE INDEX IF NOT EXISTS runs_of_root ON runs (root_id, created);
"""


class Runs:
    """All runs and experiments."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock
        self._listeners: list[Listener] = []
        database.make_tables(_TABLES)

    def listen(self, listener: Listener) -> None:
        """Tell a function of every change of status from now on."""
        self._listeners.append(listener)

    # --- experiments ---

    def experiment(self, name: str) -> Experiment:
        """Return an experiment.

        :raises Refusal: 404, there is none.
        """
        row = self._database.row("SELECT * FROM experiments WHERE name = ?", (name,))
        if row is None:
            raise not_found(f"Experiment {name}")
        return _experiment(row)

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
        return [_experiment(row) for row in self._database.rows("SELECT * FROM experiments ORDER BY created DESC")]

    def make_experiment(self, name: str) -> Experiment:
        """Return an experiment, made where there is none.

        :raises Refusal: 400, the name is not one that Azure takes.
        """
        if not EXPERIMENT.fullmatch(name):
            raise Refusal(400, "UserError", "An experiment's name has letters, digits, '-' and '_', at most 255.")
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO experiments VALUES (?, ?, ?, ?)", (name, str(uuid.uuid4()), self._clock(), "{}")
            )
        return self.experiment(name)

    def change_experiment(self, name: str, **values: object) -> Experiment:
        """Change ``tags``, ``description`` or ``archived``."""
        with self._database.write() as connection:
            old = self.experiment(name)
            document = {"tags": dict(old.tags), "description": old.description, "archived": old.archived, **values}
            connection.execute("UPDATE experiments SET document = ? WHERE name = ?", (json.dumps(document), old.name))
        return self.experiment(name)

    # --- runs ---

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
            row = self._database.row("SELECT max(number) AS last FROM runs WHERE experiment = ?", (where.name,))
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
                (run_id, run.experiment, run.number, parent_id, root, status.value, run.created, _document(run)),
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
        from dataclasses import replace

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

    def of_experiment(self, experiment: str) -> list[Run]:
        """Return an experiment's runs, in the order of creation."""
        return self._list("experiment = ?", (experiment,))

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


def iso(seconds: float | None) -> str | None:
    """Return a time as the wire has it (``2026-11-23T09:00:00.123456+00:00``); None for None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")


def text_map(values: Mapping[Any, Any] | None) -> dict[str, str]:
    """Return tags or properties with text for both."""
    return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in (values or {}).items()}


def _document(run: Run) -> str:
    return json.dumps(run.__dict__, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(type(value).__name__)


def _experiment(row: sqlite3.Row) -> Experiment:
    return Experiment(row["name"], row["experiment_id"], row["created"], **json.loads(row["document"]))

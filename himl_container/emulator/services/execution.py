"""The execution service: starting, cancelling and preempting jobs (``_execution/_commands.py`` of the SDK)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from himl_container.emulator.access import Access, forbidden
from himl_container.emulator.compute.definition import section, value
from himl_container.emulator.compute.model import Cluster, Definition
from himl_container.emulator.http import Answer, Refusal, Request, json_answer
from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.routes import Route
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.runs import Run, Runs
from himl_container.emulator.state.snapshots import NOTHING, Snapshots

_EXPERIMENT = "/execution/v1.0/{ws}/experiments/{experiment}"


class Starter(Protocol):
    """What the service asks of the compute (:class:`himl_container.emulator.compute.scheduler.LocalCompute`)."""

    def check(self, target: str, definition: Definition) -> Cluster:
        """Return the cluster on which a definition could run."""

    def submit(self, run_id: str) -> None:
        """Queue a run's job."""

    def cancel(self, run_id: str) -> None:
        """Stop a job."""

    def preempt(self, run_id: str) -> None:
        """Take a running job's machine away."""


class Registered(Protocol):
    """What the service asks of the environments (:class:`himl_container.emulator.state.environments.Environments`)."""

    def named(self, environment: Mapping[str, Any], experiment: str) -> dict[str, Any]:
        """Return the environment of a run configuration with the name and version under which it is kept."""


class SubmittedData(Protocol):
    """What the service asks of the data of jobs (:class:`himl_container.emulator.data.jobs.WorkspaceData`)."""

    def check(self, run_id: str, definition: Definition, submitter: str) -> None:
        """Find out whether a job may submit a run with its data."""


class ExecutionService:
    """Starts and stops the jobs of runs.

    :param environments: keeps what is submitted without having been registered; None leaves definitions as they are.
    """

    def __init__(
        self,
        database: Database,
        runs: Runs,
        snapshots: Snapshots,
        compute: Starter,
        access: Access,
        *,
        data: SubmittedData,
        environments: Registered | None = None,
    ) -> None:
        self._database, self._runs, self._snapshots = database, runs, snapshots
        self._compute, self._access, self._data, self._environments = compute, access, data, environments

    def routes(self) -> tuple[Route, ...]:
        """Return what the service answers."""
        run = _EXPERIMENT + "/runid/{run}"
        return (
            Route(
                "POST",
                _EXPERIMENT + "/snapshotrun",
                self.start,
                "Execution.StartSnapshotRun",
                "tests/emulator/test_jobs.py::test_a_job_really_runs",
            ),
            Route(
                "POST",
                run + "/cancel",
                self.cancel,
                "Execution.CancelRun",
                "tests/emulator/test_jobs.py::test_cancel_gives_the_script_time_to_end_and_keeps_its_outputs",
            ),
            Route(
                "POST",
                "/emulator/v1.0/{ws}/runs/{run}/preempt",
                self.preempt,
                "Emulator.PreemptRun",
                "tests/emulator/test_preempt.py::test_a_preempted_job_starts_again_with_its_outputs",
                note="the emulator's own; in Azure, nobody can ask for it",
                how="approximated",
            ),
        )

    def start(self, request: Request) -> Answer:
        """Create a run with a job, and queue it. A run that is refused leaves nothing behind."""
        document = request.document()
        definition = dict(section(document, "Configuration"))
        parent_id = _text(document, "ParentRunId")
        snapshot_id = _text(document, "SnapshotId")
        if snapshot_id == NOTHING:
            # An empty folder is equal to what an empty workspace has, and that is called so.
            snapshot_id = ""
        self._check_parent(request.identity, parent_id)
        cluster = self._compute.check("", definition)
        if snapshot_id:
            self._snapshots.get(snapshot_id)
        experiment = request.params["experiment"]
        run_id = request.first("runId") or new_run_id(experiment)
        if request.identity.run_id:
            self._data.check(run_id, definition, request.identity.run_id)
        with self._database.write():
            if self._environments is not None and value(definition, "environment"):
                definition["environment"] = self._environments.named(section(definition, "environment"), experiment)
            self._runs.create(
                experiment,
                run_id,
                parent_id=parent_id,
                definition=definition,
                snapshot_id=snapshot_id,
                target=cluster.name,
                created_by=request.identity.name,
                submitter=request.identity.run_id,
                properties=properties_of(snapshot_id),
            )
            self._compute.submit(run_id)
        return json_answer({"runId": run_id})

    def cancel(self, request: Request) -> Answer:
        """Stop a run's job."""
        run = self._run(request)
        self._compute.cancel(run.run_id)
        return json_answer({"runId": run.run_id, "status": self._runs.get(run.run_id).status.value})

    def preempt(self, request: Request) -> Answer:
        """Take a running job's machine away, as it happens to machines of low priority."""
        self._access.only_user(request.identity)
        run_id = request.params["run"]
        self._compute.preempt(run_id)
        return json_answer({"runId": run_id})

    def _run(self, request: Request) -> Run:
        run = self._runs.get(request.params["run"])
        self._access.may_change(request.identity, run.run_id)
        if run.experiment.lower() != request.params["experiment"].lower():
            raise Refusal(404, "NotFound", f"Run {run.run_id} is not one of experiment {request.params['experiment']}.")
        return run

    def _check_parent(self, identity: Identity, parent_id: str) -> None:
        """A job may start children of its own run only."""
        if parent_id:
            self._access.may_change(identity, parent_id)
        elif identity.kind is Kind.JOB:
            raise forbidden(f"The job of run {identity.run_id} may start children of its run only.")


def new_run_id(experiment: str) -> str:
    """Return an id for a run whose client gave none, in the form of the SDK's."""
    return f"{experiment}_{int(time.time())}_{uuid.uuid4().hex[:8]}"


def properties_of(snapshot_id: str) -> dict[str, str]:
    """Return the properties that Azure gives every job."""
    properties = {"_azureml.ComputeTargetType": "amlctrain"}
    if snapshot_id:
        properties["ContentSnapshotId"] = snapshot_id
    return properties


def _text(document: Mapping[str, Any], name: str) -> str:
    found = value(document, name, "")
    if not isinstance(found, str):
        raise Refusal(400, "UserError", f"{name} is not text.")
    return found

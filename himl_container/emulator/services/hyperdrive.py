"""The HyperDrive service: starting and cancelling searches (``train/restclients/hyperdrive/rest_client.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email import message_from_bytes
from email.policy import HTTP
from typing import Any, Protocol

from himl_container.emulator.access import Access
from himl_container.emulator.compute.model import Cluster, Definition
from himl_container.emulator.http import Answer, Refusal, Request, json_answer, parse_json
from himl_container.emulator.hyperdrive.definition import Search, child_definition, read_search
from himl_container.emulator.hyperdrive.searches import Searches
from himl_container.emulator.routes import Handler, Route
from himl_container.emulator.services.execution import SubmittedData
from himl_container.emulator.state.run import Run, iso

LARGEST_CONFIG = 4 * 2**20
"""Bytes of a search's definition."""

_EXPERIMENT = "/hyperdrive/v1.0/{ws}/experiments/{experiment}"


class Checker(Protocol):
    """What the service asks of the compute (:class:`himl_container.emulator.compute.scheduler.LocalCompute`)."""

    def check(self, target: str, definition: Definition) -> Cluster:
        """Return the cluster on which a definition could run."""


class SnapshotLookup(Protocol):
    """What the service asks of snapshots (:class:`himl_container.emulator.state.snapshots.Snapshots`)."""

    def get(self, snapshot_id: str) -> object:
        """Return a snapshot."""


class HyperDriveService:
    """Starts and cancels searches."""

    def __init__(
        self, searches: Searches, snapshots: SnapshotLookup, compute: Checker, access: Access, data: SubmittedData
    ) -> None:
        self._searches, self._snapshots, self._compute, self._access = searches, snapshots, compute, access
        self._data = data

    def routes(self) -> tuple[Route, ...]:
        """Return what the service answers."""
        note = "Bayesian sampling is sampling at random; policies are read as the SDK's docstrings describe them"
        grid = "tests/emulator/test_hyperdrive.py::test_a_grid_search_finds_the_best_child"

        def create(pattern: str, operation: str, handler: Handler, test: str) -> Route:
            return Route(
                "POST",
                _EXPERIMENT + pattern,
                _own_errors(handler),
                f"HyperDrive.{operation}",
                test,
                how="approximated",
                note=note,
            )

        return (
            create("/runs", "CreateExperiment", self._create, grid),
            create(
                "/runs/{run}",
                "CreateExperimentOfParent",
                self._create_child,
                "tests/unit/emulator/test_hyperdrive_service.py::test_a_job_may_search_below_its_own_run_only",
            ),
            create(
                "/hdruns/{run}",
                "CreateExperimentWithCustomRunId",
                self._create_named,
                "tests/unit/emulator/test_hyperdrive_service.py::test_a_search_may_be_given_its_id",
            ),
            Route(
                "POST",
                _EXPERIMENT + "/runs/{run}/cancel",
                _own_errors(self._cancel),
                "HyperDrive.CancelExperiment",
                "tests/emulator/test_hyperdrive.py::test_cancelling_a_search_cancels_its_children",
            ),
        )

    def _create(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        return self._start(request)

    def _create_child(self, request: Request) -> Answer:
        """Start a search below a run (``Run.submit_child``)."""
        self._access.may_change(request.identity, request.params["run"])
        return self._start(request, parent_id=request.params["run"])

    def _create_named(self, request: Request) -> Answer:
        """Start a search with an id that the client chose."""
        self._access.only_user(request.identity)
        return self._start(request, run_id=request.params["run"])

    def _start(self, request: Request, *, run_id: str = "", parent_id: str = "") -> Answer:
        document = read_config(request)
        search = read_search(document)
        # Any parameters will do: they are words behind the other arguments.
        definition = child_definition(search, {})
        cluster = self._compute.check("", definition)
        if request.identity.run_id:
            self._data.check(run_id or "search", definition, request.identity.run_id)
        if search.snapshot_id:
            self._snapshots.get(search.snapshot_id)
        run = self._searches.create(
            request.params["experiment"],
            document,
            cluster.name,
            search,
            run_id=run_id,
            parent_id=parent_id,
            created_by=request.identity.name,
            submitter=request.identity.run_id,
        )
        return json_answer({"code": 201, "result": _experiment(run, search)}, 201)

    def _cancel(self, request: Request) -> Answer:
        run_id = request.params["run"]
        self._access.may_change(request.identity, run_id)
        run = self._searches.cancel(run_id)
        return json_answer({"code": 200, "result": f"Run {run_id} is {run.status.value}."})


def read_config(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request has in its part ``config``.

    :raises Refusal: 400 there is none, 413 it is too large.
    """
    if len(request.body) > LARGEST_CONFIG:
        raise Refusal(413, "RequestEntityTooLarge", f"A search is described by at most {LARGEST_CONFIG} bytes.")
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise Refusal(400, "BadArgument", "The body is not multipart/form-data.")
    head = f"Content-Type: {' '.join(kind.split())}\r\n\r\n".encode("latin-1", "replace")
    message = message_from_bytes(head + request.body, policy=HTTP)
    for part in message.iter_parts() if message.is_multipart() else ():
        if part.get_param("name", header="content-disposition") == "config":
            data = part.get_payload(decode=True)
            try:
                found = parse_json(data) if isinstance(data, bytes) else None
            except ValueError:
                found = None
            if isinstance(found, dict):
                return found
            raise Refusal(400, "BadArgument", "The part config is not a JSON object.")
    raise Refusal(400, "BadArgument", "The body has no part config.")


def _own_errors(handler: Callable[[Request], Answer]) -> Handler:
    """Answer a refusal as this service does: its client reads ``code`` and ``message`` at the top, and nothing else."""

    def answer(request: Request) -> Answer:
        try:
            return handler(request)
        except Refusal as refusal:
            error: Mapping[str, Any] = {"code": refusal.code, "message": refusal.message}
            document = {"code": refusal.status, "message": refusal.message, "error": error}
            return json_answer(document, refusal.status, refusal.headers)

    return answer


def _experiment(run: Run, search: Search) -> dict[str, Any]:
    """Return a new search as ``ExperimentDto``; the SDK reads only the id out of it."""
    document = search.document
    keys = ("generator_config", "policy_config", "primary_metric_config", "resume_from", "resume_child_runs")
    platform = document["platform_config"]
    return {
        **{key: document.get(key) for key in keys},
        "all_jobs_generated": False,
        "cancellation_requested": False,
        "created": iso(run.created),
        "created_by_user_id": 0,
        "description": document.get("description"),
        "experiment_id": run.run_id,
        "hyperdrive_run_id": run.run_id,
        "max_concurrent_jobs": search.max_concurrent,
        "max_duration_minutes": search.max_minutes,
        "max_total_jobs": search.max_total,
        "modified": iso(run.created),
        "name": run.experiment,
        "platform": "AML",
        "platform_config": {**platform, "ParentRunId": run.run_id},
        "status": "WAITING",
        "study_id": 0,
    }

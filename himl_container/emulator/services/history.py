"""Run history: runs, their details, tags, children and events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from himl_container.emulator.access import Access
from himl_container.emulator.http import Answer, Refusal, Request, json_answer, not_found
from himl_container.emulator.identity import Identity
from himl_container.emulator.names import Workspace
from himl_container.emulator.routes import Handler, Route
from himl_container.emulator.services.experiments import object_of, page_size
from himl_container.emulator.services.odata import page, parse_filter
from himl_container.emulator.services.run_changes import changed, status_of, values_of
from himl_container.emulator.services.run_documents import details_document, run_document, run_fields
from himl_container.emulator.state.artifacts import Artifacts
from himl_container.emulator.state.events import apply_event, event_run
from himl_container.emulator.state.run import Run, Status, iso
from himl_container.emulator.state.runs import Runs

LOG_FOLDERS = ("azureml-logs", "logs", "system_logs", "user_logs")
"""Folders of a run's files whose files are its logs."""

_MAX_BATCH = 500
"""How many runs or events one request may hold; the SDK makes at most 100 children at once."""

_TEST = "tests/emulator/test_runs.py::"


class RunHistory:
    """Answers for runs, by their experiment's name, its id, or by themselves."""

    def __init__(self, runs: Runs, artifacts: Artifacts, access: Access, workspace: Workspace) -> None:
        self._runs, self._artifacts, self._access, self._workspace = runs, artifacts, access, workspace

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        base = "/history/v1.0/{ws}"
        return (
            *_places("POST", "/runs:query", self._query, "RunHistory.QueryRuns", "test_filters_and_pages"),
            *_places("PATCH", "/batch/runs", self._patch_batch, "RunHistory.BatchAddOrModifyRuns", "test_children"),
            *_places("POST", "/batch/events", self._post_events, "RunHistory.BatchPostEvents", "test_children"),
            *_places("GET", "/runcounts", self._counts, "RunHistory.GetRunCounts", "test_by_compute_and_counts"),
            *_places("GET", "/runs/{run}", self._get, "RunHistory.GetRun", "test_start_logging"),
            *_places("PATCH", "/runs/{run}", self._patch, "RunHistory.AddOrModifyRun", "test_start_logging"),
            *_places("GET", "/runs/{run}/details", self._details, "RunHistory.GetRunDetails", "test_details"),
            *_places("GET", "/runs/{run}/children", self._children, "RunHistory.GetChildRuns", "test_children"),
            *_places("DELETE", "/runs/{run}/tags", self._delete_tags, "RunHistory.DeleteRunTags", "test_tags"),
            *_places("GET", "/runs/{run}/token", self._token, "RunHistory.GetToken", "test_token_of_a_run"),
            *_places(
                "POST",
                "/runs/{run}/events",
                self._post_event,
                "RunHistory.PostEvent",
                "test_ends",
                note="a run whose heartbeats stop is not called NotResponding",
            ),
            Route(
                "GET",
                f"{base}/computes/{{compute}}/runs",
                self._of_compute,
                "RunHistory.ListRunsByCompute",
                f"{_TEST}test_by_compute_and_counts",
            ),
            Route("POST", f"{base}/rundata", self._data, "RunHistory.GetRunData", f"{_TEST}test_run_data"),
        )

    # --- one run ---

    def _get(self, request: Request) -> Answer:
        return self._answer(self._run(request))

    def _details(self, request: Request) -> Answer:
        run = self._run(request)
        return json_answer(details_document(run, self._logs(request.identity, run)))

    def _token(self, request: Request) -> Answer:
        run = self._run(request)
        self._access.may_change(request.identity, run.run_id)
        token, expires = self._access.job_token(run.run_id)
        return json_answer({"token": token, "expiryTimeUtc": iso(expires)})

    def _patch(self, request: Request) -> Answer:
        asked = request.document()
        if asked.get("runId") not in (None, "", request.params["run"]):
            raise Refusal(400, "UserError", "The body is about another run than the address.")
        return self._answer(self._put(request, request.params["run"], asked))

    def _delete_tags(self, request: Request) -> Answer:
        run = self._run(request)
        self._access.may_change(request.identity, run.run_id)
        names = request.json()
        if not isinstance(names, list):
            raise Refusal(400, "UserError", "The names of the tags are not a list.")

        def without(run: Run) -> Run:
            return replace(run, tags={name: value for name, value in run.tags.items() if name not in names})

        return self._answer(self._runs.change(run.run_id, without))

    def _post_event(self, request: Request) -> Answer:
        run = self._run(request)
        self._access.may_change(request.identity, run.run_id)
        apply_event(self._runs, run.run_id, request.document())
        return json_answer({})

    # --- several ---

    def _patch_batch(self, request: Request) -> Answer:
        asked = _batch(request.document().get("runs"), "runs")
        done: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        for item in asked:
            run_id = str(item.get("runId") or "")
            try:
                done[run_id] = run_document(self._put(request, run_id, item), self._workspace)
            except Refusal as refusal:
                errors[run_id] = _error(refusal)
        return json_answer({"runs": done, "errors": errors})

    def _post_events(self, request: Request) -> Answer:
        errors = []
        for event in _batch(request.document().get("events"), "events"):
            try:
                run = self._runs.get(event_run(event))
                self._access.may_change(request.identity, run.run_id)
                apply_event(self._runs, run.run_id, event)
            except Refusal as refusal:  # noqa: PERF203  # one that is refused keeps no other waiting
                errors.append({"key": event, "value": _error(refusal)})
        return json_answer({"errors": errors})

    def _query(self, request: Request) -> Answer:
        return self._page(self._all(request), request.document())

    def _children(self, request: Request) -> Answer:
        run = self._run(request)
        return self._page(self._runs.children(run.run_id), _of_query(request))

    def _of_compute(self, request: Request) -> Answer:
        name = request.params["compute"].lower()
        return self._page([run for run in self._runs.all() if run.target.lower() == name], _of_query(request))

    def _counts(self, request: Request) -> Answer:
        passes = parse_filter(request.first("$filter"))
        counts = dict.fromkeys(Status, 0)
        for run in self._all(request):
            if passes(run_fields(run)):
                counts[run.status] += 1
        return json_answer({status.value[0].lower() + status.value[1:]: count for status, count in counts.items()})

    def _data(self, request: Request) -> Answer:
        """Answer for the newer client, which asks for a run and its definition at once."""
        asked = request.document()
        run = self._runs.get(str(asked.get("runId") or ""))
        metadata = run_document(run, self._workspace) if asked.get("selectRunMetadata") else None
        definition = dict(run.definition) if asked.get("selectRunDefinition") else None
        return json_answer({"runMetadata": metadata, "runDefinition": definition, "jobSpecification": None})

    # --- parts ---

    def _answer(self, run: Run) -> Answer:
        return json_answer(run_document(run, self._workspace))

    def _run(self, request: Request) -> Run:
        """Return the run of the address.

        :raises Refusal: 404, there is none, or it is in another experiment.
        """
        run = self._runs.get(request.params["run"])
        name = request.params.get("experiment") or run.experiment
        experiment_id = request.params.get("experiment_id") or run.experiment_id
        if name.lower() != run.experiment.lower() or experiment_id != run.experiment_id:
            raise not_found(f"Run {run.run_id} of this experiment")
        return run

    def _all(self, request: Request) -> list[Run]:
        """Return the runs of the address's experiment, or of all; of an archived one where no other has its name."""
        if experiment_id := request.params.get("experiment_id"):
            return self._runs.of_experiment_id(self._runs.experiment_of_id(experiment_id).experiment_id)
        if name := request.params.get("experiment"):
            found = self._runs.experiments_of_name(name)
            if not found:
                raise not_found(f"Experiment {name}")
            return self._runs.of_experiment_id(found[0].experiment_id)
        return self._runs.all()

    def _put(self, request: Request, run_id: str, asked: dict[str, Any]) -> Run:
        """Create a run, or change one that is there."""
        values, status = values_of(asked), status_of(asked)
        if self._runs.find(run_id) is None:
            return self._create(request, run_id, asked, {**values, "status": status or Status.NOT_STARTED})
        params = {**request.params, "run": run_id}
        self._run(replace(request, params=params))
        self._access.may_change(request.identity, run_id)
        run = self._runs.change(run_id, lambda run: changed(run, values))
        return run if status in (None, run.status) else self._runs.set_status(run_id, status or run.status)

    def _create(self, request: Request, run_id: str, asked: dict[str, Any], values: dict[str, Any]) -> Run:
        parent = str(asked.get("parentRunId") or "")
        if parent:
            self._access.may_change(request.identity, parent)
        else:
            self._access.only_user(request.identity)
        name = request.params.get("experiment")
        if experiment_id := request.params.get("experiment_id"):
            name = self._runs.experiment_of_id(experiment_id).name
        if not name:
            raise not_found(f"Run {run_id}")
        # A run that was started from outside has no type, and is shown so by the SDK.
        defaults = {"run_type": "", "created_by": request.identity.name}
        return self._runs.create(name, run_id, parent_id=parent, **{**defaults, **values})

    def _logs(self, identity: Identity, run: Run) -> dict[str, str]:
        try:
            self._access.may_read(identity, run.run_id)
        except Refusal:
            return {}  # the details may be read, the files not
        files = [file for folder in LOG_FOLDERS for file in self._artifacts.list(run.run_id, folder)]
        return {file.path: self._artifacts.address(file) for file in files}

    def _page(self, runs: Sequence[Run], asked: dict[str, Any]) -> Answer:
        passes = parse_filter(str(asked.get("filter") or ""))
        found, token = page(
            [run for run in runs if passes(run_fields(run))],
            run_fields,
            order=str(asked.get("orderby") or "StartTimeUtc desc"),
            top=page_size(asked.get("top")),
            token=str(asked.get("continuationToken") or ""),
            key=lambda run: f"{run.created:020.6f}{run.number:09d}{run.run_id}",
        )
        return json_answer({"value": [run_document(run, self._workspace) for run in found], "continuationToken": token})


def _places(method: str, path: str, handler: Handler, operation: str, test: str, *, note: str = "") -> Iterator[Route]:
    """Yield the routes below an experiment's name, below its id, and below the workspace."""
    for place in ("/experiments/{experiment}", "/experimentids/{experiment_id}", ""):
        yield Route(
            method,
            f"/history/v1.0/{{ws}}{place}{path}",
            handler,
            operation,
            f"{_TEST}{test}",
            how="approximated" if note else "imitated",
            note=note,
        )


def _of_query(request: Request) -> dict[str, Any]:
    return {name: request.first(f"${name}") for name in ("filter", "orderby", "top", "continuationToken")}


def _batch(items: object, what: str) -> list[dict[str, Any]]:
    if not isinstance(items, list) or len(items) > _MAX_BATCH:
        raise Refusal(400, "UserError", f"{what} is not a list of at most {_MAX_BATCH}.")
    return [object_of(item, what) for item in items]


def _error(refusal: Refusal) -> dict[str, Any]:
    return {"error": {"code": refusal.code, "message": refusal.message}}

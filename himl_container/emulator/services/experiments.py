"""The part of run history that answers for experiments."""

from __future__ import annotations

from typing import Any

from himl_container.emulator.access import Access
from himl_container.emulator.http import Answer, Refusal, Request, json_answer
from himl_container.emulator.routes import Route
from himl_container.emulator.services.odata import page, parse_filter
from himl_container.emulator.services.run_documents import experiment_document, experiment_fields
from himl_container.emulator.state.run import tag_map
from himl_container.emulator.state.runs import Runs

PAGE = 500
"""How many items a list has at once where nothing is asked for (``DEFAULT_PAGE_SIZE`` of the SDK)."""

_TEST = "tests/emulator/test_runs.py::"


class ExperimentService:
    """Creates, finds, tags, archives and deletes experiments."""

    def __init__(self, runs: Runs, access: Access) -> None:
        self._runs, self._access = runs, access

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        base = "/history/v1.0/{ws}"
        named, by_id = f"{base}/experiments/{{experiment}}", f"{base}/experimentids/{{experiment_id}}"
        test, archived = f"{_TEST}test_experiments", f"{_TEST}test_archived_experiments"
        return (
            Route("POST", f"{base}/experiments:query", self._query, "RunHistory.QueryExperiments", test),
            Route("POST", named, self._create, "RunHistory.CreateExperiment", test),
            Route("GET", named, self._get, "RunHistory.GetExperiment", test),
            Route("GET", by_id, self._get_by_id, "RunHistory.GetExperimentById", test),
            Route("PATCH", by_id, self._change, "RunHistory.ModifyExperiment", archived),
            Route("DELETE", by_id, self._delete, "RunHistory.DeleteExperiment", archived),
            Route("POST", f"{by_id}/tags:delete", self._delete_tags, "RunHistory.DeleteExperimentTags", test),
        )

    def _create(self, request: Request) -> Answer:
        return json_answer(experiment_document(self._runs.make_experiment(request.params["experiment"])))

    def _get(self, request: Request) -> Answer:
        return json_answer(experiment_document(self._runs.experiment(request.params["experiment"])))

    def _get_by_id(self, request: Request) -> Answer:
        return json_answer(experiment_document(self._runs.experiment_of_id(request.params["experiment_id"])))

    def _query(self, request: Request) -> Answer:
        asked = request.document()
        passes = parse_filter(str(asked.get("filter") or ""))
        view = str(asked.get("viewType") or request.first("viewType") or "ActiveOnly").lower()
        if view not in ("activeonly", "archivedonly", "all"):
            raise Refusal(400, "UserError", "The view of experiments is not ActiveOnly, ArchivedOnly or All.")
        shown = [
            experiment
            for experiment in self._runs.experiments()
            if view in ("all", "archivedonly" if experiment.archived else "activeonly")
            and passes(experiment_fields(experiment))
        ]
        found, token = page(
            shown,
            experiment_fields,
            order=str(asked.get("orderby") or "CreatedUtc desc"),
            top=page_size(asked.get("top")),
            token=str(asked.get("continuationToken") or ""),
            key=lambda experiment: experiment.experiment_id,
        )
        return json_answer({"value": [experiment_document(one) for one in found], "continuationToken": token})

    def _change(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        experiment_id, asked = request.params["experiment_id"], request.document()
        experiment = self._runs.experiment_of_id(experiment_id)
        if asked.get("name") not in (None, experiment.name):
            raise Refusal(400, "UserError", "An experiment keeps its name.")
        values: dict[str, Any] = {}
        if asked.get("tags") is not None:
            values["tags"] = {**experiment.tags, **tag_map(object_of(asked["tags"], "tags"))}
        if asked.get("description") is not None:
            values["description"] = str(asked["description"])
        if values:
            experiment = self._runs.change_experiment(experiment_id, **values)
        if asked.get("archive") is not None:
            experiment = self._runs.archive_experiment(experiment_id, bool(asked["archive"]))
        return json_answer(experiment_document(experiment))

    def _delete(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        self._runs.delete_experiment(request.params["experiment_id"])
        return json_answer({})

    def _delete_tags(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        experiment = self._runs.experiment_of_id(request.params["experiment_id"])
        gone = {str(name) for name in request.document().get("tags") or ()}
        kept = {name: value for name, value in experiment.tags.items() if name not in gone}
        self._runs.change_experiment(experiment.experiment_id, tags=kept)
        return json_answer({"errors": {}})


def page_size(asked: object) -> int:
    """Return how many items to show at once: what is asked for, at most :data:`PAGE`.

    :raises Refusal: 400, it is not a number.
    """
    try:
        wanted = int(str(asked)) if asked else PAGE
    except ValueError:
        raise Refusal(400, "UserError", "top is not a number.") from None
    return min(wanted, PAGE) if wanted > 0 else PAGE


def object_of(value: object, what: str) -> dict[str, Any]:
    """Return a JSON object.

    :raises Refusal: 400, it is something else.
    """
    if not isinstance(value, dict):
        raise Refusal(400, "UserError", f"{what} is not an object.")
    return value

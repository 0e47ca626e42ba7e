"""The metric service, and the older one of run history that did its work before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from himl_container.emulator.access import Access
from himl_container.emulator.http import Answer, Refusal, Request, json_answer, not_found
from himl_container.emulator.routes import Route
from himl_container.emulator.services.metric_documents import (
    legacy_documents,
    legacy_metric,
    metric_document,
    metric_of,
)
from himl_container.emulator.services.odata import parse_filter, seconds
from himl_container.emulator.state.metrics import Metric, Metrics, Rejected
from himl_container.emulator.state.run import Run
from himl_container.emulator.state.runs import Runs

_PAGE = 5000
"""How many values of a metric one answer holds."""

_TEST = "tests/emulator/test_metrics.py::"


class MetricService:
    """Takes metrics from jobs and from outside, and gives them back. Every run's metrics may be read by everybody."""

    def __init__(self, metrics: Metrics, runs: Runs, access: Access, clock: Callable[[], float]) -> None:
        self._metrics, self._runs, self._access, self._clock = metrics, runs, access, clock

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        run, old = "/metric/v2.0/{ws}/runs/{run}", "/history/v1.0/{ws}/experiments/{experiment}"
        kinds, legacy = f"{_TEST}test_every_kind", f"{_TEST}test_legacy"
        return (
            Route("POST", f"{run}/batch", self._post, "Metrics.PostRunMetrics", kinds),
            Route("POST", f"{run}/list", self._list, "Metrics.ListMetrics", kinds),
            Route("POST", f"{run}/full", self._full, "Metrics.GetFullFidelity", kinds),
            Route("GET", f"{old}/runs/{{run}}/metricsingest/wait", self._wait, "RunHistory.WaitOnMetricIngest", kinds),
            Route("POST", f"{old}/runs/{{run}}/metrics", self._post_old, "RunHistory.PostRunMetric", legacy),
            Route("POST", f"{old}/runs/{{run}}/batch/metrics", self._post_old_batch, "RunHistory.PostBatch", legacy),
            Route("POST", f"{old}/metrics:query", self._query_old, "RunHistory.QueryRunMetrics", legacy),
        )

    def _post(self, request: Request) -> Answer:
        run = self._own(request)
        values = request.document().get("values")
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise Refusal(400, "UserError", "values is not a list of metrics.")
        # All are looked at before the first is stored: a batch that is refused is not half there.
        rejected = self._metrics.add(run.run_id, [metric_of(value, self._clock()) for value in values])
        return json_answer({"errors": [_error(one) for one in rejected]}, 207 if rejected else 200)

    def _list(self, request: Request) -> Answer:
        run = self._runs.get(request.params["run"])
        found = [
            {"metricKey": {"namespace": None, "name": metric.name}, "columns": dict(metric.columns)}
            for metric in self._metrics.heads(run.run_id)
        ]
        return json_answer({"value": found, "continuationToken": None, "nextLink": None})

    def _full(self, request: Request) -> Answer:
        run, asked = self._runs.get(request.params["run"]), request.document()
        metric, following = self._metrics.metric(
            run.run_id,
            str(asked.get("metricName") or ""),
            start=seconds(str(asked["startTime"])) if asked.get("startTime") else -math.inf,
            end=seconds(str(asked["endTime"])) if asked.get("endTime") else math.inf,
            after=str(asked.get("continuationToken") or ""),
            limit=_PAGE,
        )
        return json_answer(metric_document(metric, run, following or None))

    def _wait(self, request: Request) -> Answer:
        # What was answered with 200 is stored.
        self._runs.get(request.params["run"])
        return json_answer({})

    # --- the older service ---

    def _post_old(self, request: Request) -> Answer:
        return self._store_old(request, [request.document()])

    def _post_old_batch(self, request: Request) -> Answer:
        return self._store_old(request, request.document().get("values"))

    def _store_old(self, request: Request, values: object) -> Answer:
        run = self._own(request)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise Refusal(400, "UserError", "values is not a list of metrics.")
        rejected = self._metrics.add(run.run_id, [legacy_metric(value, self._clock()) for value in values])
        if rejected:
            raise Refusal(400, "UserError", rejected[0].reason)
        return json_answer({})

    def _query_old(self, request: Request) -> Answer:
        """Answer with everything at once: the SDK asks for at most 50 runs."""
        asked = request.document()
        passes = parse_filter(str(asked.get("filter") or ""))
        found: list[dict[str, Any]] = []
        for run in self._runs.of_experiment(request.params["experiment"]):
            for metric in self._wanted(run, passes):
                found += legacy_documents(metric, run)
        return json_answer({"value": found, "continuationToken": None})

    # --- parts ---

    def _wanted(self, run: Run, passes: Any) -> list[Metric]:
        found = []
        for head in self._metrics.heads(run.run_id):
            fields = {"runid": run.run_id, "name": head.name, "metrictype": head.kind, "createdutc": math.inf}
            if passes(fields):
                metric, _ = self._metrics.metric(run.run_id, head.name)
                found.append(metric)
        return found

    def _own(self, request: Request) -> Run:
        run = self._runs.get(request.params["run"])
        name = request.params.get("experiment") or run.experiment
        if name.lower() != run.experiment.lower():
            raise not_found(f"Run {run.run_id} of this experiment")
        self._access.may_change(request.identity, run.run_id)
        return run


def _error(rejected: Rejected) -> dict[str, Any]:
    metric = {"name": rejected.metric.name, "columns": dict(rejected.metric.columns), "value": []}
    return {"metric": metric, "errorResponse": {"error": {"code": "UserError", "message": rejected.reason}}}

"""The page: its addresses, which are those of Azure's studio, and what each answers.

Reached at the emulator's own address (``http://127.0.0.1:PORT/runs/ID``, where the SDK's portal addresses lead) and
through the proxy as ``https://ml.azure.com/runs/ID``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from himl_container.emulator.http import Answer, Refusal, Request, json_answer, not_found, parse_json
from himl_container.emulator.names import Workspace
from himl_container.emulator.page.access import PageKey
from himl_container.emulator.page.children import children_view
from himl_container.emulator.page.files import RunFiles
from himl_container.emulator.page.lists import experiment_rows, read_filter, run_duration, run_list, user_tags
from himl_container.emulator.page.run_page import error_view, job_view, metrics_view, times_of
from himl_container.emulator.page.words import moment, size
from himl_container.emulator.routes import Handler, Route
from himl_container.emulator.state.metrics import Metrics
from himl_container.emulator.state.run import Run, iso
from himl_container.emulator.state.runs import Runs

_HERE = Path(__file__).parent
_STATIC: Mapping[str, str] = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

_GUARDS = {
    # Nothing from elsewhere, nothing inline: what a run logged cannot become a script or a request.
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_FILE_GUARDS = {**_GUARDS, "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}

_TEST = "tests/unit/emulator/test_page.py::"


class Page:
    """Answers browsers.

    :param key: who may look; :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        runs: Runs,
        metrics: Metrics,
        files: RunFiles,
        key: PageKey,
        *,
        workspace: Workspace,
        clock: Callable[[], float],
    ) -> None:
        self._runs, self._metrics, self._files = runs, metrics, files
        self._key, self._workspace, self._clock = key, workspace, clock
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"moment": moment, "iso": iso, "size": size}

    def routes(self) -> tuple[Route, ...]:
        """Return what the page answers. Who asks is checked here, not by a token."""

        def get(pattern: str, handler: Handler, operation: str, test: str, *, open_to_all: bool = False) -> Route:
            answer = self._guarded(handler, open_to_all)
            return Route("GET", pattern, answer, f"Studio.{operation}", f"{_TEST}{test}", host="studio", public=True)

        entering, run = "test_the_key_in_the_address_becomes_a_cookie", "/runs/{run}"
        return (
            get("/k/{key}", self._enter, "Enter", entering, open_to_all=True),
            get("/k/{key}/{rest*}", self._enter, "Enter", entering, open_to_all=True),
            get("/static/{name}", self._static, "Static", "test_static_files", open_to_all=True),
            get("/", self._home, "Experiments", "test_experiments"),
            get("/experiments/id/{experiment_id}", self._experiment, "Experiment", "test_the_sdks_portal_addresses"),
            get("/experiments/{experiment}", self._experiment, "Experiment", "test_the_sdks_portal_addresses"),
            get("/runs", self._all_runs, "Runs", "test_runs_are_filtered_and_paged"),
            get(run, self._run_page, "Run", "test_the_page_of_a_run"),
            get(f"{run}/tail/{{path*}}", self._tail, "Tail", "test_a_log_is_read_as_it_is_written"),
            get(f"{run}/files/{{path*}}", self._download, "File", "test_files_are_downloaded_and_not_shown"),
            get(f"{run}/pictures/{{path*}}", self._picture, "Picture", "test_pictures_are_what_their_bytes_say"),
            get("/{path*}", self._nowhere, "NotFound", "test_what_is_not_there"),
        )

    # --- pages ---

    def _home(self, request: Request) -> Answer:
        return self._page("home.html", experiments=experiment_rows(self._runs))

    def _all_runs(self, request: Request) -> Answer:
        found = run_list(self._runs.all(), read_filter(request), self._clock())
        return self._page("runs.html", experiment=None, list=found, path="/runs")

    def _experiment(self, request: Request) -> Answer:
        if experiment_id := request.params.get("experiment_id"):
            experiment = self._runs.experiment_of_id(experiment_id)
        else:
            experiment = self._runs.experiment(request.params["experiment"])
        runs = self._runs.of_experiment_id(experiment.experiment_id)
        found = run_list(runs, read_filter(request), self._clock())
        return self._page(
            "runs.html", experiment=experiment, list=found, path=f"/experiments/id/{experiment.experiment_id}"
        )

    def _run_page(self, request: Request) -> Answer:
        run, now = self._run(request), self._clock()
        logs = self._files.logs(run.run_id)
        wanted = request.first("log")
        log = wanted if wanted in logs else next(iter(logs), "")
        children = self._runs.children(run.run_id)
        listing, count = self._files.listing(run.run_id)
        return self._page(
            "run.html",
            run=run,
            parent=self._runs.find(run.parent_id) if run.parent_id else None,
            times=times_of(run),
            duration=run_duration(run, now),
            tags=user_tags(run),
            error=error_view(run),
            metrics=metrics_view(run, self._metrics),
            children=children_view(run, children, self._metrics, request, now) if children else None,
            job=job_view(run),
            hyperparameters=_hyperparameters(run),
            datasets=_datasets(run),
            files=listing,
            file_count=count,
            logs=logs,
            log=log,
            tail=self._files.tail(run.run_id, log) if log else None,
        )

    def _nowhere(self, request: Request) -> Answer:
        raise not_found("This page")

    # --- pieces ---

    def _tail(self, request: Request) -> Answer:
        """Answer what is new of a log, for the script that shows it."""
        run = self._run(request)
        text = request.first("from", "0")
        if not text.isascii() or not text.isdigit() or len(text) > 15:
            raise Refusal(400, "BadArgument", "The place in the log is no number.")
        # The status is read before the log: after its end nothing is written any more.
        status = self._runs.get(run.run_id).status
        piece = self._files.after(run.run_id, request.params["path"], int(text))
        document = {
            "text": piece.text,
            "next": piece.end,
            "restarted": piece.restarted,
            "status": status.value,
            "ended": status.ended,
        }
        return json_answer(document)

    def _download(self, request: Request) -> Answer:
        return self._file(self._files.download(self._run(request).run_id, request.params["path"]))

    def _picture(self, request: Request) -> Answer:
        return self._file(self._files.picture(self._run(request).run_id, request.params["path"]))

    def _static(self, request: Request) -> Answer:
        kind = _STATIC.get(request.params["name"])
        if kind is None:
            raise not_found("This file")
        return Answer(200, (_HERE / "static" / request.params["name"]).read_bytes(), {"content-type": kind})

    def _enter(self, request: Request) -> Answer:
        answer = self._key.enter(request)
        if answer is None:
            raise Refusal(403, "Forbidden", "The key in this address is not the one of this emulator.")
        return answer

    # --- parts ---

    def _guarded(self, handler: Handler, open_to_all: bool) -> Handler:
        def answer(request: Request) -> Answer:
            try:
                if not open_to_all and not self._key.admits(request):
                    raise Refusal(403, "Forbidden", "This browser has not been let in yet.")
                found = handler(request)
            except Refusal as refusal:
                page = self._page("error.html", status=refusal.status, message=refusal.message)
                found = Answer(refusal.status, page.body, {**page.headers, **refusal.headers})
            return Answer(found.status, found.body, {**_GUARDS, **found.headers})

        return answer

    def _run(self, request: Request) -> Run:
        return self._runs.get(request.params["run"])

    def _page(self, name: str, **values: Any) -> Answer:
        text = self._templates.get_template(name).render(workspace=self._workspace, **values)
        return Answer(200, text.encode(), {"content-type": "text/html; charset=utf-8"})

    @staticmethod
    def _file(found: Answer) -> Answer:
        return Answer(found.status, found.body, {**_FILE_GUARDS, **found.headers})


def _hyperparameters(run: Run) -> dict[str, Any]:
    try:
        found = parse_json(run.tags.get("hyperparameters") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) and run.parent_id else {}


def _datasets(run: Run) -> list[tuple[str, str]]:
    """Return what a run read and wrote: direction, and what is known of the dataset."""
    found = []
    for word, items in (("read", run.input_datasets), ("wrote", run.output_datasets)):
        for item in items:
            details = item.get("inputDetails") or item.get("outputDetails") or {}
            identifier = item.get("identifier") or {}
            name = details.get("inputName") or details.get("outputName") or ""
            found.append((f"{word} {name}".strip(), str(identifier.get("savedId") or identifier.get("id") or "")))
    return found

"""Lists on the page: experiments, and runs with a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from himl_container.emulator.http import Request
from himl_container.emulator.page.words import duration
from himl_container.emulator.state.experiments import Experiment
from himl_container.emulator.state.run import Run, Status
from himl_container.emulator.state.runs import Runs

PAGE = 100
"""Runs that one page lists."""

_SYSTEM_TAG = "_aml_system_"


@dataclass(frozen=True)
class ExperimentRow:
    """An experiment.

    :param runs: how many it has; :param running: how many of them have not ended.
    :param last: when the last was created, in seconds since the epoch; None for an empty one.
    """

    experiment: Experiment
    runs: int
    running: int
    last: float | None


@dataclass(frozen=True)
class RunRow:
    """A run in a list. ``tags`` are those of the user."""

    run: Run
    duration: str
    tags: Mapping[str, str | None]


@dataclass(frozen=True)
class RunFilter:
    """What of all runs is shown.

    :param text: in the id, the name or a tag, small and capital letters alike.
    :param children: whether runs below others are listed too.
    """

    text: str = ""
    status: str = ""
    children: bool = False
    page: int = 1

    def passes(self, run: Run) -> bool:
        """Whether a run is shown."""
        if self.status and run.status.value != self.status:
            return False
        if run.parent_id and not self.children:
            return False
        words = (run.run_id, run.display_name, *(f"{name}={value or ''}" for name, value in user_tags(run).items()))
        return any(self.text.lower() in word.lower() for word in words)

    def query(self, page: int) -> str:
        """Return the query of another page of the list."""
        fields = {"text": self.text, "status": self.status, "children": "1" if self.children else "", "page": str(page)}
        return urlencode({name: value for name, value in fields.items() if value})


@dataclass(frozen=True)
class RunList:
    """One page of a list of runs.

    :param total: runs that the filter lets pass; :param pages: how many pages they fill, at least 1.
    """

    rows: tuple[RunRow, ...]
    total: int
    pages: int
    filter: RunFilter
    statuses: tuple[str, ...] = tuple(status.value for status in Status)


def experiment_rows(runs: Runs) -> list[ExperimentRow]:
    """Return all active experiments, the one that was used last first."""
    by_experiment: dict[str, list[Run]] = {}
    for run in runs.all():
        by_experiment.setdefault(run.experiment_id, []).append(run)
    rows = []
    for experiment in runs.experiments():
        if experiment.archived:
            continue
        own = by_experiment.get(experiment.experiment_id, [])
        running = sum(not run.status.ended for run in own)
        rows.append(ExperimentRow(experiment, len(own), running, own[-1].created if own else None))
    return sorted(rows, key=lambda row: -(row.last or row.experiment.created))


def read_filter(request: Request) -> RunFilter:
    """Return the filter that a request's query asks for; what cannot be one is left out."""
    status, page = request.first("status"), request.first("page", "1")
    return RunFilter(
        text=request.first("text").strip()[:200],
        status=status if status in {item.value for item in Status} else "",
        children=request.first("children") == "1",
        page=int(page) if page.isascii() and page.isdigit() and 0 < len(page) < 7 and int(page) else 1,
    )


def run_list(runs: Sequence[Run], wanted: RunFilter, now: float) -> RunList:
    """Return a page of runs, the newest first.

    :param now: seconds since the epoch, for the duration of what still runs.
    """
    found = [run for run in reversed(runs) if wanted.passes(run)]
    pages = max(1, -(-len(found) // PAGE))
    start = (min(wanted.page, pages) - 1) * PAGE
    rows = tuple(RunRow(run, run_duration(run, now), user_tags(run)) for run in found[start : start + PAGE])
    return RunList(rows, len(found), pages, wanted)


def run_duration(run: Run, now: float) -> str:
    """Return how long a run took, or has taken so far; empty where it has not begun."""
    return duration(run.started, run.ended or now)


def user_tags(run: Run) -> dict[str, str | None]:
    """Return a run's tags without those by which a search keeps its configuration and its children's parameters."""
    if run.run_type != "hyperdrive":
        return {name: value for name, value in run.tags.items() if name.removeprefix(_SYSTEM_TAG) != "hyperparameters"}
    system = {name.removeprefix(_SYSTEM_TAG) for name in run.tags if name.startswith(_SYSTEM_TAG)}
    return {name: value for name, value in run.tags.items() if name not in system and not name.startswith(_SYSTEM_TAG)}

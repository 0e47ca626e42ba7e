"""Which runs a command line means: hi-ml's functions over an ``argparse.Namespace``.

A namespace may lack any of the attributes; one that is None, empty or an empty list counts as not given. Lists may hold
several ids in one word, separated by commas.
"""

from __future__ import annotations

import itertools
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himl_container.azureml.failures import WrongValue

if TYPE_CHECKING:
    from azureml.core import Run, Workspace


class AzureRunIdSource(Enum):
    """Where a command line names its runs."""

    LATEST_RUN_FILE = 1
    EXPERIMENT_LATEST = 2
    RUN_ID = 3
    RUN_IDS = 4
    RUN_RECOVERY_ID = 5
    RUN_RECOVERY_IDS = 6


_ATTRIBUTES = (
    ("latest_run_file", AzureRunIdSource.LATEST_RUN_FILE),
    ("experiment", AzureRunIdSource.EXPERIMENT_LATEST),
    ("run_recovery_ids", AzureRunIdSource.RUN_RECOVERY_IDS),
    ("run_recovery_id", AzureRunIdSource.RUN_RECOVERY_ID),
    ("run_id", AzureRunIdSource.RUN_ID),
    ("run_ids", AzureRunIdSource.RUN_IDS),
)
"""In hi-ml's order: the first that is given counts."""


def determine_run_id_source(args: Namespace) -> AzureRunIdSource:
    """Return where the runs are named.

    :raises WrongValue: nowhere.
    """
    for name, source in _ATTRIBUTES:
        if _given(args, name):
            return source
    raise WrongValue("One of latest_run_file, experiment, run_recovery_id(s) or run_id(s) must be provided")


def get_aml_runs(args: Namespace, workspace: Workspace, run_id_source: AzureRunIdSource) -> list[Run]:
    """Return the runs that a command line names, the first of them first.

    :raises WrongValue: the argument is missing, or there is no such experiment.
    :raises MissingRun: there is no such run.
    """
    single: dict[AzureRunIdSource, Callable[[Namespace, Workspace], Run]] = {
        AzureRunIdSource.LATEST_RUN_FILE: get_aml_run_from_latest_run_file,
        AzureRunIdSource.RUN_RECOVERY_ID: get_aml_run_from_recovery_id,
        AzureRunIdSource.RUN_ID: get_aml_run_from_run_id_args,
    }
    several: dict[AzureRunIdSource, Callable[[Namespace, Workspace], list[Run]]] = {
        AzureRunIdSource.EXPERIMENT_LATEST: get_latest_aml_runs_from_experiment,
        AzureRunIdSource.RUN_RECOVERY_IDS: get_aml_runs_from_recovery_ids,
        AzureRunIdSource.RUN_IDS: get_aml_runs_from_run_ids,
    }
    if run_id_source in single:
        return [single[run_id_source](args, workspace)]
    if run_id_source in several:
        return several[run_id_source](args, workspace)
    raise WrongValue(f"Unrecognised run id source: {run_id_source}")


def get_aml_run_from_latest_run_file(args: Namespace, workspace: Workspace) -> Run:
    """Return the run whose id is in the file ``args.latest_run_file``.

    :raises WrongValue: no file is given. :raises FailedAssertion: there is no such file.
    """
    from himl_container.azureml.runs import get_most_recent_run

    return get_most_recent_run(Path(_required(args, "latest_run_file")), workspace)


def get_latest_aml_runs_from_experiment(args: Namespace, workspace: Workspace) -> list[Run]:
    """Return the latest ``args.num_runs`` (1) runs of ``args.experiment`` that have all of ``args.tags``.

    A tag is ``name``, or ``name=value``; a dictionary of names and values serves as well.

    :raises WrongValue: no experiment is given, there is none of that name, or the number is not positive.
    """
    from himl_container.azureml.retry import retried

    name = str(_required(args, "experiment"))
    number = getattr(args, "num_runs", None)
    number = 1 if number is None else int(number)
    if number < 1:
        raise WrongValue(f"{number} is not a number of runs.", where="--num_runs")
    found = retried(f"looking for the experiment '{name}'", lambda: _experiments(workspace, name))
    if not found:
        raise WrongValue(f"No such experiment {name} in workspace", where=str(getattr(workspace, "name", "")))
    wanted = _tags(getattr(args, "tags", None))
    valued = {tag: value for tag, value in wanted.items() if value is not None}

    def latest() -> list[Run]:
        # The service filters by tags that have a value; it has no question for those that may have any.
        runs = (run for run in found[0].get_runs(tags=valued or None) if wanted.keys() <= run.tags.keys())
        return list(itertools.islice(runs, number))

    return retried(f"listing the runs of '{name}'", latest)


def get_aml_runs_from_recovery_ids(args: Namespace, workspace: Workspace) -> list[Run]:
    """Return the runs of ``args.run_recovery_ids``.

    :raises WrongValue: none is given, or one is malformed. :raises MissingRun: there is no such run.
    """
    from himl_container.azureml.runs import fetch_run

    return [fetch_run(workspace, one) for one in words(_required(args, "run_recovery_ids"))]


def get_aml_run_from_recovery_id(args: Namespace, workspace: Workspace) -> Run:
    """Return the run of ``args.run_recovery_id``.

    :raises WrongValue: none is given, or it is malformed. :raises MissingRun: there is no such run.
    """
    from himl_container.azureml.runs import fetch_run

    return fetch_run(workspace, str(_required(args, "run_recovery_id")))


def get_aml_run_from_run_id_args(args: Namespace, workspace: Workspace) -> Run:
    """Return the run of ``args.run_id``.

    :raises WrongValue: none is given. :raises MissingRun: there is no such run.
    """
    from himl_container.azureml.runs import get_run_by_id

    return get_run_by_id(workspace, str(_required(args, "run_id")))


def get_aml_runs_from_run_ids(args: Namespace, workspace: Workspace) -> list[Run]:
    """Return the runs of ``args.run_ids``.

    :raises WrongValue: none is given. :raises MissingRun: there is no such run.
    """
    from himl_container.azureml.runs import get_run_by_id

    return [get_run_by_id(workspace, one) for one in words(_required(args, "run_ids"))]


def get_aml_run_from_run_id(
    run_id: str, aml_workspace: Workspace | None = None, workspace_config_path: Path | None = None
) -> Run:
    """Return the run of an id, in the workspace that :func:`himl_container.azureml.workspace.get_workspace` finds.

    :raises MissingRun: there is no such run.
    """
    from himl_container.azureml.runs import get_run_by_id
    from himl_container.azureml.workspace import get_workspace

    return get_run_by_id(get_workspace(aml_workspace, workspace_config_path), run_id)


def _experiments(workspace: Workspace, name: str) -> list[Any]:
    """Return the experiment of a name in a list; asking ``workspace.experiments`` would list all of them."""
    from azureml.core import Experiment

    return [one for one in Experiment.list(workspace, experiment_name=name) if one.name == name]


def _tags(tags: object) -> dict[str, str | None]:
    """Return the tags that are wanted; None for any value."""
    if isinstance(tags, dict):
        return {str(name): None if value is None else str(value) for name, value in tags.items()}
    pairs = [word.partition("=") for word in words(tags)]
    return {name: value if equals else None for name, equals, value in pairs}


def _given(args: Namespace, name: str) -> bool:
    value = getattr(args, name, None)
    return bool(words(value)) if isinstance(value, (list, tuple)) else value is not None and str(value) != ""


def _required(args: Namespace, name: str) -> Any:
    if not _given(args, name):
        raise WrongValue(f"Expected to have {name} in args.")
    return getattr(args, name)


def words(value: object) -> list[str]:
    """Return what a list of words, or one word, names; several may stand in one word, separated by commas."""
    values: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value] if value else []
    return [word for one in values for word in re.split(r"[,\s]+", str(one)) if word]

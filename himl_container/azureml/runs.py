"""Runs by their ids, and whether they are done."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.constants import EXPERIMENT_RUN_SEPARATOR
from himl_container.azureml.failures import FailedAssertion, LoginFailed, MissingRun, WrongValue
from himl_container.azureml.names import split_recovery_id
from himl_container.azureml.retry import is_transient, one_line, retried, status_of

if TYPE_CHECKING:
    from azureml.core import Experiment, Run, Workspace

_LOG = logging.getLogger(__name__)
_LISTED = 100
"""Runs at most that an error lists, newest first: each hundred is a request."""
_UNAUTHORIZED = 401


def fetch_run(workspace: Workspace, run_recovery_id: str) -> Run:
    """Return the run of a recovery id.

    :param run_recovery_id: see :func:`himl_container.azureml.names.split_recovery_id`.
    :raises WrongValue: (a ValueError) the id is malformed.
    :raises MissingRun: there is no such experiment, or no such run in it.
    """
    experiment_name, run_id = split_recovery_id(run_recovery_id)
    run = fetch_run_for_experiment(_experiment(workspace, experiment_name, run_id), run_id)
    _LOG.info("Fetched run #%s %s from experiment %s.", run.number, run_id, experiment_name)
    return run


def fetch_run_for_experiment(experiment: Experiment, run_id: str) -> Run:
    """Return the run of an experiment.

    :raises MissingRun: there is none of this id; the message lists those that are there.
    """
    from azureml.core import get_run

    try:
        return retried(f"reading run {run_id}", lambda: get_run(experiment, run_id=run_id, rehydrate=True))
    except Exception as error:
        if _is_no_answer(error):
            raise
        what = f"Run {run_id} not found for experiment: {experiment.name}. Available runs are: {_available(experiment)}"
        raise MissingRun(what) from error


def get_most_recent_run_id(run_recovery_file: str | Path) -> str:
    """Return the recovery id in a file that a submission wrote (``most_recent_run.txt``).

    :raises FailedAssertion: (an AssertionError) there is no such file.
    :raises WrongValue: it cannot be read, or has no id in it.
    """
    path = Path(run_recovery_file)
    if not path.is_file():
        what = "When running in cloud builds, this should pick up the ID of a previous training run"
        raise FailedAssertion(what, where=str(path), hint="submit a run from this folder, or name another file")
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise WrongValue(f"the id of a run cannot be read: {reason}", where=str(path)) from error
    if not text:
        raise WrongValue("there is no id of a run in the file", where=str(path))
    return text


def get_most_recent_run(run_recovery_file: str | Path, workspace: Workspace) -> Run:
    """Return the run whose id is in a file that a submission wrote.

    :raises FailedAssertion: (an AssertionError) there is no such file.
    :raises MissingRun: the workspace has no such run.
    """
    run_id = get_most_recent_run_id(run_recovery_file)
    if EXPERIMENT_RUN_SEPARATOR in run_id:
        return fetch_run(workspace, run_id)
    return get_run_by_id(workspace, run_id)


def get_run_by_id(workspace: Workspace, run_id: str) -> Run:
    """Return the run of a workspace that has this id.

    :raises MissingRun: the workspace has no such run.
    """
    try:
        return retried(f"reading run {run_id}", lambda: workspace.get_run(run_id))
    except Exception as error:
        if _is_no_answer(error):
            raise
        what = f"Unable to retrieve run {run_id} in workspace {workspace.name}: {one_line(error)}"
        raise MissingRun(what, hint="himl-container runs lists what was submitted") from error


def is_run_and_child_runs_completed(run: Run) -> bool:
    """Return whether a run and its direct children have all completed; logs the first that has not."""
    for one in itertools.chain([run], run.get_children()):
        status = one.get_status()
        if status != "Completed":
            _LOG.info("Run %s in experiment %s is not completed: status %s.", one.id, one.experiment.name, status)
            return False
    return True


def _is_no_answer(error: Exception) -> bool:
    """Whether a failure says nothing about the run: the service was not reached, or does not know who asks."""
    return isinstance(error, LoginFailed) or status_of(error) == _UNAUTHORIZED or is_transient(error)


def _experiment(workspace: Workspace, name: str, run_id: str) -> Experiment:
    """Return an experiment that is there: the SDK's constructor would create one for a name that is misspelt."""
    from azureml.core import Experiment

    what = f"Unable to retrieve run {run_id} in experiment {name}"
    try:
        found = retried(f"reading experiment {name}", lambda: Experiment.list(workspace, experiment_name=name))
    except Exception as error:
        if _is_no_answer(error):
            raise
        raise MissingRun(f"{what}: {one_line(error)}") from error
    # An empty name is no filter to the service, and would find any experiment.
    if not found or not name:
        raise MissingRun(f"{what}: workspace {workspace.name} has no such experiment")
    return found[0]


def _available(experiment: Experiment) -> str:
    try:
        ids = [run.id for run in itertools.islice(experiment.get_runs(), _LISTED + 1)]
    except Exception as error:  # noqa: BLE001  # the list is a help; what is wrong is said without it
        return f"unknown ({one_line(error)})"
    return ", ".join(ids[:_LISTED]) + (", and others" if len(ids) > _LISTED else "") or "none"

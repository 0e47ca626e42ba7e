"""Submitting a run, and waiting for it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himl_container.azureml.constants import RUN_RECOVERY_FILE, SDK_NAME, SDK_VERSION
from himl_container.azureml.failures import UnfinishedRun
from himl_container.azureml.names import azure_experiment_name, create_run_recovery_id
from himl_container.azureml.retry import retried
from himl_container.azureml.runs import is_run_and_child_runs_completed
from himl_container.azureml.service_failures import explained
from himl_container.environment.urls import scrub
from himl_container.whole_file import replace_file

if TYPE_CHECKING:
    from azureml.core import Run, ScriptRunConfig, Workspace
    from azureml.train.hyperdrive import HyperDriveConfig

COMMANDLINE_TAG = "commandline_args"
_log = logging.getLogger(__name__)


def submit_run(  # noqa: PLR0917  # hi-ml's signature
    workspace: Workspace,
    experiment_name: str,
    script_run_config: ScriptRunConfig | HyperDriveConfig,
    tags: dict[str, str] | None = None,
    wait_for_completion: bool = False,
    wait_for_completion_show_output: bool = False,
) -> Run:
    """Submit a run, say so, and wait for it if that is wanted.

    :param tags: of the run; by default its arguments, as ``commandline_args``.
    :raises UnfinishedRun: (a ValueError) the run for which we waited, or a child of it, did not complete.
    :raises AzureMLError: AzureML refuses it.
    """
    from himl_container.azureml.staging import described_by_git

    with described_by_git(Path(getattr(script_run_config, "source_directory", None) or "."), os.environ):
        run = queue_run(workspace, experiment_name, script_run_config, tags)
    if wait_for_completion:
        wait_for_run(run, show_output=wait_for_completion_show_output)
    return run


def queue_run(
    workspace: Workspace,
    experiment_name: str,
    script_run_config: ScriptRunConfig | HyperDriveConfig,
    tags: Mapping[str, str] | None = None,
    *,
    recovery_file: Path | None = None,
) -> Run:
    """Submit a run once, and write down and print which one it is.

    Submitting is not repeated when its answer is lost: a second one could start a second run.

    :param recovery_file: where the run's recovery id is written; ``most_recent_run.txt`` in the current folder.
    :raises AzureMLError: AzureML refuses it.
    """
    from azureml.core import Experiment

    name = azure_experiment_name(experiment_name)
    _introduce()
    with explained(f"the experiment {name}"):
        experiment = retried(f"opening the experiment {name}", lambda: Experiment(workspace=workspace, name=name))
    with explained("submitting the run"):
        run: Run = experiment.submit(script_run_config)
    # From here on there is a run: whatever else fails must not hide it.
    _set_tags(run, dict(tags) if tags is not None else default_tags(script_run_config))
    file = recovery_file or Path(RUN_RECOVERY_FILE)
    try:
        replace_file(file, create_run_recovery_id(run).encode())
    except OSError as error:
        _log.warning("The run's id cannot be written to %s: %s", file, error.strerror)
    _print_frame(run, experiment, file)
    return run


def wait_for_run(run: Run, *, show_output: bool = False) -> None:
    """Wait until a run and its children have ended.

    :raises UnfinishedRun: (a ValueError) one of them failed, was cancelled, or ran out of time; says why.
    """
    print("Waiting for the completion of the AzureML run.", flush=True)  # noqa: T201  # hi-ml's line
    with explained(f"run {run.id}"):
        retried(
            f"waiting for the run {run.id}",
            # Whether it failed is looked at below: the SDK's own exception is JSON, and none at all for "Canceled".
            lambda: run.wait_for_completion(show_output=show_output, wait_post_processing=True, raise_on_error=False),
        )
        completed = retried(f"asking for the run {run.id}", lambda: is_run_and_child_runs_completed(run))
    if not completed:
        raise failure_of(run)
    print("AzureML completed.", flush=True)  # noqa: T201  # hi-ml's line


def failure_of(run: Run) -> UnfinishedRun:
    """Return the error of a run that did not complete, or whose child did not, with what AzureML says about it."""
    reason = ""
    with contextlib.suppress(Exception):  # the failure is what has to be told, with or without a reason
        reason = "; ".join(filter(None, (_reason(one) for one in (run, *run.get_children()))))
    return UnfinishedRun(
        f"Run {run.id} in experiment {run.experiment.name} or one of its child runs failed."
        + (f" {scrub(reason)}" if reason else ""),
        hint=f"Its logs: {run.get_portal_url()}",
    )


def default_tags(config: ScriptRunConfig | HyperDriveConfig) -> dict[str, str] | None:
    """Return hi-ml's tags: the arguments of the script, of a search those of each of its runs; None without any."""
    for one in (config, getattr(config, "run_config", None)):
        arguments = getattr(one, "arguments", None)
        if arguments:
            words = arguments if isinstance(arguments, str) else " ".join(str(word) for word in arguments)
            return {COMMANDLINE_TAG: scrub(words)}
    return None


def _reason(run: Run) -> str:
    """Return what AzureML says about a run that did not complete."""
    status = run.get_status()
    if status == "Completed":
        return ""
    details = run.get_details()
    error: Any = details.get("error") or {}
    message = (error.get("error") or error).get("message") if isinstance(error, Mapping) else str(error)
    warnings = [str(item.get("message", "")) for item in details.get("warnings") or () if isinstance(item, Mapping)]
    told = message or "; ".join(filter(None, warnings))
    return f"{run.id}: {status}{f': {told}' if told else ''}"


def _introduce() -> None:
    """Add hi-ml's name to what the SDK calls itself, once in a process, however much is submitted."""
    from azureml._base_sdk_common import user_agent

    if f"{SDK_NAME}/{SDK_VERSION}" not in user_agent.get_user_agent():
        user_agent.append(SDK_NAME, SDK_VERSION)


def _set_tags(run: Run, tags: dict[str, str] | None) -> None:
    if not tags:
        return
    try:
        retried("setting the run's tags", lambda: run.set_tags(tags))
    except Exception as error:  # noqa: BLE001  # the run is on its way, and the caller needs it
        _log.warning("The run %s was submitted, but its tags cannot be set: %s", run.id, scrub(str(error)))


def _number(run: Run) -> int:
    """Return a run's number without the SDK's warning that numbers may mean something else some day."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        return int(run.number)
    finally:
        logging.disable(before)


def _print_frame(run: Run, experiment: Any, file: Path) -> None:
    lines = (
        f"Successfully queued run number {_number(run)} (ID {run.id}) in experiment {run.experiment.name}",
        f"Experiment name and run ID are available in file {file.name}",
        f"Experiment URL: {experiment.get_portal_url()}",
        f"Run URL: {run.get_portal_url()}",
    )
    # Addresses are longer than any terminal is wide.
    frame = "=" * min(max(len(line) for line in lines), 80)
    print("\n".join((frame, *lines, frame)), flush=True)  # noqa: T201  # hi-ml prints it, and tools look for it

"""One call turns a script into one that submits itself to AzureML.

There are three outcomes: inside AzureML the call returns what the run has; on this machine without ``--azureml`` it
returns where the script finds its data here; with it, the run is submitted, and the script ends.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from himl_container.azureml.constants import (
    AZUREML_COMMANDLINE_FLAG,
    CONDA_ENVIRONMENT_FILE,
    LOGS_FOLDER,
    OUTPUT_FOLDER,
)
from himl_container.azureml.context import RUN_CONTEXT, is_running_in_azure_ml
from himl_container.azureml.datasets import DatasetConfig, create_dataset_configs, input_key, output_key
from himl_container.azureml.distributed import is_global_rank_zero
from himl_container.azureml.failures import WrongValue

if TYPE_CHECKING:
    from azureml.core import Run, ScriptRunConfig, Workspace
    from azureml.train.hyperdrive import HyperDriveConfig

    from himl_container.azureml.configuration import EnvironmentSource
    from himl_container.launch.spec import LaunchSpec

PathOrString = str | Path
StrOrDatasetConfig = str | DatasetConfig

_LOG_LEVELS = {
    "adal-python": logging.WARNING,
    "azure": logging.WARNING,
    "azureml": logging.INFO,
    "msrest": logging.INFO,
    "urllib3": logging.INFO,
}
_log = logging.getLogger(__name__)


@dataclass
class AzureRunInfo:
    """Where a script is, and where it finds what belongs to it.

    :param input_datasets: a folder for each input; None for one that has none on this machine.
    :param output_datasets: the same of the outputs.
    :param run: None on this machine.
    :param output_folder: what is written there becomes part of the run.
    :param logs_folder: the same, already while the run goes on.
    """

    input_datasets: list[Path | None]
    output_datasets: list[Path | None]
    run: Run | None
    is_running_in_azure_ml: bool
    output_folder: Path
    logs_folder: Path


def submit_to_azure_if_needed(  # noqa: PLR0917  # hi-ml's signature
    compute_cluster_name: str = "",
    entry_script: PathOrString | None = None,
    aml_workspace: Workspace | None = None,
    workspace_config_file: PathOrString | None = None,
    snapshot_root_directory: PathOrString | None = None,
    script_params: list[str] | None = None,
    conda_environment_file: PathOrString | None = None,
    aml_environment_name: str = "",
    experiment_name: str | None = None,
    environment_variables: dict[str, str] | None = None,
    pip_extra_index_url: str = "",
    private_pip_wheel_path: PathOrString | None = None,
    docker_base_image: str = "",
    docker_shm_size: str = "",
    ignored_folders: list[PathOrString] | None = None,
    default_datastore: str = "",
    input_datasets: list[StrOrDatasetConfig] | None = None,
    output_datasets: list[StrOrDatasetConfig] | None = None,
    num_nodes: int = 1,
    wait_for_completion: bool = False,
    wait_for_completion_show_output: bool = False,
    max_run_duration: str = "",
    submit_to_azureml: bool | None = None,
    tags: dict[str, str] | None = None,
    after_submission: Callable[[Run], None] | None = None,
    hyperdrive_config: HyperDriveConfig | None = None,
) -> AzureRunInfo:
    """Submit the script that is running to AzureML if that is wanted, else say where it finds its data.

    Inside AzureML, all arguments but the datasets are without effect. On this machine, no workspace, cluster or
    Conda file is looked at.

    :param compute_cluster_name: where the run goes.
    :param entry_script: by default the script that is running.
    :param aml_workspace: by default that of ``workspace_config_file``, else of the nearest ``config.json``.
    :param snapshot_root_directory: all of it becomes part of the run; the current folder by default.
    :param script_params: arguments of the script; by default, and where the list is empty, those that it has, without
        ``--azureml``.
    :param conda_environment_file: of what the run's image is made; by default the project's (``conda-files``), else
        the nearest ``environment.yml``.
    :param aml_environment_name: a registered environment, in place of such an image.
    :param experiment_name: by default the stem of the script's name.
    :param environment_variables: of the run; on this machine, of this process.
    :param pip_extra_index_url: an index that is searched before PyPI, in spite of the name.
    :param private_pip_wheel_path: a wheel that becomes part of the image.
    :param docker_base_image: on which the image is built.
    :param docker_shm_size: of ``/dev/shm``: ``512m``, ``60g``.
    :param ignored_folders: left out of the snapshot, beside what ``.amlignore`` leaves out.
    :param default_datastore: of datasets that are given by name.
    :param num_nodes: machines, each with one process.
    :param wait_for_completion: end when the run has ended, and with an exception where it failed.
    :param wait_for_completion_show_output: print its log while waiting.
    :param max_run_duration: after which AzureML cancels the run: ``30m``, ``1.5h``, ``2d``.
    :param submit_to_azureml: None: submit if ``--azureml`` is among the script's arguments.
    :param tags: of the run; by default its arguments.
    :param after_submission: called with the run directly after it was submitted.
    :param hyperdrive_config: a search over arguments, of which the script becomes a part.
    :raises SystemExit: (code 0) the run was submitted; with waiting: and has completed.
    :raises WrongValue: (a ValueError) an argument cannot be used; there is no such cluster, environment or dataset.
    :raises UnfinishedRun: (a ValueError) the run for which we waited did not complete.
    """
    _quieten()
    inputs = create_dataset_configs(input_datasets, default_datastore)
    outputs = create_dataset_configs(output_datasets, default_datastore)
    if is_running_in_azure_ml(RUN_CONTEXT):
        return _inside(len(inputs), len(outputs))
    wanted = AZUREML_COMMANDLINE_FLAG in sys.argv[1:] if submit_to_azureml is None else submit_to_azureml
    if not wanted:
        return _here(inputs, outputs, environment_variables or {})
    if not is_global_rank_zero():
        _log.info("Only the first process submits; this is another one.")
        sys.exit(0)
    from himl_container.azureml.configuration import EnvironmentSource, description

    return _submit(
        _Submission(
            root=Path(snapshot_root_directory) if snapshot_root_directory is not None else None,
            entry_script=entry_script,
            script_params=script_params,
            workspace=aml_workspace,
            workspace_config_file=Path(workspace_config_file) if workspace_config_file is not None else None,
            compute=compute_cluster_name,
            experiment=experiment_name,
            source=EnvironmentSource(
                aml_environment_name,
                _conda_file(conda_environment_file, aml_environment_name),
                pip_extra_index_url,
                Path(private_pip_wheel_path) if private_pip_wheel_path is not None else None,
                docker_base_image,
            ),
            spec=description(environment_variables, docker_shm_size, num_nodes, max_run_duration),
            inputs=inputs,
            outputs=outputs,
            ignored=_several(ignored_folders, "ignored_folders"),
            tags=tags,
            after=after_submission,
            wait=wait_for_completion,
            show_output=wait_for_completion_show_output,
            search=hyperdrive_config,
        )
    )


@dataclass(frozen=True)
class _Submission:
    """What was asked for, in the types in which it is used."""

    root: Path | None
    entry_script: PathOrString | None
    script_params: list[str] | None
    workspace: Workspace | None
    workspace_config_file: Path | None
    compute: str
    experiment: str | None
    source: EnvironmentSource
    spec: LaunchSpec
    inputs: Sequence[DatasetConfig]
    outputs: Sequence[DatasetConfig]
    ignored: Sequence[PathOrString]
    tags: Mapping[str, str] | None
    after: Callable[[Run], None] | None
    wait: bool
    show_output: bool
    search: HyperDriveConfig | None


def _submit(wanted: _Submission) -> NoReturn:
    """Submit, tell the caller, wait, and end the script."""
    from himl_container.azureml.amlignore import with_ignored
    from himl_container.azureml.configuration import configure, settings_of
    from himl_container.azureml.console import ConsoleReporter
    from himl_container.azureml.quick_import import IN_A_SCRIPT, import_sdk
    from himl_container.azureml.script_run import create_script_run
    from himl_container.azureml.service_failures import sdk_needed
    from himl_container.azureml.staging import described_by_git
    from himl_container.azureml.submission import queue_run, wait_for_run
    from himl_container.azureml.toolbox import warn_without_toolbox
    from himl_container.azureml.workspace import get_workspace
    from himl_container.launch.script import resolve_command
    from himl_container.launch.snapshot import check_limits

    with sdk_needed():
        import_sdk(IN_A_SCRIPT)
    script_run = create_script_run(wanted.root, wanted.entry_script, wanted.script_params)
    root = Path(script_run.source_directory)
    with with_ignored(root, wanted.ignored) as snapshot:
        check_limits(snapshot, os.environ)
        if str(script_run.script or "").endswith(".py"):
            resolve_command(script_run.script, snapshot)
    workspace = get_workspace(wanted.workspace, wanted.workspace_config_file)
    script_run.run_config = configure(
        workspace, wanted.compute, wanted.source, wanted.spec, inputs=wanted.inputs, outputs=wanted.outputs
    )
    if script_run.script and not wanted.source.name:
        warn_without_toolbox(root / script_run.script, settings_of(wanted.source).lock_file, ConsoleReporter())
    to_submit: ScriptRunConfig | HyperDriveConfig = script_run
    if wanted.search is not None:
        to_submit = wanted.search
        to_submit._run_config = script_run  # the caller made it with a placeholder; there is no public way
    experiment = wanted.experiment or _stem(script_run)
    with described_by_git(root, os.environ), with_ignored(root, wanted.ignored) as snapshot:
        check_limits(snapshot, os.environ)  # a build may have written a lock
        run = queue_run(workspace, experiment, to_submit, wanted.tags)
    if wanted.after is not None:
        wanted.after(run)
    if wanted.wait:
        wait_for_run(run, show_output=wanted.show_output)
    sys.exit(0)


def _inside(inputs: int, outputs: int) -> AzureRunInfo:
    """Return what a run in AzureML has."""
    given, taken = RUN_CONTEXT.input_datasets, RUN_CONTEXT.output_datasets
    return AzureRunInfo(
        input_datasets=[Path(given[input_key(index)]) for index in range(inputs)],
        output_datasets=[Path(taken[output_key(index)]) for index in range(outputs)],
        run=RUN_CONTEXT,
        is_running_in_azure_ml=True,
        output_folder=Path.cwd() / OUTPUT_FOLDER,
        logs_folder=Path.cwd() / LOGS_FOLDER,
    )


def _here(
    inputs: Sequence[DatasetConfig], outputs: Sequence[DatasetConfig], variables: Mapping[str, str]
) -> AzureRunInfo:
    """Return what a script has on this machine, in a container of ``himl-container run`` too."""
    os.environ.update({name: str(value) for name, value in variables.items()})
    folders = [Path.cwd() / name for name in (OUTPUT_FOLDER, LOGS_FOLDER)]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    return AzureRunInfo(
        input_datasets=[_folder(f"AZURE_ML_INPUT_{input_key(n)}", item) for n, item in enumerate(inputs)],
        output_datasets=[_folder(f"AZURE_ML_OUTPUT_{output_key(n)}", item) for n, item in enumerate(outputs)],
        run=None,
        is_running_in_azure_ml=False,
        output_folder=folders[0],
        logs_folder=folders[1],
    )


def _folder(variable: str, config: DatasetConfig) -> Path | None:
    """Return where a dataset is: where a local run has mounted it (AzureML's variables), else its local folder."""
    mounted = os.environ.get(variable)
    return Path(mounted) if mounted else config.local_folder


def _conda_file(given: PathOrString | None, environment_name: str) -> Path | None:
    """Return the Conda file that was given, or the nearest one where the project's settings would find none."""
    if given is not None or environment_name:
        return Path(given) if given is not None else None
    from himl_container.azureml.workspace import find_file
    from himl_container.settings import load_settings

    settings = load_settings({}, cwd=Path.cwd(), environ=os.environ)
    return None if settings.conda_files else find_file(CONDA_ENVIRONMENT_FILE)


def _several(values: Sequence[PathOrString] | None, name: str) -> Sequence[PathOrString]:
    """Return a list; one text in its place would be a list of letters.

    :raises WrongValue: it is one text or path.
    """
    if isinstance(values, (str, Path)):
        raise WrongValue(f"{name} is a list, and not {str(values)!r}.")
    return values or []


def _stem(script_run: ScriptRunConfig) -> str:
    """Return the name of an experiment whose caller gave none."""
    if script_run.script:
        return Path(script_run.script).stem
    module = str(script_run.command).split(" ")[2]
    return module.rpartition(".")[2]


def _quieten() -> None:
    """Set the levels of the libraries' loggers, as hi-ml did: their details would hide what the script says."""
    for name, level in _LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="jwt")

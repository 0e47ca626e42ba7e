"""The one place where the description of a run becomes AzureML's.

The local launcher is the other translation of the same :class:`LaunchSpec`. What only the cloud has (the cluster, the
datasets' datastores) comes beside it, as an :class:`AzureTarget`.

The run's variables are put into the run configuration and not into the environment: an environment is found again by
its name, whatever the variables of a run are.
"""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from himl_container.launch.spec import LaunchSpec

if TYPE_CHECKING:
    from azureml.core import Environment, RunConfiguration, ScriptRunConfig, Workspace

    from himl_container.azureml.datasets import DatasetConfig

PYTHON = "python"

SCRIPT_LATER = (PYTHON,)
"""The command of a description whose script is not known yet: a configuration that others put one into."""

_UNITS = ((1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k"))


@dataclass(frozen=True)
class AzureTarget:
    """Where a run goes, and what only AzureML knows of it.

    :param compute: name of the cluster.
    :param experiment: name of the experiment, as AzureML takes it.
    :param tags: of the run; None for hi-ml's own (``commandline_args``).
    :param input_datasets: in the order of the spec's ``datasets``; the n-th is ``INPUT_n``.
    :param output_datasets: in the order of the spec's ``outputs``; the n-th is ``OUTPUT_n``.
    :param default_datastore: of the datasets that name none.
    """

    compute: str
    experiment: str = ""
    tags: Mapping[str, str] | None = None
    input_datasets: tuple[DatasetConfig, ...] = ()
    output_datasets: tuple[DatasetConfig, ...] = ()
    default_datastore: str = ""


def run_configuration(
    spec: LaunchSpec, target: AzureTarget, environment: Environment | None, workspace: Workspace
) -> RunConfiguration:
    """Return a run as AzureML takes it: what is run, with what, and where.

    A Python script becomes ``script`` and ``arguments``, so that AzureML's pages show it; anything else is one line
    for the shell that AzureML hands ``command`` to, quoted for it. GPUs are those of the cluster's machines; the user
    is root and the working directory the snapshot's, as AzureML has it.

    :param environment: None where it is made later, when everything else was found to be right.
    :param workspace: looked into for datasets only.
    :raises ValueError: a dataset or its datastore cannot be had, or two have one name.
    """
    from azureml.core.runconfig import DockerConfiguration, MpiConfiguration, RunConfiguration

    result = RunConfiguration()
    _set_command(result, spec)
    result.target = target.compute
    if environment is not None:
        result.environment = environment
    result.environment_variables = dict(spec.environment)
    result.docker = DockerConfiguration(use_docker=True, shm_size=size_text(spec.shm_size))
    if spec.max_duration is not None:
        # Half a second is not 0, which is no limit.
        result.max_run_duration_seconds = int(spec.max_duration) or math.ceil(spec.max_duration)
    if spec.nodes > 1:
        # One process for each node, as hi-ml has it: PyTorch Lightning starts those of a node by itself.
        result.mpi = MpiConfiguration(node_count=spec.nodes)
        result.framework = "Python"
        result.communicator = "IntelMpi"
        result.node_count = spec.nodes
    _set_datasets(result, target, workspace)
    return result


def script_run(configuration: RunConfiguration, snapshot_root: str) -> ScriptRunConfig:
    """Return what ``Experiment.submit`` takes: a run configuration and the folder that is its snapshot."""
    from azureml.core import ScriptRunConfig

    return ScriptRunConfig(source_directory=snapshot_root, run_config=configuration)


def command_line(command: Sequence[str], arguments: Sequence[str]) -> str:
    """Return a command for the shell that AzureML hands it to, each word reaching the program as it is."""
    return shlex.join((*command, *arguments))


def size_text(size: int) -> str:
    """Return bytes as Docker writes them (``60g``, ``512m``), exactly."""
    for unit, letter in _UNITS:
        if size % unit == 0:
            return f"{size // unit}{letter}"
    return f"{size}b"


def _set_command(configuration: RunConfiguration, spec: LaunchSpec) -> None:
    if spec.command == SCRIPT_LATER and not spec.arguments:
        return
    if len(spec.command) == 2 and spec.command[0] == PYTHON and not spec.command[1].startswith("-"):
        configuration.script = spec.command[1]
        configuration.arguments = list(spec.arguments)
    else:
        configuration.command = command_line(spec.command, spec.arguments)


def _set_datasets(configuration: RunConfiguration, target: AzureTarget, workspace: Workspace) -> None:
    if not (target.input_datasets or target.output_datasets):
        return
    from himl_container.azureml.datasets import convert_himl_to_azureml_datasets

    inputs, outputs = convert_himl_to_azureml_datasets(
        [_placed(item, target) for item in target.input_datasets],
        [_placed(item, target) for item in target.output_datasets],
        workspace,
    )
    if inputs:
        configuration.data = inputs
    if outputs:
        configuration.output_data = outputs


def _placed(config: DatasetConfig, target: AzureTarget) -> DatasetConfig:
    """Return a dataset with its datastore."""
    if config.datastore or not target.default_datastore:
        return config
    result = copy.copy(config)
    result.datastore = target.default_datastore
    return result

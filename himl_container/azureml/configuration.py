"""The configuration of a run: cluster, environment, resources, datasets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.failures import WrongValue
from himl_container.azureml.names import run_duration_string_to_seconds
from himl_container.azureml.retry import retried
from himl_container.azureml.service_failures import explained

if TYPE_CHECKING:
    from azureml.core import Environment, RunConfiguration, Workspace

    from himl_container.azureml.datasets import DatasetConfig
    from himl_container.launch.spec import LaunchSpec
    from himl_container.progress import Reporter
    from himl_container.settings import Settings

NO_ENVIRONMENT = "One of the two arguments 'aml_environment_name' or 'conda_environment_file' must be given."


@dataclass(frozen=True)
class EnvironmentSource:
    """What a run's packages are made of, as hi-ml's arguments say it.

    :param name: of a registered environment; all else is without effect then.
    :param conda_file: None for those of the project's settings.
    :param pip_extra_index_url: an index that is searched before the main one.
    :param wheel: a private wheel; beside those of the settings none, where it is given.
    :param base_image: empty for that of the settings.
    """

    name: str = ""
    conda_file: Path | None = None
    pip_extra_index_url: str = ""
    wheel: Path | None = None
    base_image: str = ""


def create_run_configuration(  # noqa: PLR0917  # hi-ml's signature
    workspace: Workspace,
    compute_cluster_name: str,
    conda_environment_file: Path | None = None,
    aml_environment_name: str = "",
    environment_variables: dict[str, str] | None = None,
    pip_extra_index_url: str = "",
    private_pip_wheel_path: Path | None = None,
    docker_base_image: str = "",
    docker_shm_size: str = "",
    num_nodes: int = 1,
    max_run_duration: str = "",
    input_datasets: list[DatasetConfig] | None = None,
    output_datasets: list[DatasetConfig] | None = None,
) -> RunConfiguration:
    """Return the configuration of a run: everything but the script.

    The packages are those of a registered environment, or of an image that is made of the Conda file, tested and
    pushed if that was not done before.

    :param compute_cluster_name: it is looked for before anything is built.
    :param pip_extra_index_url: an index that is searched before PyPI, in spite of the name.
    :param docker_base_image, private_pip_wheel_path: of the image.
    :param docker_shm_size: of ``/dev/shm``: ``512m``, ``60g``; by default 2 GB.
    :param max_run_duration: after which AzureML cancels the run: ``30m``, ``1.5h``, ``2d``.
    :raises WrongValue: (a ValueError) an argument cannot be used; there is no such cluster, environment or dataset.
    :raises HimlError: the image cannot be made or pushed, or AzureML does not answer.
    """
    if not aml_environment_name and conda_environment_file is None:
        raise WrongValue(NO_ENVIRONMENT)
    return configure(
        workspace,
        compute_cluster_name,
        EnvironmentSource(
            aml_environment_name,
            Path(conda_environment_file) if conda_environment_file is not None else None,
            pip_extra_index_url,
            Path(private_pip_wheel_path) if private_pip_wheel_path is not None else None,
            docker_base_image,
        ),
        description(environment_variables, docker_shm_size, num_nodes, max_run_duration),
        inputs=input_datasets or (),
        outputs=output_datasets or (),
    )


def configure(
    workspace: Workspace,
    compute: str,
    source: EnvironmentSource,
    spec: LaunchSpec,
    *,
    inputs: Sequence[DatasetConfig] = (),
    outputs: Sequence[DatasetConfig] = (),
) -> RunConfiguration:
    """Return the configuration of a run. What can be wrong is looked at before an image is made.

    :raises WrongValue: there is no such cluster, environment or dataset.
    :raises HimlError: the image cannot be made or pushed, or AzureML does not answer.
    """
    from himl_container.azureml.translate import AzureTarget, run_configuration

    settings = None if source.name else settings_of(source)
    check_cluster(workspace, compute)
    target = AzureTarget(compute, input_datasets=tuple(inputs), output_datasets=tuple(outputs))
    with explained("the datasets of the run"):
        result = run_configuration(spec, target, None, workspace)
    if settings is None:
        from himl_container.azureml.environments import registered_environment

        with explained(f"the environment {source.name}"):
            result.environment = registered_environment(workspace, source.name)
    else:
        from himl_container.azureml.console import ConsoleReporter

        result.environment = project_environment(settings, workspace, ConsoleReporter())
    return result


def check_cluster(workspace: Workspace, name: str) -> None:
    """See that a workspace has a cluster.

    :raises WrongValue: it has not; says which ones it has.
    """
    with explained("the workspace's clusters"):
        existing = retried("asking for the clusters", lambda: sorted(workspace.compute_targets))
    if name not in existing:
        raise WrongValue(
            f"Could not find the compute target {name} in the AzureML workspace. Existing clusters: {existing}"
        )


def project_environment(
    settings: Settings, workspace: Workspace, reporter: Reporter, *, locked: bool = False, test: bool = True
) -> Environment:
    """Return the registered environment of a project, as the setting ``azureml-environment`` has it.

    :raises HimlError: the image cannot be made or pushed, or AzureML does not answer.
    """
    if settings.azureml_environment == "build":
        return environment_built_by_azureml(settings, workspace)
    from himl_container.azureml.environments import environment_of
    from himl_container.azureml.images import pushed_image
    from himl_container.cache import Cache

    image = pushed_image(settings, workspace, reporter, locked=locked, test=test)
    by_tag = settings.azureml_environment == "image-by-tag"
    with explained("the environment of the image"):
        return environment_of(image, workspace, by_tag=by_tag, cache=Cache(settings.cache_dir))


def environment_built_by_azureml(settings: Settings, workspace: Workspace) -> Environment:
    """Return the registered environment of a project's Conda files that AzureML is to build."""
    from himl_container.azureml.environments import register_environment

    with explained("the environment that AzureML builds"):
        return register_environment(workspace, environment_to_build(settings, workspace))


def environment_to_build(settings: Settings, workspace: Workspace | None) -> Environment:
    """Return the environment of a project's Conda files that AzureML is to build; it is not registered.

    :param workspace: where wheels are uploaded; without one, they are left out, and nothing is asked of anybody.
    :raises WrongValue: there is no Conda file, or one is none.
    """
    from conda_merge import MergeError  # type: ignore[import-untyped]

    from himl_container.azureml.conda_environment import merge_conda_files, python_environment

    if not settings.conda_files:
        raise _no_environment()
    with tempfile.TemporaryDirectory() as folder:
        file = settings.conda_files[0]
        if len(settings.conda_files) > 1:
            file = Path(folder, "environment.yml")
            try:
                merge_conda_files(list(settings.conda_files), file)
            except MergeError as error:
                raise WrongValue(
                    f"the Conda files cannot be merged: {error}", where=", ".join(map(str, settings.conda_files))
                ) from error
        return python_environment(
            file,
            indexes=settings.pip_extra_index_urls,
            main_index=settings.pip_index_url,
            wheels=settings.wheels,
            workspace=workspace,
            base_image=settings.base_image,
        )


def settings_of(source: EnvironmentSource) -> Settings:
    """Return the project's settings with what was given as arguments in their place.

    :raises WrongValue: there is no Conda file, neither given nor found.
    :raises InputError: a setting is wrong.
    """
    from himl_container.settings import load_settings

    flags: dict[str, object] = {
        "conda_files": (str(source.conda_file),) if source.conda_file is not None else None,
        "pip_extra_index_url": (source.pip_extra_index_url,) if source.pip_extra_index_url else None,
        "wheels": (str(source.wheel),) if source.wheel is not None else None,
        "base_image": source.base_image or None,
    }
    settings = load_settings(flags, cwd=Path.cwd(), environ=os.environ)
    if not settings.conda_files:
        raise _no_environment()
    return settings


def _no_environment() -> WrongValue:
    return WrongValue(NO_ENVIRONMENT, hint="Write an environment.yml: himl-container init.")


def description(
    environment_variables: dict[str, str] | None, shm_size: str, num_nodes: int, max_run_duration: str
) -> LaunchSpec:
    """Return the description of a run whose script comes later.

    :raises InputError: a value is unusable.
    """
    from himl_container.azureml.translate import SCRIPT_LATER
    from himl_container.launch.parse import parse_size
    from himl_container.launch.spec import DEFAULT_SHM_SIZE, ImageRef, LaunchSpec, with_defaults

    variables = {name: str(value) for name, value in (environment_variables or {}).items()}
    return LaunchSpec(
        name="run",
        image=ImageRef(""),
        command=SCRIPT_LATER,
        environment=with_defaults(variables),
        shm_size=parse_size(shm_size, "docker_shm_size") if shm_size else DEFAULT_SHM_SIZE,
        nodes=max(num_nodes, 1),
        max_duration=run_duration_string_to_seconds(max_run_duration),
    )

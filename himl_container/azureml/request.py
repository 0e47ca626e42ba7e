"""From what was asked for (flags, ``[tool.himl-container.run]``) to the plan of a run in AzureML.

Everything that can be checked without AzureML is checked here, before an image is built or anybody logs in.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.names import to_azure_friendly_string
from himl_container.errors import InputError
from himl_container.launch.data_choice import DataChoice
from himl_container.launch.defaults import RunDefaults
from himl_container.launch.request import as_datasets, duration_of, size_of
from himl_container.launch.run_folder import earlier_runs
from himl_container.launch.script import resolve_command
from himl_container.launch.snapshot import Ignored, Snapshot, check_limits, scan
from himl_container.launch.spec import DEFAULT_SHM_SIZE, ImageRef, LaunchSpec, friendly_name, with_defaults

if TYPE_CHECKING:
    from himl_container.azureml.datasets import DatasetConfig
    from himl_container.azureml.search import Search
    from himl_container.azureml.translate import AzureTarget
    from himl_container.settings import Settings

LEFT_OUT = "--ignore"
"""The rule of what the user leaves out of this submission alone."""

_EXPERIMENT = r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}"
_COMPUTE = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
_MAX_TAGS = 50
_MADE_EXECUTABLE = ("sh", "-c", 'chmod +x "$0" && exec "$0" "$@"')


@dataclass(frozen=True)
class SubmitRequest:
    """What was asked for, as text. None and empty mean that the default of the settings, else ours, is taken.

    :param datasets, outputs: as :mod:`himl_container.launch.data_choice` reads them.
    :param env: ``K=V``, or ``K`` for the caller's own value. :param tags: ``K=V``.
    :param ignore: files and folders below the source folder that are left out of the snapshot.
    :param search: file of a hyperparameter search.
    :param build_in_azureml: let AzureML build the environment of the Conda file, as hi-ml did.
    """

    script: str
    arguments: tuple[str, ...] = ()
    cluster: str | None = None
    experiment: str | None = None
    tags: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    datastore: str | None = None
    env: tuple[str, ...] = ()
    shm_size: str | None = None
    nodes: int | None = None
    max_duration: str | None = None
    ignore: tuple[str, ...] = ()
    source: Path | None = None
    search: Path | None = None
    build_in_azureml: bool = False


@dataclass(frozen=True)
class SubmitPlan:
    """A run in AzureML that was checked as far as possible without AzureML; ``spec.image`` is empty.

    :param settings: of the image, with what was asked for of this run.
    :param snapshot: what is sent. :param search: None for a single run.
    """

    spec: LaunchSpec
    target: AzureTarget
    settings: Settings
    snapshot: Snapshot
    search: Search | None = None


def plan_submission(request: SubmitRequest, settings: Settings, *, cwd: Path, environ: Mapping[str, str]) -> SubmitPlan:
    """Return the plan of a run in AzureML.

    :raises InputError: a value is malformed, the script is missing or outside of the source folder, two datasets have
        one name, the snapshot is too large.
    """
    from himl_container.azureml.translate import AzureTarget

    if not request.script:
        raise InputError("there is nothing to run", hint="Give a script: himl-container submit --azureml SCRIPT.")
    defaults = RunDefaults(settings)
    datasets = defaults.data("datasets", request.datasets, "dataset", cwd)
    outputs = defaults.data("outputs", request.outputs, "output", cwd)
    _refuse_same(datasets, "--dataset")
    _refuse_same(outputs, "--output")
    source = defaults.folder("source", request.source, cwd) or cwd
    snapshot = _snapshot(source, defaults, request)
    check_limits(snapshot, environ)
    command = _runnable(resolve_command(request.script, snapshot))
    tags = defaults.tags(request.tags)
    if len(tags) > _MAX_TAGS:
        raise InputError(f"{len(tags)} tags are more than AzureML takes ({_MAX_TAGS})", where="--tag")
    spec = LaunchSpec(
        name=friendly_name(_stem(request)),
        image=ImageRef(""),
        command=command,
        arguments=request.arguments,
        environment=with_defaults(defaults.variables(request.env, environ)),
        datasets=as_datasets(datasets),
        outputs=as_datasets(outputs),
        shm_size=size_of(defaults.text("shm-size", request.shm_size, "--shm-size"), DEFAULT_SHM_SIZE),
        nodes=defaults.number("nodes", request.nodes, 1),
        max_duration=duration_of(defaults.text("max-duration", request.max_duration, "--max-duration")),
    )
    default_datastore = (defaults.text("datastore", request.datastore, "") or ("", ""))[0]
    target = AzureTarget(
        compute=_cluster(defaults.text("cluster", request.cluster, "--cluster")),
        experiment=_experiment(defaults.text("experiment", request.experiment, "--experiment"), spec.name),
        tags=tags or None,
        input_datasets=tuple(_config(choice, default_datastore) for choice in datasets),
        output_datasets=tuple(_config(choice, default_datastore) for choice in outputs),
        default_datastore=default_datastore,
    )
    if request.build_in_azureml:
        settings = dataclasses.replace(settings, azureml_environment="build")
    return SubmitPlan(
        spec,
        target,
        settings,
        snapshot,
        search=_search(defaults.folder("search", request.search, cwd)),
    )


def _stem(request: SubmitRequest) -> str:
    """Return what names a run: the script, or the module that is run."""
    if request.script == "-m" and request.arguments:
        return request.arguments[0].rpartition(".")[2]
    return Path(request.script).stem


def _runnable(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command that works on files without modes, which is how AzureML's snapshots have them."""
    if len(command) == 1 and command[0].startswith("./"):
        return (*_MADE_EXECUTABLE, *command)
    return command


def what_runs(spec: LaunchSpec) -> str:
    """Return what a run was asked to run, in words for a list of runs: without its arguments."""
    words = spec.command
    if words[: len(_MADE_EXECUTABLE)] == _MADE_EXECUTABLE:
        words = words[len(_MADE_EXECUTABLE) :]
    elif words[-1] == "-m":
        words = (*words, *spec.arguments[:1])
    return " ".join(words)


def _snapshot(source: Path, defaults: RunDefaults, request: SubmitRequest) -> Snapshot:
    """Look at the source folder as ``run --local`` does, and leave out what this submission does."""
    import os

    root = Path(os.path.abspath(source))  # noqa: PTH100 - without ".."
    runs = defaults.folder("runs-dir", None, root) or root / "runs"
    found = scan(root, skip=earlier_runs(Path(os.path.abspath(runs))))  # noqa: PTH100
    ignored = [_below(text, root) for text in defaults.names("ignore", request.ignore)]
    if not ignored:
        return found
    out = {file for file in found.files if any(f"{file.path}/".startswith(path + "/") for path in ignored)}
    return dataclasses.replace(
        found,
        files=tuple(file for file in found.files if file not in out),
        ignored=tuple(sorted((*found.ignored, *(Ignored(file.path, LEFT_OUT) for file in out)))),
    )


def _below(text: str, root: Path) -> str:
    """Return a folder that is to be left out as a path below the source folder."""
    import os

    path = os.path.relpath(os.path.normpath(root / text), root)
    if not text or "\0" in text or path in (".", "..") or path.startswith("../"):
        raise InputError(
            f"{text!r} is no folder below the source folder",
            where="--ignore",
            hint="Write its path relative to the source folder; patterns belong into .amlignore.",
        )
    return path


def _refuse_same(choices: tuple[DataChoice, ...], where: str) -> None:
    """Refuse two datasets that are the same in AzureML, whatever they are called here."""
    seen: dict[tuple[str, int | None], str] = {}
    for choice in choices:
        key = (choice.registered.strip("/"), choice.version)
        if key in seen:
            raise InputError(
                f"{seen[key]!r} and {choice.name!r} are both the dataset {choice.registered!r}",
                where=where,
                hint="Leave one of them out, or give one another version.",
            )
        seen[key] = choice.name


def _config(choice: DataChoice, default_datastore: str) -> DatasetConfig:
    from himl_container.azureml.datasets import DatasetConfig

    return DatasetConfig(
        choice.registered,
        datastore=choice.datastore or default_datastore,
        version=choice.version,
        use_mounting=choice.mode == "mount",
        target_folder=choice.target,
        local_folder=choice.local,
    )


def _cluster(given: tuple[str, str] | None) -> str:
    if given is None or not given[0].strip():
        raise InputError(
            "no cluster is named",
            where="--cluster",
            hint="Name one: --cluster NAME, or 'cluster' in [tool.himl-container.run].",
        )
    if not re.fullmatch(_COMPUTE, given[0]):
        raise InputError(f"{given[0]!r} cannot be the name of a cluster", where=given[1])
    return given[0]


def _experiment(given: tuple[str, str] | None, default: str) -> str:
    if given is None:
        return default
    if not re.fullmatch(_EXPERIMENT, given[0], re.ASCII):
        raise InputError(
            f"{given[0]!r} cannot be the name of an experiment",
            where=given[1],
            hint=f"Letters, digits, '_' and '-', at most 255: {friendly_name(given[0])}",
        )
    return to_azure_friendly_string(given[0]) or default


def _search(path: Path | None) -> Search | None:
    if path is None:
        return None
    from himl_container.azureml.search_file import read_search

    return read_search(path)

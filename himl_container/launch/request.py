"""From what was asked for (flags, ``[tool.himl-container.run]``) to the plan of a run, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from himl_container.errors import InputError
from himl_container.launch import parse
from himl_container.launch.data_choice import DataChoice
from himl_container.launch.defaults import RunDefaults
from himl_container.launch.local import LocalOptions, check, scan_source
from himl_container.launch.script import resolve_command
from himl_container.launch.snapshot import Snapshot
from himl_container.launch.spec import DEFAULT_SHM_SIZE, Dataset, ImageRef, LaunchSpec, friendly_name, with_defaults
from himl_container.settings import Settings


@dataclass(frozen=True)
class RunRequest:
    """What was asked for, as text. None means that the default of the settings, else ours, is taken.

    :param script: empty for a shell (interactive runs only).
    :param datasets, outputs: as :mod:`himl_container.launch.data_choice` reads them; relative to the current folder.
    :param env: ``K=V``, or ``K`` for the caller's own value.
    """

    script: str
    arguments: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    shm_size: str | None = None
    gpus: str | None = None
    nodes: int | None = None
    max_duration: str | None = None
    memory: str | None = None
    preempt: str | None = None
    source: Path | None = None
    runs_dir: Path | None = None
    name: str | None = None
    live: bool = False
    interactive: bool = False


@dataclass(frozen=True)
class RunPlan:
    """A run that was checked as far as possible without an image; ``spec.image`` is empty."""

    spec: LaunchSpec
    options: LocalOptions
    snapshot: Snapshot


def plan_run(request: RunRequest, settings: Settings, *, cwd: Path, environ: Mapping[str, str]) -> RunPlan:
    """Return the plan of a run.

    :raises InputError: a value is malformed, a folder or the script is missing, the snapshot is too large.
    """
    defaults = RunDefaults(settings)
    datasets = defaults.data("datasets", request.datasets, "dataset", cwd)
    outputs = defaults.data("outputs", request.outputs, "output", cwd)
    options = LocalOptions(
        source=defaults.folder("source", request.source, cwd) or cwd,
        runs_dir=defaults.folder("runs-dir", request.runs_dir, cwd),
        dataset_folders=_folders(datasets),
        output_folders=_folders(outputs),
        live=request.live,
        preempt=parse.parse_durations(request.preempt, "--preempt") if request.preempt else (),
        interactive=request.interactive,
        memory=size_of(defaults.text("memory", request.memory, "--memory"), 0),
    )
    snapshot = scan_source(options)
    spec = LaunchSpec(
        name=friendly_name(request.name or Path(request.script).stem or "shell"),
        image=ImageRef(""),
        command=_command(request, snapshot),
        arguments=request.arguments,
        environment=with_defaults(defaults.variables(request.env, environ)),
        datasets=as_datasets(datasets),
        outputs=as_datasets(outputs),
        shm_size=size_of(defaults.text("shm-size", request.shm_size, "--shm-size"), DEFAULT_SHM_SIZE),
        gpus=parse.parse_gpus(*(defaults.text("gpus", request.gpus, "--gpus") or ("auto", ""))),
        nodes=defaults.number("nodes", request.nodes, 1),
        max_duration=duration_of(defaults.text("max-duration", request.max_duration, "--max-duration")),
    )
    check(spec, options, snapshot, environ)
    return RunPlan(spec, options, snapshot)


def _command(request: RunRequest, snapshot: Snapshot) -> tuple[str, ...]:
    if request.script:
        return resolve_command(request.script, snapshot)
    if request.interactive:
        from himl_container.launch.interactive import SHELL

        return SHELL
    raise InputError("there is nothing to run", hint="Give a script, or --interactive for a shell.")


def as_datasets(choices: tuple[DataChoice, ...]) -> tuple[Dataset, ...]:
    """Return datasets or outputs as both places have them: by name, place and mode."""
    return tuple(Dataset(choice.name, mount_path=choice.target, mode=choice.mode) for choice in choices)


def size_of(given: tuple[str, str] | None, default: int) -> int:
    """Return a size in bytes."""
    return parse.parse_size(*given) if given else default


def duration_of(given: tuple[str, str] | None) -> float | None:
    """Return a duration in seconds; None for no limit."""
    return parse.parse_duration(*given) if given else None


def _folders(choices: tuple[DataChoice, ...]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for choice in choices:
        if choice.local is None:
            raise InputError(
                f"{choice.name!r} has no folder on this machine",
                where=choice.where,
                hint=f"Give it one: {choice.name}=FOLDER, or 'local' in a table. Here, nothing is asked of AzureML.",
            )
        folders[choice.name] = choice.local
    return folders

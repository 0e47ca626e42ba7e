"""From what was asked for (flags, ``[tool.himl-container.run]``) to the plan of a run, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from himl_container.errors import InputError
from himl_container.launch import parse
from himl_container.launch.local import LocalOptions, check, scan_source
from himl_container.launch.script import resolve_command
from himl_container.launch.snapshot import Snapshot
from himl_container.launch.spec import DEFAULT_SHM_SIZE, Dataset, ImageRef, LaunchSpec, friendly_name, with_defaults
from himl_container.settings import Settings

_TABLES = ("datasets", "outputs", "env")
_VALUES = ("shm-size", "gpus", "nodes", "max-duration", "memory", "source", "runs-dir")


@dataclass(frozen=True)
class RunRequest:
    """What was asked for, as text. None means that the default of the settings, else ours, is taken.

    :param script: empty for a shell (interactive runs only).
    :param datasets, outputs: ``NAME=FOLDER``, relative to the current folder.
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
    defaults = _Defaults(settings)
    datasets = defaults.folders("datasets", request.datasets, "--dataset", cwd)
    outputs = defaults.folders("outputs", request.outputs, "--output", cwd)
    options = LocalOptions(
        source=defaults.folder("source", request.source, cwd) or cwd,
        runs_dir=defaults.folder("runs-dir", request.runs_dir, cwd),
        dataset_folders=datasets,
        output_folders=outputs,
        live=request.live,
        preempt=parse.parse_durations(request.preempt, "--preempt") if request.preempt else (),
        interactive=request.interactive,
        memory=_size(defaults.text("memory", request.memory, "--memory"), 0),
    )
    snapshot = scan_source(options)
    spec = LaunchSpec(
        name=friendly_name(request.name or Path(request.script).stem or "shell"),
        image=ImageRef(""),
        command=_command(request, snapshot),
        arguments=request.arguments,
        environment=with_defaults(defaults.variables(request.env, environ)),
        datasets=tuple(Dataset(name) for name in datasets),
        outputs=tuple(Dataset(name) for name in outputs),
        shm_size=_size(defaults.text("shm-size", request.shm_size, "--shm-size"), DEFAULT_SHM_SIZE),
        gpus=parse.parse_gpus(*(defaults.text("gpus", request.gpus, "--gpus") or ("auto", ""))),
        nodes=defaults.number("nodes", request.nodes, 1),
        max_duration=_duration(defaults.text("max-duration", request.max_duration, "--max-duration")),
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


def _size(given: tuple[str, str] | None, default: int) -> int:
    return parse.parse_size(*given) if given else default


def _duration(given: tuple[str, str] | None) -> float | None:
    return parse.parse_duration(*given) if given else None


class _Defaults:
    """``[tool.himl-container.run]``. Paths in it are relative to the project's folder."""

    def __init__(self, settings: Settings) -> None:
        self._values, self._root = settings.run, settings.root
        self._where = (
            f"{settings.source}: [tool.himl-container.run]" if settings.source else "[tool.himl-container.run]"
        )
        for key, value in self._values.items():
            if key not in (*_TABLES, *_VALUES):
                raise InputError(
                    f"unknown key {key!r}",
                    where=self._where,
                    hint=f"Known keys: {', '.join(sorted((*_TABLES, *_VALUES)))}.",
                )
            if (key in _TABLES) != isinstance(value, Mapping):
                kind = "a table" if key in _TABLES else "a single value"
                raise InputError(f"{key!r} must be {kind}", where=self._where)

    def text(self, key: str, given: str | None, flag: str) -> tuple[str, str] | None:
        """Return a value and where it comes from."""
        if given is not None:
            return given, flag
        value = self._values.get(key)
        return None if value is None else (str(value), f"{self._where} {key}")

    def number(self, key: str, given: int | None, default: int) -> int:
        """Return a whole number."""
        value = self._values.get(key, default) if given is None else given
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"{key!r} must be a whole number", where=self._where)
        return value

    def folder(self, key: str, given: Path | None, cwd: Path) -> Path | None:
        """Return a folder."""
        if given is not None:
            return cwd / given
        value = self._values.get(key)
        return None if value is None else self._root / str(value)

    def folders(self, key: str, given: tuple[str, ...], flag: str, cwd: Path) -> dict[str, Path]:
        """Return named folders, in the order of their declaration; a flag replaces a default of the same name."""
        result: dict[str, Path] = {}
        for name, folder in self._table(key).items():
            parse.check_name(name, f"{self._where} {key}")
            result[name] = self._root / Path(str(folder)).expanduser()
        seen: set[str] = set()
        for text in given:
            name, written = parse.parse_named_folder(text, flag)
            if name in seen:
                raise InputError(f"the name {name!r} is given twice", where=flag)
            seen.add(name)
            result[name] = cwd / Path(written).expanduser()
        return result

    def variables(self, given: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
        """Return the user's environment variables."""
        result = {name: str(value) for name, value in self._table("env").items()}
        for text in given:
            if "=" not in text and text not in environ:
                raise InputError(f"{text!r} is not set here, so it has no value to pass on", where="--env")
            name, value = parse.parse_variable(text if "=" in text else f"{text}={environ[text]}", "--env")
            result[name] = value
        return result

    def _table(self, key: str) -> Mapping[str, object]:
        value = self._values.get(key, {})
        return value if isinstance(value, Mapping) else {}

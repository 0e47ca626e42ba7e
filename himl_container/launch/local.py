"""A run on this machine: from a LaunchSpec to a run folder and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from himl_container.errors import InputError
from himl_container.launch.containers import Channel, Containers, connect
from himl_container.launch.run_folder import earlier_runs
from himl_container.launch.snapshot import Snapshot, check_limits, scan
from himl_container.launch.spec import LaunchSpec
from himl_container.launch.supervise import GRACE
from himl_container.launch.verdict import RunResult
from himl_container.progress import Reporter, SilentReporter


@dataclass(frozen=True)
class LocalOptions:
    """What only a run on this machine has.

    :param source: the source folder.
    :param runs_dir: where run folders are made; empty for ``runs`` in the source folder.
    :param dataset_folders: the folder behind each dataset, by name.
    :param output_folders: the folder behind each output, by name; made when missing.
    :param live: mount the source folder itself instead of a snapshot.
    :param preempt: seconds after each start at which the machine "dies".
    :param interactive: lend the user's terminal to the container.
    :param memory: bytes that each container may use; 0 for no limit.
    :param grace: seconds between asking a script to end and killing it.
    """

    source: Path
    runs_dir: Path | None = None
    dataset_folders: Mapping[str, Path] = field(default_factory=dict)
    output_folders: Mapping[str, Path] = field(default_factory=dict)
    live: bool = False
    preempt: tuple[float, ...] = ()
    interactive: bool = False
    memory: int = 0
    grace: float = GRACE

    @property
    def runs(self) -> Path:
        """The folder of all runs, absolute."""
        return Path(os.path.abspath(self.runs_dir or self.source / "runs"))  # noqa: PTH100 - without ".."

    def to_json(self) -> dict[str, object]:
        """Return the options as JSON values."""
        return {
            "source": str(self.source.absolute()),
            "datasets": {name: str(folder) for name, folder in self.dataset_folders.items()},
            "outputs": {name: str(folder) for name, folder in self.output_folders.items()},
            "live": self.live,
            "preempt": list(self.preempt),
            "interactive": self.interactive,
            "memory": self.memory,
        }


def scan_source(options: LocalOptions) -> Snapshot:
    """Look at the source folder; earlier runs in it are left out."""
    root = Path(os.path.abspath(options.source))  # noqa: PTH100 - without ".."
    return scan(root, skip=earlier_runs(options.runs))


def check(spec: LaunchSpec, options: LocalOptions, snapshot: Snapshot, environ: Mapping[str, str]) -> None:
    """Check everything that can be checked before anything is made.

    :raises InputError: a folder is missing, an option contradicts another one, the snapshot is too large.
    """
    if not options.live:
        check_limits(snapshot, environ)
    for name in (spec.output_folder, spec.log_folder):
        if snapshot.find(name):
            raise InputError(f"{name!r} is a folder that AzureML makes", where=str(snapshot.root / name))
    for items, folders in ((spec.datasets, options.dataset_folders), (spec.outputs, options.output_folders)):
        if [item.name for item in items] != list(folders):
            raise InputError("each dataset and output needs a folder on this machine")
    for name, folder in options.dataset_folders.items():
        if not folder.is_dir():
            raise InputError("the folder of a dataset does not exist", where=f"--dataset {name}={folder}")
    for name, folder in options.output_folders.items():
        if folder.exists() and not folder.is_dir():
            raise InputError("the folder of an output is a file", where=f"--output {name}={folder}")
    if options.interactive and (spec.nodes > 1 or options.preempt):
        raise InputError("a terminal goes with one node and no preemption", where="--interactive")


def run_local(
    spec: LaunchSpec,
    options: LocalOptions,
    *,
    snapshot: Snapshot | None = None,
    containers: Containers | None = None,
    reporter: Reporter | None = None,
    environ: Mapping[str, str] = os.environ,
    screen: Mapping[Channel, BinaryIO] | None = None,
) -> RunResult:
    """Run a launch description here, and stay until it has ended.

    Ctrl-C and SIGTERM end the run, not the caller: the result says so. The containers are gone in every case.

    :param snapshot: what :func:`scan_source` said, when it is known already.
    :param screen: where the script's output is shown; standard output and error when not given.
    :raises InputError: something is wrong with what was asked; nothing was made.
    :raises LaunchError: the image does not exist, or the container cannot be started.
    :raises EngineError: no daemon answers, or it went away in the middle; the run folder says so.
    :raises StorageError: the run folder or a log cannot be written.
    """
    from himl_container.launch.execution import Execution
    from himl_container.launch.interrupts import interrupts

    snapshot = snapshot or scan_source(options)
    check(spec, options, snapshot, environ)
    screen = screen or {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    with interrupts() as events:
        execution = Execution(
            spec,
            options,
            snapshot,
            containers=containers or connect(),
            reporter=reporter or SilentReporter(),
            environ=environ,
            screen=screen,
            events=events,
        )
        return execution.carry_out()

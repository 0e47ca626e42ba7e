"""What the commands about runs in AzureML share: the flags that name a workspace, and the way to a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from himl_container.cli.arguments import complete_run

if TYPE_CHECKING:
    from azureml.core import Run

    from himl_container.azureml.reach import Ask, Way
    from himl_container.azureml.records import Chosen
    from himl_container.cli.output import Output

Command = Callable[..., Any]

_OPTIONS = (
    click.option(
        "--workspace-config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The workspace's config.json. Default: the nearest one, upwards.",
    ),
    click.option("--emulator", is_flag=True, help="The emulator on this machine, started when needed."),
)

RUN_HELP = (
    "RUN is a run's id, EXPERIMENT:ID, or 'latest'; without it, that of most_recent_run.txt in the current folder, or "
    "the latest one submitted from this machine."
)


def workspace_options(function: Command) -> Command:
    """Add ``--workspace-config`` and ``--emulator``."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def run_argument(function: Command) -> Command:
    """Add the argument RUN, which may be left out, and say in the help what it may be."""
    function.__doc__ = f"{(function.__doc__ or '').rstrip()}\n\n    {RUN_HELP}\n    "
    return click.argument("reference", metavar="[RUN]", default="", shell_complete=complete_run)(function)


def asker(output: Output) -> Ask | None:
    """Return what puts a question to the user; None where nobody sits at a terminal, or JSON is wanted."""
    if output.as_json or output.quiet or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return lambda question: click.confirm(question, default=False, err=True)


def find_run(reference: str, output: Output, *, emulator: bool, workspace_config: Path | None) -> tuple[Run, Chosen]:
    """Return the run that a user means, read from its workspace.

    :raises MissingRun: there is none.
    :raises HimlError: as :func:`himl_container.azureml.reach.find_way` and ``open_quickly``.
    """
    from himl_container.azureml.records import Records, choose_run
    from himl_container.azureml.workspace_registry import default_cache

    chosen = choose_run(reference, Records(default_cache()), cwd=Path.cwd())
    return read_run(chosen, output=output, emulator=emulator, workspace_config=workspace_config), chosen


def read_run(chosen: Chosen, *, output: Output, emulator: bool, workspace_config: Path | None) -> Run:
    """Return a run from the workspace that it is in.

    :raises MissingRun: the workspace has no such run.
    """
    from himl_container.azureml.failures import MissingRun
    from himl_container.azureml.runs import get_run_by_id
    from himl_container.azureml.service_failures import explained

    way = way_for(output, emulator=emulator, workspace_config=workspace_config, chosen=chosen)
    workspace = open_way(way, output)
    with explained(f"run {chosen.run}"):
        found = get_run_by_id(workspace, chosen.run)
        experiment = str(found.experiment.name)
    if chosen.experiment and chosen.experiment != experiment:
        raise MissingRun(f"run {chosen.run} is in the experiment {experiment!r}, and not in {chosen.experiment!r}")
    return found


def way_for(output: Output, *, emulator: bool, workspace_config: Path | None, chosen: Chosen | None = None) -> Way:
    """Return the way to the workspace that is meant: by the flags, the place that a run went to, or the settings."""
    from himl_container.azureml.reach import chosen_workspace, find_way

    if chosen is None or chosen.record is None:
        from himl_container.launch.defaults import RunDefaults
        from himl_container.settings import load_settings

        defaults = RunDefaults(load_settings({}, cwd=Path.cwd(), environ=os.environ))
        emulator, workspace_config = chosen_workspace(defaults, emulator=emulator, workspace_config=workspace_config)
    return find_way(
        emulator=emulator,
        config=workspace_config,
        environ=os.environ,
        record=chosen.record if chosen else None,
        ask=asker(output),
    )


def open_way(way: Way, output: Output) -> Any:
    """Return the workspace at the end of a way."""
    from himl_container.azureml.reach import go, open_quickly
    from himl_container.azureml.submit import quieten

    quieten()
    return open_quickly(go(way, os.environ, output.reporter))

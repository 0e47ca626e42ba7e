"""``himl-container runs``."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from himl_container.cli.azure import open_way, way_for, workspace_options
from himl_container.cli.options import output_options
from himl_container.cli.tables import plain, table

if TYPE_CHECKING:
    from himl_container.azureml.records import Record, Records
    from himl_container.cli.output import Output

Row = dict[str, Any]


@click.command()
@output_options
@workspace_options
@click.option("--experiment", metavar="NAME", help="All runs of this experiment, by whomever.")
@click.option("--max", "count", metavar="N", type=click.IntRange(1, 1000), default=20, help="At most this many. [20]")
@click.option("--offline", is_flag=True, help="Ask nobody how the runs stand.")
def command(
    *,
    output: Output,
    workspace_config: Path | None,
    emulator: bool,
    experiment: str | None,
    count: int,
    offline: bool,
) -> None:
    """List what was submitted to AzureML from this machine, newest first, and how it stands.

    With --workspace-config or --emulator: to this workspace alone.
    """
    from himl_container.azureml.records import Records
    from himl_container.azureml.workspace_registry import default_cache

    if experiment is not None:
        way = way_for(output, emulator=emulator, workspace_config=workspace_config)
        rows = list(_of_experiment(open_way(way, output), experiment, count))
    else:
        records = _from(Records(default_cache()), emulator=emulator, workspace_config=workspace_config)[:count]
        statuses = {} if offline else _statuses(records, output)
        rows = [_row(record, statuses.get(record.run, "")) for record in records]
    output.result({"runs": rows}, _as_text(rows))


def _from(records: Records, *, emulator: bool, workspace_config: Path | None) -> tuple[Record, ...]:
    """Return all records, newest first; of one workspace alone where a flag names it."""
    from himl_container.azureml.emulated import emulator_folder
    from himl_container.azureml.reach import find_way

    found = records.newest(sys.maxsize)
    if not emulator and workspace_config is None:
        return found
    names = find_way(emulator=emulator, config=workspace_config, environ=os.environ).names
    if names is None:
        folder = str(emulator_folder(os.environ))
        return tuple(one for one in found if one.emulator == folder)
    return tuple(one for one in found if _place(one)[1:] == tuple(names))


def _statuses(records: tuple[Record, ...], output: Output) -> dict[str, str]:
    """Ask each workspace how its runs stand; one that does not answer is told, and the others are shown."""
    from himl_container.errors import HimlError

    found: dict[str, str] = {}
    for place, group in itertools.groupby(sorted(records, key=_place), key=_place):
        members = list(group)
        try:
            workspace = _workspace(members[0], output)
        except HimlError as error:
            output.reporter.warn(f"the workspace {place[3]} cannot be asked: {error.what}")
            continue
        found.update((record.run, _status(workspace, record.run, output)) for record in members)
    return found


def _status(workspace: Any, run: str, output: Output) -> str:
    """Return the status of a run; empty for one that cannot be asked for, which does not hide the others."""
    from himl_container.azureml.retry import one_line

    try:
        return str(workspace.get_run(run).status)
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises is told
        output.reporter.warn(f"run {run}: {one_line(error)}")
        return ""


def _place(record: Record) -> tuple[str, str, str, str]:
    """Return what the runs of one workspace have in common; those of Azure come first, before an emulator is in use."""
    return record.emulator, record.subscription_id, record.resource_group, record.workspace


def _workspace(record: Record, output: Output) -> Any:
    from himl_container.azureml.emulated import running_emulator
    from himl_container.azureml.reach import Way
    from himl_container.azureml.workspace import WorkspaceNames
    from himl_container.errors import AzureMLError

    if not record.emulator:
        return open_way(Way(WorkspaceNames(record.subscription_id, record.resource_group, record.workspace)), output)
    folder = Path(record.emulator)
    if running_emulator(folder) is None:
        raise AzureMLError("its emulator does not run", where=record.emulator)
    return open_way(Way(emulator=True, folder=folder), output)


def _of_experiment(workspace: Any, name: str, count: int) -> Iterator[Row]:
    from himl_container.azureml.failures import MissingRun
    from himl_container.azureml.service_failures import explained

    with explained(f"the experiment {name}"):
        from azureml.core import Experiment

        found = Experiment.list(workspace, experiment_name=name)
        if not found or not name:  # an empty name is no filter to the service
            raise MissingRun(
                f"the workspace {workspace.name} has no experiment {name!r}",
                where="--experiment",
                hint="'himl-container runs' lists what was submitted from this machine.",
            )
        for run in itertools.islice(found[0].get_runs(), count):
            # What the listing itself says: a look at each run would be a request.
            listed = run._run_dto
            yield {
                "run": run.id,
                "experiment": name,
                "status": str(run.status),
                "submitted": _local_time(listed.get("created_utc")),
                "script": str(listed.get("script_name") or ""),
                "workspace": workspace.name,
            }


def _local_time(when: object) -> str:
    """Return a time of AzureML's (UTC) as the user's clock shows it; empty for none."""
    from datetime import datetime

    if isinstance(when, str):
        when = datetime.fromisoformat(when.replace("Z", "+00:00"))
    return when.astimezone().isoformat(sep=" ", timespec="seconds") if isinstance(when, datetime) else ""


def _row(record: Record, status: str) -> Row:
    from datetime import datetime

    submitted = datetime.fromtimestamp(record.submitted).astimezone().isoformat(sep=" ", timespec="seconds")
    return {**record.to_json(), "status": status, "submitted": submitted}


def _as_text(rows: list[Row]) -> str:
    if not rows:
        return "Nothing was submitted from this machine yet."
    cells = [
        (row["run"], row["status"] or "?", row["submitted"][:19], plain(row["script"], longest=40)) for row in rows
    ]
    return "\n".join(table([("RUN", "STATUS", "SUBMITTED", "SCRIPT"), *cells], indent=""))

"""``himl-container status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from himl_container.cli.azure import find_run, run_argument, workspace_options
from himl_container.cli.options import output_options
from himl_container.cli.tables import plain

if TYPE_CHECKING:
    from himl_container.cli.output import Output


@click.command()
@output_options
@workspace_options
@run_argument
def command(output: Output, workspace_config: Path | None, emulator: bool, reference: str) -> None:
    """Say how a run in AzureML stands."""
    from himl_container.azureml.following import end_of
    from himl_container.azureml.retry import retried
    from himl_container.azureml.service_failures import explained

    run, chosen = find_run(reference, output, emulator=emulator, workspace_config=workspace_config)
    with explained(f"run {run.id}"):
        details = retried(f"asking for run {run.id}", run.get_details)
    end = end_of(run.id, details)
    value = {
        "run": run.id,
        "number": run.number,
        "experiment": run.experiment.name,
        "status": end.status,
        "reason": end.reason,
        "started": details.get("startTimeUtc"),
        "ended": details.get("endTimeUtc"),
        "cluster": details.get("target"),
        "image": chosen.record.image if chosen.record else "",
        "portal": run.get_portal_url(),
    }
    lines = [line for name, item in value.items() if item not in (None, "") for line in _lines(name, str(item))]
    if output.as_json:
        output.result(value, "")
    else:
        # A result passes through the filter for credentials, and takes what follows the '?' of an address for one.
        click.echo("\n".join(lines))


def _lines(name: str, text: str) -> list[str]:
    """Return a value with its name; further lines of it stand below the first."""
    first, *rest = [plain(line, longest=2000) for line in text.splitlines()] or [""]
    return [f"{name:<10} {first}", *(f"{'':<10} {line}" for line in rest)]

"""``himl-container cancel``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from himl_container.cli.azure import find_run, run_argument, workspace_options
from himl_container.cli.options import output_options

if TYPE_CHECKING:
    from himl_container.cli.output import Output


@click.command()
@output_options
@workspace_options
@click.option("--wait", is_flag=True, help="Stay until the run has ended.")
@run_argument
def command(*, output: Output, workspace_config: Path | None, emulator: bool, wait: bool, reference: str) -> None:
    """Cancel a run in AzureML; of a search, all its runs. One that has ended already stays as it is."""
    from himl_container.azureml.following import ENDED, Follower
    from himl_container.azureml.service_failures import explained

    run, _ = find_run(reference, output, emulator=emulator, workspace_config=workspace_config)
    with explained(f"run {run.id}"):
        status = str(run.get_status())
        over = status in ENDED
        if not over:
            run.cancel()
            if wait:
                status = Follower(run, lambda _: None).follow().status
    if over:
        output.reporter.info(f"run {run.id} had ended already: {status}")
    else:
        output.reporter.info(f"run {run.id} {'ended: ' + status if wait else 'is being cancelled'}")
    output.result({"run": run.id, "cancelled": not over, "status": status}, "")

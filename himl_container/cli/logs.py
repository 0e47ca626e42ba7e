"""``himl-container logs``."""

from __future__ import annotations

import sys
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
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended; the exit code says how.")
@run_argument
def command(*, output: Output, workspace_config: Path | None, emulator: bool, follow: bool, reference: str) -> int:
    """Show what a run in AzureML has printed, on all its nodes."""
    from himl_container.azureml.following import Follower
    from himl_container.azureml.service_failures import explained
    from himl_container.cli.following import wait_for

    run, _ = find_run(reference, output, emulator=emulator, workspace_config=workspace_config)
    if follow:
        return wait_for(run, output, show=True, value={})
    stream = sys.stderr.buffer if output.as_json else sys.stdout.buffer
    shown = 0

    def write(data: bytes) -> None:
        nonlocal shown
        shown += stream.write(data)
        stream.flush()

    with explained(f"run {run.id}"):
        end = Follower(run, write).follow(until_end=False)
    if not shown:
        output.reporter.info(f"run {end.run} has no log yet: {end.status}")
    output.result({"run": end.run, "status": end.status, "reason": end.reason}, "")
    return 0

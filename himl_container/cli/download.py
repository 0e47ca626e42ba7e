"""``himl-container download``."""

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
@click.option("--prefix", metavar="TEXT", default="", help="Only files whose names begin so (outputs/).")
@click.option(
    "--output",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    default=None,
    help="Where the files go. Default: a folder of the run's id in outputs.",
)
@run_argument
def command(
    *,
    output: Output,
    workspace_config: Path | None,
    emulator: bool,
    prefix: str,
    folder: Path | None,
    reference: str,
) -> None:
    """Fetch the files of a run in AzureML: outputs, logs. What is there already is not fetched again."""
    from himl_container.azureml.service_failures import explained
    from himl_container.azureml.transfers import download_run_files, get_run_file_names

    run, chosen = find_run(reference, output, emulator=emulator, workspace_config=workspace_config)
    target = folder or Path("outputs") / chosen.run  # as it was asked for, not as it was answered
    with explained(f"the files of run {run.id}"):
        names = get_run_file_names(run, prefix)
        download_run_files(run, target, prefix, validate_checksum=True, reporter=output.reporter)
    output.reporter.info(f"{len(names)} file{'s are' if len(names) != 1 else ' is'} in {target}")
    output.result({"run": run.id, "folder": str(target.absolute()), "files": names}, "")

"""``himl-container submit``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from himl_container.cli.arguments import complete_file
from himl_container.cli.azure import asker, workspace_options
from himl_container.cli.options import environment_options, output_options
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output

_PATH = click.Path(path_type=Path)


@click.command(context_settings={"allow_interspersed_args": False}, options_metavar="--azureml [OPTIONS]")
@environment_options
@output_options
@workspace_options
@click.option("--azureml", is_flag=True, help="Run in Azure Machine Learning.")
@click.option("--cluster", metavar="NAME", help="Compute cluster.")
@click.option("--experiment", metavar="NAME", help="Experiment. Default: the script's name.")
@click.option("--tag", "tags", metavar="K=V", multiple=True, help="Tag of the run. Repeatable.")
@click.option(
    "--dataset",
    "datasets",
    metavar="NAME[=KEY=VALUE,...]",
    multiple=True,
    help="Input. Keys: name, datastore, version, mode=mount|download, target, local. Repeatable.",
)
@click.option(
    "--output",
    "outputs",
    metavar="NAME[=KEY=VALUE,...]",
    multiple=True,
    help="Output. Keys: name, datastore, mode=mount|upload, local. Repeatable.",
)
@click.option("--datastore", metavar="NAME", help="Datastore of datasets that name none. Default: the workspace's own.")
@click.option("--nodes", type=int, metavar="N", help="Machines, one process each.")
@click.option("--max-duration", metavar="TIME", help="End the run after this time (1.5h).")
@click.option("--shm-size", metavar="SIZE", help="Size of /dev/shm. Default: 2g, as AzureML.")
@click.option("--env", metavar="K=V", multiple=True, help="Variable; K alone passes the caller's on. Repeatable.")
@click.option("--ignore", metavar="FOLDER", multiple=True, help="Leave this out of the snapshot. Repeatable.")
@click.option("--source", type=_PATH, help="Source folder. Default: the current one.")
@click.option("--search", metavar="FILE", type=_PATH, help="YAML file of a hyperparameter search.")
@click.option("--wait", is_flag=True, help="Stay until the run has ended; the exit code says how.")
@click.option("--show-output", is_flag=True, help="Show the run's log as it is written. Implies --wait.")
@click.option("--build-in-azureml", is_flag=True, help="Let AzureML build the environment from the Conda file.")
@click.option("--locked", is_flag=True, help="Fail when the lock is missing or stale, instead of locking again.")
@click.option("--no-test", is_flag=True, help="Take an image that was not tested.")
@click.option("--dry-run", is_flag=True, help="Print the complete request and send nothing.")
@click.argument("script", required=False, default="", shell_complete=complete_file)
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_file)
def command(
    *,
    settings: Settings,
    output: Output,
    azureml: bool,
    workspace_config: Path | None,
    emulator: bool,
    wait: bool,
    show_output: bool,
    locked: bool,
    no_test: bool,
    dry_run: bool,
    **values: object,
) -> int:
    """Run SCRIPT in Azure Machine Learning, in the image of this project.

    The image is built and pushed first when needed. What follows SCRIPT is passed on untouched. The run's id is in
    most_recent_run.txt, where 'status', 'logs', 'download' and 'cancel' find it.
    """
    from himl_container.azureml.request import SubmitRequest, plan_submission
    from himl_container.launch.defaults import RunDefaults

    if not azureml:
        raise click.UsageError("Say where to run: --azureml. ('himl-container run --local' runs here.)")
    plan = plan_submission(SubmitRequest(**values), settings, cwd=Path.cwd(), environ=os.environ)  # type: ignore[arg-type]
    defaults = RunDefaults(settings)
    if dry_run:
        from himl_container.azureml.dry_run import request_as_json, request_as_text

        request = request_as_json(plan)
        output.result(request, "" if output.as_json else request_as_text(request))
        return 0
    from himl_container.azureml.reach import chosen_workspace, find_way
    from himl_container.azureml.submit import quieten, submit

    use_emulator, config = chosen_workspace(defaults, emulator=emulator, workspace_config=workspace_config)
    way = find_way(emulator=use_emulator, config=config, environ=os.environ, ask=asker(output))
    quieten()
    done = submit(
        plan,
        way,
        environ=os.environ,
        reporter=output.reporter,
        locked=locked,
        test=not no_test,
        quiet=output.as_json or output.quiet,
    )
    show_output = defaults.switch("show-output", show_output)
    if not (defaults.switch("wait", wait) or show_output):
        output.result(done.to_json(), "")
        return 0
    from himl_container.cli.following import wait_for

    return wait_for(done.run, output, show=show_output, value=done.to_json())

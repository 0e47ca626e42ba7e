"""``himl-container run``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from himl_container.cli.arguments import complete_file
from himl_container.cli.options import environment_options, output_options
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.launch.containers import Channel
    from himl_container.launch.spec import ImageRef
    from himl_container.launch.verdict import RunResult

_PATH = click.Path(path_type=Path)


@click.command(context_settings={"allow_interspersed_args": False}, options_metavar="--local [OPTIONS]")
@environment_options
@output_options
@click.option("--local", is_flag=True, help="Run on this machine.")
@click.option("--dataset", "datasets", metavar="NAME=FOLDER[,...]", multiple=True, help="Input folder. Repeatable.")
@click.option("--output", "outputs", metavar="NAME=FOLDER[,...]", multiple=True, help="Output folder. Repeatable.")
@click.option("--env", metavar="K=V", multiple=True, help="Variable; K alone passes the caller's on. Repeatable.")
@click.option("--shm-size", metavar="SIZE", help="Size of /dev/shm. Default: 2g, as AzureML.")
@click.option("--gpus", metavar="auto|none|all|N", help="GPUs. Default: auto, all that there are.")
@click.option("--nodes", type=int, metavar="N", help="Run N containers with AzureML's MPI variables.")
@click.option("--preempt", metavar="TIME[,TIME]", help="Kill and start again after these times, as low priority does.")
@click.option("--max-duration", metavar="TIME", help="End the run after this time (1.5h).")
@click.option("--memory", metavar="SIZE", help="Memory that each container may use. Default: no limit.")
@click.option("--live", is_flag=True, help="Mount the source folder itself instead of a snapshot.")
@click.option("--interactive", "-i", is_flag=True, help="Lend the terminal to the script, or to a shell.")
@click.option("--image", metavar="IMAGE", help="Use this image as it is, pulled if need be; build nothing.")
@click.option("--source", type=_PATH, help="Source folder. Default: the current one.")
@click.option("--runs-dir", type=_PATH, help="Where run folders are made. Default: runs in the source folder.")
@click.option("--name", metavar="NAME", help="Stem of the run's id. Default: the script's name.")
@click.option("--locked", is_flag=True, help="Fail when the lock is missing or stale, instead of locking again.")
@click.option("--dry-run", is_flag=True, help="Print the complete plan and change nothing.")
@click.argument("script", required=False, default="", shell_complete=complete_file)
@click.argument("arguments", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_file)
def command(
    *, settings: Settings, output: Output, local: bool, image: str | None, locked: bool, dry_run: bool, **values: object
) -> int:
    """Run SCRIPT in the image of this project, laid out as AzureML lays it out.

    The image is pulled or built first when needed. What follows SCRIPT is passed on untouched. The exit code is that of
    the script.
    """
    from himl_container.launch.request import RunRequest, plan_run

    if not local:
        raise click.UsageError("Say where to run: --local.")
    request = RunRequest(**values)  # type: ignore[arg-type]
    if request.interactive and not dry_run:
        from himl_container.launch.interactive import check_terminal

        check_terminal()
    if image is not None:
        from himl_container.launch.images import check_name

        check_name(image)
    plan = plan_run(request, settings, cwd=Path.cwd(), environ=os.environ)
    if dry_run:
        from himl_container.launch.dry_run import plan_as_json, plan_as_text

        about = image if image is not None else _image_in_words(settings)
        output.result(plan_as_json(plan, about), "" if output.as_json else plan_as_text(plan, about))
        return 0
    from himl_container.launch.local import run_local

    # With --json, standard output belongs to the events; the script's own goes to standard error.
    screen: dict[Channel, BinaryIO] | None = (
        {"stdout": sys.stderr.buffer, "stderr": sys.stderr.buffer} if output.as_json else None
    )
    spec = replace(plan.spec, image=_image(settings, output, image, locked))
    result = run_local(spec, plan.options, snapshot=plan.snapshot, reporter=output.reporter, screen=screen)
    _tell(result, output)
    return result.exit_code


def _image(settings: Settings, output: Output, image: str | None, locked: bool) -> ImageRef:
    from himl_container.launch.images import named_image, project_image

    if image is not None:
        return named_image(image, settings, reporter=output.reporter)
    return project_image(settings, reporter=output.reporter, locked=locked)


def _image_in_words(settings: Settings) -> str:
    from himl_container.image.lookup import find_image

    found = find_image(settings)
    if found:
        return found.tag
    where = f"pulled from {settings.remote_name} or " if settings.remote_name else ""
    return f"will be {where}built first ('himl-container build --dry-run' shows how)"


def _tell(result: RunResult, output: Output) -> None:
    tell = output.reporter.info if result.exit_code == 0 else output.reporter.warn
    if result.strays:
        shown = ", ".join(result.strays[:3]) + (f" and {len(result.strays) - 3} more" if len(result.strays) > 3 else "")
        output.reporter.warn(f"written outside of outputs/ and logs/, which AzureML would not keep: {shown}")
    tell(result.summary)
    output.result(
        {
            "run": result.run_id,
            "folder": str(result.folder),
            "state": result.state,
            "exit_code": result.exit_code,
            "reason": result.reason,
            "seconds": round(result.seconds, 3),
            "preemptions": result.preemptions,
            "strays": list(result.strays),
        },
        "",
    )

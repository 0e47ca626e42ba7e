"""``himl-container init``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from himl_container.cli.options import output_options
from himl_container.cli.output import Output

if TYPE_CHECKING:
    from himl_container.starter.write import FirstFile, Starter


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@click.option("--python", metavar="VERSION", default="3.11", show_default=True, help="Python of the environment.")
@click.option("--force", is_flag=True, help="Replace files that are there, without asking.")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@output_options
def command(folder: Path, python: str, force: bool, dry_run: bool, output: Output) -> None:
    """Write the first files of a project into FOLDER (default: the current one).

    These are environment.yml, sample.py, .amlignore, and the table [tool.himl-container] of pyproject.toml. A file
    that is there stays as it is unless you say otherwise; settings that are there always stay. All files are written,
    or none.
    """
    from himl_container.starter.write import plan_starter, settle, write_starter

    may_ask = sys.stdin.isatty() and sys.stderr.isatty() and not output.as_json and not dry_run

    def replace(file: FirstFile) -> bool:
        return force or (may_ask and click.confirm(f"{file.path} is there. Replace it?", default=False, err=True))

    starter = settle(plan_starter(folder, python=python), replace=replace)
    if not dry_run:
        write_starter(starter)
    value = {
        "folder": str(starter.folder),
        "written": [] if dry_run else [file.path.name for file in starter.files],
        "planned": [file.path.name for file in starter.files],
        "kept": [*starter.kept, *starter.refused],
    }
    output.result(value, _text(starter, folder, dry_run=dry_run))
    if starter.shadowed is not None:
        output.reporter.warn(f"the settings of {starter.shadowed} no longer apply in this folder")


def _text(starter: Starter, folder: Path, *, dry_run: bool) -> str:
    lines = [f"{'would write' if dry_run else 'wrote':<12}{file.path.name}{_how(file)}" for file in starter.files]
    lines += [f"{'as it was':<12}{name}" for name in starter.kept]
    lines += [f"{'kept':<12}{name}  (--force replaces it)" for name in starter.refused]
    if dry_run:
        return "\n".join(lines)
    lines += [
        "",
        "Next:",
        *([f"  cd {shlex.quote(str(folder))}"] if folder != Path() else []),
        "  himl-container run --local sample.py                       # locks, builds, tests, and runs in the image",
        "  himl-container submit --azureml --cluster NAME sample.py   # the same on a cluster of your workspace",
        "  himl-container submit --azureml --emulator --cluster cpu-cluster sample.py   # or of one on this machine",
    ]
    return "\n".join(lines)


def _how(file: FirstFile) -> str:
    if file.adds:
        return "  (a table [tool.himl-container] at its end)"
    return "  (replaced)" if file.there else ""

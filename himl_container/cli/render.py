"""``himl-container render``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from himl_container.cli.options import environment_options, output_options
from himl_container.outside import outside
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output

DEFAULT_FOLDER = Path("himl-context")


@click.command()
@environment_options
@output_options
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    default=DEFAULT_FOLDER,
    show_default=True,
    help="Folder of the build context; replaced when it was written by this command.",
)
@click.option("--locked", is_flag=True, help="Fail when the lock is missing or stale, instead of locking again.")
@click.option("--dry-run", is_flag=True, help="Print the Dockerfile and change nothing.")
def command(settings: Settings, output: Output, folder: Path, locked: bool, dry_run: bool) -> None:
    """Write the Dockerfile and everything that 'docker build' needs beside it."""
    from himl_container.image.render import render_context, render_text

    if dry_run:
        with outside():
            text = render_text(settings, reporter=output.reporter, locked=locked)
        output.result({"dockerfile": text}, text.rstrip("\n"))
        return
    with outside():
        plan = render_context(settings, folder, reporter=output.reporter, locked=locked)
    result = {"folder": str(folder), "tag": plan.tag, "fingerprint": plan.fingerprint, "layers": len(plan.layers)}
    output.result(result, f"{folder}: Dockerfile and {len(plan.layers)} layers\ndocker build -t {plan.tag} {folder}")

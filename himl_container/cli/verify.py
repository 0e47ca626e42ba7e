"""``himl-container verify``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from himl_container.cli.arguments import complete_run
from himl_container.cli.azure import read_run, workspace_options
from himl_container.cli.options import environment_options, output_options
from himl_container.cli.output import size
from himl_container.cli.tables import plain, table
from himl_container.errors import VerifyError
from himl_container.settings import Settings

if TYPE_CHECKING:
    from azureml.core import Run

    from himl_container.azureml.records import Chosen
    from himl_container.cli.output import Output
    from himl_container.publish.verify import RunImage, Runs, Verification

_SHOWN = 60


@click.command()
@environment_options
@output_options
@workspace_options
@click.option("--runs-dir", type=click.Path(path_type=Path), help="Where run folders are. Default: runs.")
@click.option("--deep", is_flag=True, help="Also read every layer from the registry, and hash it.")
@click.argument("reference", metavar="[REF|RUN]", default="", shell_complete=complete_run)
def command(
    *,
    settings: Settings,
    output: Output,
    runs_dir: Path | None,
    deep: bool,
    reference: str,
    workspace_config: Path | None,
    emulator: bool,
) -> int:
    """Say whether run, registry, daemon and lock have the same image, or where they part.

    REF is an image, RUN the folder or id of a local run, 'latest', or the id of a run that was submitted to AzureML;
    without any it is the image of the lock. The exit code is 0 where all that could be compared agree, 76 where they
    do not or nothing could be compared.
    """
    from himl_container.launch.run_images import LocalRuns
    from himl_container.publish.verify import verify

    local = LocalRuns(runs_dir or _runs_folder(settings))
    runs: tuple[Runs, ...] = (local,)
    if reference and local.image_of(reference) is None:
        asked = emulator or workspace_config is not None
        read = functools.partial(read_run, output=output, emulator=emulator, workspace_config=workspace_config)
        cloud = _cloud_image(reference, read, asked=asked)
        if cloud is not None:
            runs = (_Known(cloud),)
            settings = _with_registry(settings, cloud)
    found = verify(reference, settings, reporter=output.reporter, runs=runs, deep=deep)
    output.result(found.as_json(), as_text(found))
    return 0 if found.agree else VerifyError.exit_code


class _Known(NamedTuple):
    """A run whose image was asked for already."""

    image: RunImage

    def image_of(self, run: str) -> RunImage | None:
        """Return the image."""
        return self.image


def _cloud_image(reference: str, read: Callable[[Chosen], Run], *, asked: bool) -> RunImage | None:
    """Return the image of a run in AzureML; None where the name is not known to be one's."""
    from himl_container.azureml.records import Records
    from himl_container.azureml.run_images import CloudRuns
    from himl_container.azureml.service_failures import explained
    from himl_container.azureml.workspace_registry import default_cache

    with explained(f"run {reference}"):
        return CloudRuns(Records(default_cache()), read, asked=asked).image_of(reference)


def _with_registry(settings: Settings, image: RunImage) -> Settings:
    """Return the settings with the registry that a run's image came from: that of a workspace is in no settings."""
    if settings.remote_name:
        return settings
    host, _, name = image.digest.partition("@")[0].partition("/")
    path = name.removesuffix(settings.image_name).rstrip("/")
    return dataclasses.replace(settings, registry=f"{host}/{path}" if path else host) if host and name else settings


def as_text(found: Verification) -> str:
    """Return a verification for people."""
    rows = [(one.part, one.identity or f"{one.state}: {one.why}", one.name) for one in found.parts]
    lines = [plain(found.reference, longest=300), *table(rows), ""]
    if found.partings:
        lines.append("They part here:")
        lines += [f"  {plain(str(one), longest=400)}" for one in found.partings[:_SHOWN]]
        rest = len(found.partings) - _SHOWN
        lines += [f"  and {rest} more (--json has all)"] if rest > 0 else []
        lines.append("")
    lines.append(found.summary)
    if found.agree and found.layers:
        lines.append(f"{found.layers} layers were compared by digest.")
    if found.hashed:
        lines.append(f"{size(found.hashed)} of layers were read from the registry and hashed.")
    return "\n".join(lines)


def _runs_folder(settings: Settings) -> Path:
    """Return where ``run`` puts run folders by default, as :mod:`himl_container.launch.request` decides it."""
    runs, source = settings.run.get("runs-dir"), settings.run.get("source")
    if isinstance(runs, str) and runs:
        return settings.root / runs
    return (settings.root / source if isinstance(source, str) and source else Path.cwd()) / "runs"

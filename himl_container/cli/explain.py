"""``himl-container explain``."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import click

from himl_container.cli.options import environment_options, output_options
from himl_container.cli.output import size
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.image.explain import Explanation


@click.command()
@environment_options
@output_options
def command(settings: Settings, output: Output) -> None:
    """Say why the last build was needed, whether the next one is, and what each layer weighs."""
    from himl_container.errors import InputError
    from himl_container.image.outlook import explain_with_outlook

    found = explain_with_outlook(settings, reporter=output.reporter)
    if found is None:
        raise InputError(
            "no build of this project is recorded",
            where=str(settings.root),
            hint="'himl-container build' records each image that it makes, in the cache.",
        )
    output.result(found.as_json(), _as_text(found))


def _as_text(found: Explanation) -> str:
    made = [layer for layer in found.layers if layer.state == "made"]
    present = [layer for layer in found.layers if layer.state != "removed"]
    when = datetime.datetime.fromtimestamp(found.last.built_at).astimezone().strftime("%Y-%m-%d %H:%M")
    lines = [found.last.tag, f"built {when}, {found.last.image_id[:19]}", "", f"Why: {found.reason}"]
    lines += [f"  {change}" for change in found.changes]
    weights = f"{size(sum(one.size for one in made))} of {size(sum(one.size for one in present))}"
    lines += ["", f"Layers: {len(made)} of {len(present)} made anew, {weights}"]
    lines += [f"  {layer.state:<7} {size(layer.size):>10}  {layer.name}" for layer in found.layers]
    if found.needed:
        lines += ["", "The next build is needed:", *(f"  {reason}" for reason in found.needed)]
    else:
        lines += ["", "Nothing has changed since: the next build finds this image."]
    return "\n".join(lines)

"""``himl-container build``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from himl_container.cli.options import environment_options, output_options
from himl_container.cli.output import size
from himl_container.image.lookup import find_image
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.image.lookup import BuiltImage


@click.command()
@environment_options
@output_options
@click.option("--locked", is_flag=True, help="Fail when the lock is missing or stale, instead of locking again.")
@click.option(
    "--builder",
    type=click.Choice(["assemble", "docker"]),
    default="assemble",
    show_default=True,
    help="Assemble the layers here, or have Docker execute the rendered Dockerfile.",
)
@click.option("--dry-run", is_flag=True, help="Print the complete plan and change nothing.")
def command(settings: Settings, output: Output, locked: bool, builder: str, dry_run: bool) -> None:
    """Build the image, test it, and give it its tag.

    Nothing is done when an image of the same inputs is there already.
    """
    if dry_run:
        from himl_container.image.dry_run import describe_build

        plan = describe_build(settings, reporter=output.reporter, locked=locked)
        output.result(plan.as_json(), plan.as_text())
        return
    start = time.monotonic()
    image = find_image(settings) or _build(settings, output, locked=locked, builder=builder)
    output.result(_as_json(image), _as_text(image, time.monotonic() - start))


def _build(settings: Settings, output: Output, *, locked: bool, builder: str) -> BuiltImage:
    from himl_container.image.build import ensure_image

    return ensure_image(
        settings, reporter=output.reporter, locked=locked, builder="docker" if builder == "docker" else "assemble"
    )


def _as_json(image: BuiltImage) -> dict[str, object]:
    return {
        "tag": image.tag,
        "id": image.id,
        "fingerprint": image.fingerprint,
        "built": image.built,
        "layers": [{"name": layer.name, "digest": layer.digest, "size": layer.size} for layer in image.layers],
    }


def _as_text(image: BuiltImage, seconds: float) -> str:
    if not image.built:
        return f"{image.tag}\nNothing has changed; the image is there already ({seconds:.1f} s)."
    weight = size(sum(layer.size for layer in image.layers))
    return f"{image.tag}\nBuilt and tested in {seconds:.1f} s: {len(image.layers)} layers of the environment, {weight}."

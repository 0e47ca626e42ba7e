"""``himl-container inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from himl_container.cli.options import environment_options, output_options
from himl_container.cli.output import size
from himl_container.cli.tables import plain, table
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.publish.inspect import Inspection

_ANNOTATIONS_SHOWN = 40


@click.command()
@environment_options
@output_options
@click.argument("reference", metavar="REF")
def command(settings: Settings, output: Output, reference: str) -> None:
    """Show what is inside of an image, by package and layer, from its registry alone.

    REF is repository[:tag][@digest]. Without a registry's address it is looked for in the registry of the settings,
    then in the Docker daemon.
    """
    from himl_container.publish.inspect import inspect_image

    found = inspect_image(reference, settings, reporter=output.reporter)
    output.result(found.as_json(), as_text(found))


def as_text(found: Inspection) -> str:
    """Return an inspection for people."""
    image = found.image
    where = "registry" if image.source == "registry" else "Docker daemon (no registry has it, or none is set)"
    facts = [
        ("from", where),
        ("digest", image.digest or "none: it was not pushed from here"),
        ("index", image.index),
        ("image id", image.config_digest),
        ("platform", image.platform),
        ("created", image.created),
        ("fingerprint", image.fingerprint),
    ]
    lines = [plain(image.name, longest=300), *table([fact for fact in facts if fact[1]])]
    shown = image.annotations or image.labels
    if shown:
        title = "Annotations:" if image.annotations else "Labels:"
        lines += ["", title, *table(sorted(shown.items())[:_ANNOTATIONS_SHOWN])]
    lines += ["", *_layers(found), "", *_packages(found)]
    return "\n".join(lines)


def _layers(found: Inspection) -> list[str]:
    layers = found.image.layers
    counts: dict[str, int] = {}
    for package in found.packages:
        counts[package.layer] = counts.get(package.layer, 0) + 1
    weights = [layer.blob.size for layer in layers if layer.blob is not None]
    total = f", {size(sum(weights))} compressed" if weights else ""
    rows = [
        (
            size(layer.blob.size) if layer.blob else "",
            layer.name,
            (layer.blob.digest if layer.blob else layer.diff_id)[:19],
            f"{counts[layer.name]} packages" if counts.get(layer.name, 0) > 1 else plain(layer.step, longest=60),
        )
        for layer in layers
    ]
    return [f"Layers: {len(layers)}{total}", *table(rows, right=(0,))]


def _packages(found: Inspection) -> list[str]:
    if not found.packages_from:
        why = "a daemon does not know them" if found.image.source == "daemon" else "no lock or SBOM is attached"
        return [f"Packages: not known ({why})"]
    source = "attached lock" if found.packages_from == "lock" else "attached bill of materials"
    rows = [
        (
            one.kind,
            one.name,
            f"{one.version} {one.build}".strip(),
            size(one.size) if one.size else "",
            plain(one.license, longest=40),
            one.layer,
        )
        for one in found.packages
    ]
    header = ("kind", "name", "version", "archive", "licence", "layer")
    return [f"Packages: {len(rows)} (from the {source})", *table([header, *rows], right=(3,))]

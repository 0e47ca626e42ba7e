"""``himl-container diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from himl_container.cli.options import environment_options, output_options
from himl_container.cli.output import size
from himl_container.cli.tables import plain, table
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.publish.diff import FileChanges, ImageDiff, Side

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@click.command()
@environment_options
@output_options
@click.option("--no-files", is_flag=True, help="Compare packages and layers only; no layer is read.")
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
def command(settings: Settings, output: Output, no_files: bool, old: str, new: str) -> None:
    """Show what differs between two images, by package, layer, file count and bytes.

    A and B are images in a registry or the Docker daemon, lock files, or '.' for the lock of this project. Only layers
    that differ are read.
    """
    from himl_container.publish.diff import diff_images

    found = diff_images(old, new, settings, reporter=output.reporter, files=not no_files)
    output.result(found.as_json(), as_text(found))


def as_text(found: ImageDiff) -> str:
    """Return a comparison for people."""
    lines = [f"A  {_title(found.old)}", f"B  {_title(found.new)}", ""]
    if found.identical:
        return "\n".join([*lines, f"Nothing differs: {found.same_layers} layers are the same."])
    sources = {"locks": "", "layers": " (by the records in the layers that differ)"}
    if found.packages_from:
        changes = [one.change for one in found.packages]
        lines.append(f"Packages: {_count(changes)}{sources[found.packages_from]}")
    else:
        lines.append("Packages: not compared (an image has no lock attached, and no layer was read)")
    lines += [f"  {plain(str(one), longest=300)}" for one in found.packages]
    lines += ["", f"Layers: {_count([one.change for one in found.layers])}; {found.same_layers} are the same"]
    rows = [(_SIGNS[one.change], one.name, _weight(one.old_size), _weight(one.new_size)) for one in found.layers]
    lines += table(rows, right=(2, 3)) if rows else []
    if found.settings:
        lines += ["", f"Settings: {len(found.settings)} differ", *(f"  ~ {plain(name)}" for name in found.settings)]
    if found.files is not None:
        lines += ["", *_files(found.files)]
    return "\n".join(lines)


def _title(side: Side) -> str:
    digest = f"  {side.digest}" if side.digest else ""
    return f"{plain(side.name, longest=300)}  ({side.source}){digest}"


def _count(changes: list[str]) -> str:
    parts = [f"{changes.count(change)} {change}" for change in ("added", "changed", "removed") if change in changes]
    return ", ".join(parts) or "no difference"


def _weight(count: int | None) -> str:
    return "" if count is None else size(count)


def _files(changes: tuple[FileChanges, ...]) -> list[str]:
    added, removed, changed = (sum(getattr(one, name) for one in changes) for name in ("added", "removed", "changed"))
    more, less = sum(one.bytes_added for one in changes), sum(one.bytes_removed for one in changes)
    lines = [f"Files: {added} added, {removed} removed, {changed} changed; +{size(more)}, -{size(less)}"]
    if not changes:
        return lines
    rows = [
        (
            one.package,
            str(one.added),
            str(one.removed),
            str(one.changed),
            size(one.bytes_added),
            size(one.bytes_removed),
        )
        for one in changes
    ]
    header = ("package", "added", "removed", "changed", "bytes in", "bytes out")
    return [*lines, *table([header, *rows], right=(1, 2, 3, 4, 5))]

"""``himl-container cache``."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from himl_container.cache import Cache
from himl_container.cli.options import cache_options, environment_options, output_options
from himl_container.cli.output import size
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.image.prune import CacheItem

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def _bytes(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Read a number of bytes with a unit: ``20GB``, ``500MB``, ``10GiB``, ``0``."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", value, re.IGNORECASE)
    if not found:
        raise click.BadParameter(f"{value!r} is not a size, such as 20GB, 500MB or 0", context, parameter)
    units = _BINARY if found[3] else _UNITS
    return int(float(found[1]) * units[found[2].lower()])


@click.group()
def command() -> None:
    """List or prune the cache of layers, wheels and records, or print its key. Everything in it can be made again."""


@command.command("ls")
@cache_options
@output_options
@click.option("--all", "every", is_flag=True, help="List every item, not only layers.")
def ls(settings: Settings, output: Output, every: bool) -> None:
    """List what the cache holds, what was used last first."""
    from himl_container.image.prune import list_cache

    items = list_cache(Cache(settings.cache_dir))
    kinds = sorted({item.kind for item in items})
    totals = {kind: sum(item.size for item in items if item.kind == kind) for kind in kinds}
    shown = [item for item in items if every or item.kind == "layers"]
    lines = _table(shown)
    lines += [f"{size(total):>10}  {kind} ({sum(i.kind == kind for i in items)})" for kind, total in totals.items()]
    lines.append(f"{size(sum(totals.values())):>10}  in all, in {settings.cache_dir}")
    result = {"folder": str(settings.cache_dir), "size": sum(totals.values()), "items": [_plain(i) for i in items]}
    output.result(result, "\n".join(lines))


@command.command("prune")
@cache_options
@output_options
@click.option("--keep", default="20GB", callback=_bytes, show_default=True, metavar="SIZE", help="What may stay.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and let it stay.")
def prune(settings: Settings, output: Output, keep: int, dry_run: bool) -> None:
    """Take away what was not used for longest, until no more than --keep is left.

    Safe while a build is running: what is in use stays.
    """
    from himl_container.image import prune as pruning

    done = pruning.prune(Cache(settings.cache_dir), keep=keep, dry_run=dry_run)
    verb = "would be freed" if dry_run else "freed"
    lines = _table(done.removed)
    lines.append(f"{size(done.freed)} {verb} ({len(done.removed)} items), {size(done.kept)} left.")
    if done.in_use:
        lines.append(f"{size(done.in_use)} more than {size(keep)} stay: used a short while ago.")
    result = {
        "removed": [_plain(item) for item in done.removed],
        "freed": done.freed,
        "kept": done.kept,
        "in_use": done.in_use,
        "dry_run": dry_run,
    }
    output.result(result, "\n".join(lines))


@command.command("key")
@environment_options
@output_options
def key(settings: Settings, output: Output) -> None:
    """Print the fingerprint of the image that the lock and the settings describe, for the caches of a pipeline.

    Neither a daemon nor a registry is asked. Fails when the lock is missing or stale.
    """
    from himl_container.image.fingerprint import remembered, tag_of

    value = remembered(settings, Cache(settings.cache_dir))
    if value is None:
        from himl_container.image.build import current_fingerprint

        value = current_fingerprint(settings, reporter=output.reporter)
    tag = tag_of(settings.image_name, value)
    image = tag_of(settings.remote_name, value) if settings.remote_name else tag
    output.result({"key": value, "tag": tag, "image": image}, value)


def _table(items: Iterable[CacheItem]) -> list[str]:
    return [f"{size(item.size):>10}  {_date(item.last_used)}  {item.kind:<12}  {item.name}" for item in items]


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def _plain(item: CacheItem) -> dict[str, object]:
    return {"kind": item.kind, "name": item.name, "size": item.size, "last_used": round(item.last_used, 3)}

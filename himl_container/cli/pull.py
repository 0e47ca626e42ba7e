"""``himl-container pull``."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import click

from himl_container.cli.options import environment_options, output_options
from himl_container.cli.output import size
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.publish.pull_model import Pulled, PullPlan


@click.command()
@environment_options
@output_options
@click.option("--dry-run", is_flag=True, help="Print what would be downloaded, and change nothing.")
@click.argument("ref", required=False)
def command(settings: Settings, output: Output, ref: str | None, dry_run: bool) -> None:
    """Bring an image from its registry into the Docker daemon, downloading only the layers that are missing here.

    REF is HOST/REPOSITORY[:TAG][@sha256:DIGEST]. Without it, the image of this project's lock is pulled, under the tag
    that everybody with the same lock has.
    """
    from himl_container.cache import Cache
    from himl_container.image.engine import connect
    from himl_container.publish.pull import plan_pull, pull_image
    from himl_container.publish.pull_lock import locked_image, pull_locked
    from himl_container.publish.pull_model import registry_reference

    begin = time.monotonic()
    cache = Cache(settings.cache_dir)
    engine = functools.cache(lambda: connect(cache))
    if ref is not None:
        registry_reference(ref)  # what is wrong with it is told first, also where no daemon runs
    found = None if ref is not None else locked_image(settings, engine=engine, reporter=output.reporter)
    name = found.name if found is not None else ref or ""
    if dry_run:
        plan = plan_pull(
            name,
            engine=engine(),
            cache=cache,
            reporter=output.reporter,
            platform=settings.platform,
            fingerprint=found.prepared.fingerprint if found else "",
        )
        output.result(plan.as_json(), _plan_as_text(plan))
        return
    if found is None:
        pulled = pull_image(name, engine=engine(), cache=cache, reporter=output.reporter, platform=settings.platform)
    else:
        pulled = pull_locked(found, settings, engine=engine, cache=cache, reporter=output.reporter)
    output.result(_as_json(pulled), _as_text(pulled, time.monotonic() - begin))


def _as_json(pulled: Pulled) -> dict[str, object]:
    return {
        "tag": pulled.tag,
        "id": pulled.image.id,
        "digests": list(pulled.names),
        "existed": pulled.existed,
        "layers": len(pulled.image.diff_ids),
        "fetched": pulled.fetched,
        "bytes_received": pulled.bytes_received,
        "requests": pulled.requests,
    }


def _as_text(pulled: Pulled, seconds: float) -> str:
    head = f"{pulled.tag}\n{pulled.names[0]}\n"
    if pulled.existed:
        return f"{head}The daemon has this image already ({seconds:.1f} s)."
    count = len(pulled.image.diff_ids)
    return f"{head}Pulled in {seconds:.1f} s: {pulled.fetched} of {count} layers, {size(pulled.bytes_received)}."


def _plan_as_text(plan: PullPlan) -> str:
    lines = [plan.tag, *plan.names[:1]]
    if plan.present is not None:
        return "\n".join([*lines, "The daemon has this image already."])
    words = {"daemon": "in the daemon", "store": "in the cache", "registry": "to download"}
    width = max((len(layer.name) for layer in plan.layers), default=0)
    lines += [f"  {layer.name:<{width}}  {size(layer.blob.size):>9}  {words[layer.where]}" for layer in plan.layers]
    missing = len({layer.diff_id for layer in plan.missing})
    return "\n".join([*lines, f"To download: {missing} of {len(plan.layers)} layers, {size(plan.size)}."])

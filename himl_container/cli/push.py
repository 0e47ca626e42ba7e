"""``himl-container push``."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from himl_container.cli.ci import in_pipeline, tell
from himl_container.cli.options import environment_options, output_options
from himl_container.cli.output import size
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.publish.model import Pushed


@click.command()
@environment_options
@output_options
@click.option("--dry-run", is_flag=True, help="Say what would travel, and send nothing.")
def command(settings: Settings, output: Output, dry_run: bool) -> None:
    """Push the built image of these settings to the registry.

    Only what the registry lacks travels. Nothing is done when it has the image already.
    """
    if dry_run:
        from himl_container.publish.push_plan import plan_push

        plan = plan_push(settings, reporter=output.reporter)
        output.result(plan.as_json(), plan.as_text())
        return
    from himl_container.publish.push_image import push_image

    start = time.monotonic()
    pushed = push_image(settings, reporter=output.reporter)
    if in_pipeline(os.environ):
        from himl_container.image.build import current_fingerprint

        value = current_fingerprint(settings, reporter=output.reporter)
        outputs = {"image": pushed.name, "digest": pushed.manifest.digest, "fingerprint": value}
        tell({**outputs, "built": False, "bytes_sent": pushed.bytes_sent}, as_json=output.as_json)
    output.result(pushed_as_json(pushed), pushed_as_text(pushed, time.monotonic() - start))


def pushed_as_json(pushed: Pushed) -> dict[str, object]:
    """Return what a push did for machines."""
    return {
        "reference": pushed.reference,
        "name": pushed.name,
        "digest": pushed.manifest.digest,
        "existed": pushed.existed,
        "layers": [{"digest": layer.digest, "size": layer.size} for layer in pushed.layers],
        "sent": pushed.sent,
        "mounted": pushed.mounted,
        "copied": pushed.copied,
        "bytes_sent": pushed.bytes_sent,
        "requests": pushed.requests,
    }


def pushed_as_text(pushed: Pushed, seconds: float) -> str:
    """Return what a push did for people: the name that always means this image, and what travelled."""
    lines = [pushed.reference, f"also {pushed.name}"]
    if pushed.existed:
        lines.append(f"The registry has it already ({seconds:.1f} s).")
        return "\n".join(lines)
    total = sum(layer.size for layer in dict.fromkeys(pushed.layers))
    parts = [f"{pushed.sent} of {len(pushed.layers)} layers sent"]
    parts += [f"{pushed.mounted} mounted"] if pushed.mounted else []
    parts += [f"{pushed.copied} copied"] if pushed.copied else []
    lines.append(
        f"Pushed in {seconds:.1f} s: {', '.join(parts)}; {size(pushed.bytes_sent)} sent of {size(total)}, "
        f"{pushed.requests} requests."
    )
    return "\n".join(lines)

"""``himl-container build``."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Literal

import click

from himl_container.cli.ci import in_pipeline, tell
from himl_container.cli.options import environment_options, output_options
from himl_container.cli.output import size
from himl_container.image.lookup import find_image
from himl_container.outside import outside
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.image.lookup import BuiltImage
    from himl_container.publish.build import Built


@click.command()
@environment_options
@output_options
@click.option("--locked", is_flag=True, help="Fail when the lock is missing or stale, instead of locking again.")
@click.option("--push", is_flag=True, help="Bring the image into the registry; nothing else is done when it is there.")
@click.option(
    "--test/--no-test",
    "test",
    default=True,
    show_default=True,
    help="Run the image's tests before it is called tested.",
)
@click.option(
    "--builder",
    type=click.Choice(["assemble", "docker"]),
    default="assemble",
    show_default=True,
    help="Assemble the layers here, or have Docker execute the rendered Dockerfile.",
)
@click.option("--dry-run", is_flag=True, help="Print the complete plan and change nothing.")
def command(
    settings: Settings,
    output: Output,
    *,
    locked: bool,
    push: bool,
    test: bool,
    builder: Literal["assemble", "docker"],
    dry_run: bool,
) -> None:
    """Build the image, test it, and give it its tag.

    Nothing is done when an image of the same inputs is there already: in the daemon, or in the registry where one is
    set. With --push it is looked for in the registry alone.
    """
    if dry_run:
        _dry_run(settings, output, locked=locked, push=push)
        return
    start = time.monotonic()
    found = None if push else find_image(settings, test=test)
    sent: int | None = None
    if found is not None:
        value, text = _found_as_json(found), _found_as_text(found, time.monotonic() - start)
    else:
        from himl_container.publish.build import build

        built = build(settings, reporter=output.reporter, locked=locked, push=push, test=test, builder=builder)
        value, text = _as_json(built), _as_text(built, time.monotonic() - start)
        sent = built.pushed.bytes_sent if built.pushed else None
    if in_pipeline(os.environ):
        tell({**value, "bytes_sent": sent}, as_json=output.as_json)
    output.result(value, text)


def _dry_run(settings: Settings, output: Output, *, locked: bool, push: bool) -> None:
    from himl_container.image.dry_run import describe_build

    with outside():
        plan = describe_build(settings, reporter=output.reporter, locked=locked)
    value, text = plan.as_json(), plan.as_text()
    if push:
        from himl_container.publish.remote import find_remote

        remote = find_remote(settings, plan.fingerprint, reporter=output.reporter)
        name = f"{settings.remote_name}:{plan.fingerprint[:32]}"
        value["registry"] = {"name": name, "exists": remote is not None, "tested": remote is not None and remote.tested}
        state = "would be pushed" if remote is None else "is there already: nothing to do"
        if remote is not None and not remote.tested:
            state = "is there already, untested"
        text += f"\npush    {name}\n        {state}"
    output.result(value, text)


def _found_as_json(image: BuiltImage) -> dict[str, object]:
    return {
        "tag": image.tag,
        "id": image.id,
        "fingerprint": image.fingerprint,
        "built": image.built,
        "layers": [],
        "image": image.tag,
        "digest": "",
        "tested": image.tested,
    }


def _found_as_text(image: BuiltImage, seconds: float) -> str:
    return f"{image.tag}\nNothing has changed; the image is there already ({seconds:.1f} s).{_untested(image.tested)}"


def _as_json(built: Built) -> dict[str, object]:
    work = built.work
    value: dict[str, object] = {
        "tag": built.tag,
        "id": built.id,
        "fingerprint": built.fingerprint,
        "built": built.built,
        "layers": [{"name": layer.name, "digest": layer.digest, "size": layer.size} for layer in built.layers],
        "image": built.remote.name if built.remote else built.tag,
        "digest": built.remote.manifest.digest if built.remote else "",
        "tested": built.tested,
        "pulled": built.pulled,
        "made": list(work.made),
        "downloaded": list(work.downloaded),
        "reused": list(work.reused),
    }
    if built.pushed is not None:
        pushed = built.pushed
        value["pushed"] = {"bytes": pushed.bytes_sent, "requests": pushed.requests, "existed": pushed.existed}
    return value


def _as_text(built: Built, seconds: float) -> str:
    name = built.remote.reference if built.remote else built.tag
    took = f"({seconds:.1f} s)"
    if built.pushed is not None:
        done = f"Pushed: {size(built.pushed.bytes_sent)} sent {took}." if not built.pushed.existed else _THERE + took
    elif built.pulled:
        done = f"Pulled from the registry {took}."
    elif built.built:
        weight = size(sum(layer.size for layer in built.layers))
        verb = "Built and tested" if built.tested else "Built"
        done = f"{verb} in {seconds:.1f} s: {len(built.layers)} layers of the environment, {weight}."
    elif built.remote is not None:
        done = _THERE + took
    else:
        done = f"Nothing has changed; the image is there already {took}."
    return f"{name}\n{done}{_untested(built.tested)}"


_THERE = "The registry has the image already "


def _untested(tested: bool) -> str:
    return "" if tested else "\nThis image is NOT TESTED: 'himl-container build' without --no-test tests it."

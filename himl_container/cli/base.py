"""``himl-container base``: making, carrying, showing and moving the base image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from himl_container.cache import Cache
from himl_container.cli.options import cache_options, environment_options, output_options
from himl_container.cli.output import Output, size
from himl_container.outside import outside
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.environment.model import BasePin, Lock
    from himl_container.image.base_bump import BaseChange
    from himl_container.image.docker_engine import DockerEngine

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def command() -> None:
    """Create a base image, carry it to a machine without a network, or move its pin.

    The base image is pinned exactly in the lock. It changes when 'base bump' is called, and at no other time.
    """


@command.command("create")
@click.argument("name", required=False)
@click.option("--suite", default="bookworm", show_default=True, help="Debian release.")
@click.option("--mirror", metavar="URL", help="Debian mirror (http or https). Default: Debian's own.")
@click.option("--security-mirror", metavar="URL", help="Mirror of Debian's security updates; empty for none.")
@click.option("--include", metavar="PACKAGE", multiple=True, help="Debian package to add. Repeatable.")
@click.option("--component", metavar="NAME", multiple=True, help="Archive area. Repeatable. Default: main.")
@click.option("--output", "archive", type=_FILE, help="Write a file for 'base load' instead of loading the image.")
@click.option("--platform", default="linux-64", show_default=True, help="Conda platform that the image is for.")
@cache_options
@output_options
def create(settings: Settings, output: Output, name: str | None, archive: Path | None, **options: Any) -> None:
    """Make a minimal Debian base image from a Debian mirror, without any image registry.

    NAME is the image's name; by default himl-base with the release as its tag. The same packages give the same image.
    """
    from himl_container.image.base_create import create_base, write_archive

    cache = Cache(settings.cache_dir)
    base = _debian_base(**options)
    with outside():
        image = create_base(name or f"himl-base:{base.suite}", base, cache=cache, reporter=output.reporter)
    value = {"image": image.tag, "id": image.id, "layers": list(image.diff_ids)}
    if archive is not None:
        written = write_archive(image, archive)
        text = f"{archive}\n{image.tag}, {size(written)}. Bring it in with: himl-container base load {archive.name}"
        output.result({**value, "output": str(archive), "size": written}, text)
        return
    loaded = _engine(cache).load(image, output.reporter)
    text = f"{image.tag}\n{size(loaded.size)}. Use it with --base-image {image.tag}"
    output.result({**value, "id": loaded.id, "rootfs": loaded.rootfs, "size": loaded.size}, text)


@command.command("load")
@click.argument("file", type=click.Path(path_type=Path))
@cache_options
@output_options
def load(settings: Settings, output: Output, file: Path) -> None:
    """Bring a base image from a file ('base create --output' or 'docker save') into the daemon."""
    engine = _engine(Cache(settings.cache_dir))
    names = engine.load_archive(file, output.reporter)
    found = [(name, image) for name in names if (image := engine.inspect(name)) is not None]
    value = [{"image": name, "id": image.id, "rootfs": image.rootfs, "size": image.size} for name, image in found]
    output.result({"images": value}, "\n".join(names))


@command.command("show")
@environment_options
@output_options
def show(settings: Settings, output: Output) -> None:
    """Show the base image that the lock pins, and what it holds."""
    from himl_container.environment.lockfile import read_lock
    from himl_container.image.base_bump import content_lines, describe

    pin = read_lock(settings.lock_file).base
    contents = describe(pin, _engine(Cache(settings.cache_dir)))
    lines = content_lines(pin, contents)
    value: dict[str, Any] = {**_pin_value(pin), "present": contents is not None}
    if contents is not None:
        value |= {"release": contents.release, "size": contents.size, "packages": dict(contents.packages)}
    output.result(value, "\n".join(lines))


@command.command("bump")
@environment_options
@output_options
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def bump(settings: Settings, output: Output, dry_run: bool) -> None:
    """Pin what the base image's name means today, and show what that changes.

    Nothing else in the lock moves.
    """
    from himl_container.environment.lockfile import read_lock, write_lock
    from himl_container.image.base import pin_base, resolve_base
    from himl_container.image.base_bump import bump as move
    from himl_container.image.base_bump import change_lines

    lock = read_lock(settings.lock_file)
    engine = _engine(Cache(settings.cache_dir))
    new = pin_base(settings.base_image, engine=engine, fresh=True)
    if not dry_run:
        # A base that cannot be had is told here, before the lock names it, and not at the next build.
        resolve_base(new, engine=engine, reporter=output.reporter, platform=settings.platform)
    moved, change = move(lock, settings.base_image, new, engine=engine)
    if not dry_run and moved != lock:
        write_lock(moved, settings.lock_file)
        _warn_of_built_wheels(lock, change, output)
    lines = change_lines(change)
    if not change.changed:
        lines.insert(0, "The pin has not moved.")
    value = {"changed": change.changed, "old": _pin_value(change.old), "new": _pin_value(change.new)}
    output.result({**value, "written": not dry_run and moved != lock, "lines": lines}, "\n".join(lines))


def _debian_base(
    *,
    platform: str,
    suite: str,
    mirror: str | None,
    security_mirror: str | None,
    include: tuple[str, ...],
    component: tuple[str, ...],
) -> Any:
    from himl_container.image.base_create import INCLUDED, DebianBase

    return DebianBase(
        suite=suite,
        mirror=(mirror or "").rstrip("/"),
        security_mirror=(security_mirror or "").rstrip("/"),
        include=tuple(sorted({*INCLUDED, *include})),
        components=component or ("main",),
        platform=platform,
    )


def _warn_of_built_wheels(lock: Lock, change: BaseChange, output: Output) -> None:
    built = [wheel.name for wheel in lock.wheels if wheel.sdist_url]
    if built and change.changed:
        output.reporter.warn(
            f"built from source in the old base image, and kept: {', '.join(built)}; "
            f"'himl-container lock --upgrade NAME' builds them again"
        )


def _pin_value(pin: BasePin) -> dict[str, str]:
    return {"reference": pin.reference, "digest": pin.digest, "rootfs": pin.rootfs}


def _engine(cache: Cache) -> DockerEngine:
    from himl_container.image.docker_engine import DockerEngine

    return DockerEngine.connect(cache=cache)

"""``himl-container lock``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from himl_container.cache import Cache
from himl_container.cli.options import environment_options, output_options
from himl_container.errors import StaleLockError, StorageError
from himl_container.outside import outside
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.cli.output import Output
    from himl_container.environment.diff import Difference
    from himl_container.environment.model import Lock


@click.command()
@environment_options
@output_options
@click.option("--check", "only_check", is_flag=True, help="Only tell whether the lock is current; exit code 67 if not.")
@click.option("--upgrade", is_flag=True, help="Move the named packages on purpose, or all of them without a name.")
@click.option("--diff", "show_diff", is_flag=True, help="Show what changed, package by package.")
@click.option(
    "--export",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Also write the Conda packages as an explicit list ('-' for standard output).",
)
@click.option("--dry-run", is_flag=True, help="Solve and show what would change; write nothing.")
@click.argument("names", nargs=-1)
def command(
    settings: Settings,
    output: Output,
    *,
    only_check: bool,
    upgrade: bool,
    show_diff: bool,
    export: Path | None,
    dry_run: bool,
    names: tuple[str, ...],
) -> int:
    """Solve the environment once and write the lock.

    What is locked stays as it is unless an input changed that it depends on. NAMES are packages for --upgrade.
    """
    if names and not upgrade:
        raise click.UsageError("Names of packages go with --upgrade.")
    if only_check and (upgrade or show_diff or export or dry_run):
        raise click.UsageError("--check only looks: it does not go with --upgrade, --diff, --export or --dry-run.")
    if export is not None and dry_run:
        raise click.UsageError("--dry-run writes nothing, so it does not go with --export.")
    with outside():
        if only_check:
            return _check(settings, output)
        chosen = frozenset(names) if upgrade else None
        _lock(settings, output, chosen, show_diff=show_diff or dry_run, export=export, dry_run=dry_run)
    return 0


def _check(settings: Settings, output: Output) -> int:
    from himl_container.environment.declare import load_environment
    from himl_container.environment.lock import check

    cache = Cache(settings.cache_dir)
    spec = load_environment(settings, output.reporter, cache=cache)
    reasons = check(spec, settings.lock_file, settings, cache=cache)
    value = {"current": not reasons, "lock_file": str(settings.lock_file), "reasons": list(reasons)}
    if not reasons:
        output.result(value, f"{settings.lock_file} is current.")
        return 0
    lines = [f"{settings.lock_file} is not current:", *(f"  {reason}" for reason in reasons)]
    output.result(value, "\n".join([*lines, "Run 'himl-container lock' and commit the result."]))
    return StaleLockError.exit_code


def _lock(
    settings: Settings,
    output: Output,
    upgrade: frozenset[str] | None,
    *,
    show_diff: bool,
    export: Path | None,
    dry_run: bool,
) -> None:
    from himl_container.environment.declare import load_environment
    from himl_container.environment.diff import lock_diff
    from himl_container.environment.lockfile import read_lock, write_lock
    from himl_container.image.engine import connect
    from himl_container.image.locking import new_lock

    cache = Cache(settings.cache_dir)
    spec = load_environment(settings, output.reporter, cache=cache)
    old = read_lock(settings.lock_file, cache) if settings.lock_file.is_file() else None
    new = new_lock(spec, settings, upgrade=upgrade, engine=connect, reporter=output.reporter)
    if not dry_run:
        write_lock(new, settings.lock_file)
        read_lock(settings.lock_file, cache)  # proves that it can be read, and makes the next build quicker
    differences = lock_diff(old, new)
    text = [] if export is not None and str(export) == "-" else [_summary(old, new, differences, settings, dry_run)]
    if show_diff:
        text += [str(difference) for difference in differences]
    value: dict[str, Any] = {
        "lock_file": str(settings.lock_file),
        "written": not dry_run and old != new,
        "conda": len(new.conda),
        "wheels": len(new.wheels),
        "differences": [_as_json(difference) for difference in differences],
    }
    if export is not None:
        text += _export(new, export, value, output)
    output.result(value, "\n".join(text))


def _export(lock: Lock, target: Path, value: dict[str, Any], output: Output) -> list[str]:
    """Write the explicit list, and return what is to be said about it."""
    from himl_container.environment.export import explicit
    from himl_container.whole_file import replace_file

    text = explicit(lock)
    if str(target) == "-":
        value["explicit"] = text
        if not output.as_json:
            click.echo(text, nl=False)  # as it is: the lock's addresses hold no credentials, and hashes must stay
        return []
    try:
        replace_file(target, text.encode())
    except OSError as error:
        raise StorageError(f"cannot write the list: {error.strerror or error}", where=str(target)) from error
    value["export"] = str(target)
    return [f"Wrote {target}."]


def _summary(
    old: Lock | None, new: Lock, differences: tuple[Difference, ...], settings: Settings, dry_run: bool
) -> str:
    content = f"{len(new.conda)} Conda packages and {len(new.wheels)} wheels"
    if old == new:
        return f"{settings.lock_file} is current: {content}."
    if dry_run:
        return f"{settings.lock_file} would hold {content}; {_count(differences)}."
    if old is None:
        return f"Wrote {settings.lock_file}: {content}."
    return f"Wrote {settings.lock_file}: {content}; {_count(differences)}."


def _count(differences: tuple[Difference, ...]) -> str:
    counts = [
        f"{number} {change}"
        for change in ("added", "changed", "removed")
        if (number := sum(difference.change == change for difference in differences))
    ]
    return ", ".join(counts) or "nothing in them changed"


def _as_json(difference: Difference) -> dict[str, str]:
    return {
        "kind": difference.kind,
        "name": difference.name,
        "change": difference.change,
        "old": difference.old,
        "new": difference.new,
    }

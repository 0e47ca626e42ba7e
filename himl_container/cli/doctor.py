"""``himl-container doctor``: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from himl_container.cli.options import cache_options, output_options
from himl_container.cli.output import Output, size
from himl_container.errors import HimlError
from himl_container.settings import Settings

_LEAST_SPACE = 10_000_000_000  # bytes: an image of 2.5 GB, its layers in the cache, and the same again in the daemon
_PROBLEM = 69


@dataclass(frozen=True)
class Finding:
    """What one check found.

    :param severity: ``ok``; ``warning`` where something optional is missing; ``error`` where nothing can be built.
    :param fix: what to do; empty where nothing has to be done.
    """

    check: str
    severity: str
    found: str
    fix: str = ""


@click.command()
@cache_options
@output_options
def command(settings: Settings, output: Output) -> int:
    """Check what this machine has and what is missing. The exit code is 69 where something needed is."""
    findings = list(examine(settings.cache_dir))
    worst = any(finding.severity == "error" for finding in findings)
    output.result({"ok": not worst, "findings": [asdict(finding) for finding in findings]}, _table(findings))
    return _PROBLEM if worst else 0


def examine(cache_dir: Path) -> Iterable[Finding]:
    """Yield what each check finds; no check changes anything but a temporary file in the cache folder."""
    yield _python()
    yield _uv()
    yield from _engine()
    yield _program("buildx", _has_buildx, "warning", "Docker builds system parts without BuildKit", "Install buildx.")
    yield _program(
        "mmdebstrap",
        lambda: shutil.which("mmdebstrap") or "",
        "warning",
        "needed for 'himl-container base create' only",
        "On Debian: apt-get install mmdebstrap.",
    )
    yield _cache_folder(cache_dir)
    yield _space(cache_dir)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 10) <= sys.version_info < (3, 13):
        return Finding("python", "ok", version)
    return Finding("python", "warning", version, "Use Python 3.10, 3.11 or 3.12; others are not tested.")


def _uv() -> Finding:
    try:
        from uv import find_uv_bin

        return Finding("uv", "ok", find_uv_bin())
    except (ImportError, FileNotFoundError):
        return Finding("uv", "error", "missing", "Install himl-container again with its dependencies.")


def _engine() -> Iterable[Finding]:
    from himl_container.image.engine import connect

    try:
        info = connect().info()
    except HimlError as error:
        fix = error.hint or "Start Docker, or set DOCKER_HOST to where it listens."
        yield Finding("docker engine", "error", error.what, fix)
        return
    store = "containerd image store" if info.containerd_store else "classic image store"
    yield Finding("docker engine", "ok", f"{info.version} (API {info.api_version}, {info.architecture}, {store})")


def _has_buildx() -> str:
    plugins = (
        Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "cli-plugins",
        Path("/usr/local/lib/docker/cli-plugins"),
        Path("/usr/local/libexec/docker/cli-plugins"),
        Path("/usr/lib/docker/cli-plugins"),
        Path("/usr/libexec/docker/cli-plugins"),
    )
    found = (folder / "docker-buildx" for folder in plugins)
    return next((str(path) for path in found if os.access(path, os.X_OK)), "") or shutil.which("buildx") or ""


def _program(name: str, find: Callable[[], str], severity: str, missing: str, fix: str) -> Finding:
    path = find()
    return Finding(name, "ok", path) if path else Finding(name, severity, f"missing ({missing})", fix)


def _cache_folder(folder: Path) -> Finding:
    existing = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        fix = "Choose another folder with --cache-dir or HIML_CONTAINER_CACHE_DIR."
        return Finding("cache folder", "error", f"{folder}: {error.strerror}", fix)
    return Finding("cache folder", "ok", str(folder))


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    if free >= _LEAST_SPACE:
        return Finding("disk space", "ok", f"{size(free)} free at the cache folder")
    fix = "Free some space; 'himl-container cache prune' and 'docker image prune' help."
    return Finding("disk space", "warning", f"only {size(free)} free at the cache folder", fix)


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _table(findings: list[Finding]) -> str:
    width = max(len(finding.check) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.severity:<7}  {finding.check:<{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':<7}  {'':<{width}}  -> {finding.fix}")
    return "\n".join(lines)

"""Checks of this machine: Python, programs, and the cache folder."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from himl_container.doctor.model import Finding

LEAST_SPACE = 10_000_000_000  # bytes: an image of 2.5 GB, its layers in the cache, and the same again in the daemon


def checks(cache_dir: Path) -> Iterator[Finding]:
    """Yield what is found of this machine."""
    yield python()
    yield uv()
    yield mmdebstrap()
    yield cache_folder(cache_dir)
    yield space("space for the cache", cache_dir)


def python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Check that the interpreter is one that the tool is tested with."""
    text = ".".join(map(str, version))
    if (3, 10) <= version < (3, 13):
        return Finding("python", "ok", text)
    return Finding(
        "python", "warning", text, "The tool is not tested with this Python.", "Use Python 3.10, 3.11 or 3.12."
    )


def uv(find: Callable[[], str] | None = None) -> Finding:
    """Check that uv, which solves and lays out wheels, came along."""
    try:
        return Finding("uv", "ok", (find or _find_uv)())
    except (ImportError, FileNotFoundError):
        return Finding(
            "uv",
            "error",
            "missing",
            "Nothing can be locked or built.",
            "Install himl-container again with its dependencies.",
        )


def mmdebstrap(which: Callable[[str], str | None] = shutil.which) -> Finding:
    """Check for the program that makes a base image without a registry."""
    found = which("mmdebstrap")
    if found:
        return Finding("mmdebstrap", "ok", found)
    means = "Needed for 'himl-container base create' only."
    return Finding("mmdebstrap", "skipped", "not installed", means, "On Debian: apt-get install mmdebstrap.")


def cache_folder(folder: Path) -> Finding:
    """Check that layers can be written where they are kept; our own folder can be made writable again."""
    existing = nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(
            "cache folder",
            "error",
            f"{folder}: {error.strerror}",
            "Nothing can be built.",
            "Choose another folder with --cache-dir or HIML_CONTAINER_CACHE_DIR.",
            _make_writable(existing) if _is_ours(existing) else None,
        )
    return Finding("cache folder", "ok", str(folder) if existing == folder else f"{folder} (made at its first use)")


def space(check: str, folder: Path, free: int | None = None) -> Finding:
    """Check the free space of the disk that a folder is on.

    :param free: bytes; asked of the file system where not given.
    """
    if free is None:
        free = shutil.disk_usage(nearest(folder)).free
    shown = f"{free / 1e9:.1f} GB free at {folder}"
    if free >= LEAST_SPACE:
        return Finding(check, "ok", shown)
    return Finding(
        check,
        "warning",
        f"only {shown}",
        "An image with PyTorch and CUDA takes this and more.",
        "Free some space; 'himl-container cache prune' and 'docker image prune' help.",
    )


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _find_uv() -> str:
    from uv import find_uv_bin

    return find_uv_bin()


def _is_ours(folder: Path) -> bool:
    found = folder.stat()
    return found.st_uid == os.getuid() and found.st_mode & stat.S_IRWXU != stat.S_IRWXU


def _make_writable(folder: Path) -> Callable[[], str]:
    def repair() -> str:
        folder.chmod(folder.stat().st_mode | stat.S_IRWXU)
        return f"made {folder} writable for you"

    return repair

"""Where hi-ml looks for a file: the current folder, then its parents."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def find_upwards(name: str, *, start: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the nearest regular file called ``name`` in ``start`` or one of its parents, or None.

    hi-ml's rule: the search ends after the folder that is an entry of ``PYTHONPATH``, or at the root of the file
    system. Only a regular file with exactly that name counts; a folder called ``environment.yml`` is passed over.
    Entries of ``PYTHONPATH`` are compared after links and relative parts are resolved, which hi-ml promised but did not
    do.

    :param start: the folder in which the search begins; the current folder, for every command.
    """
    entries = environ.get("PYTHONPATH", "").split(os.pathsep)
    bounds = {_resolved(start / entry) for entry in entries if entry}
    folder = Path(os.path.normpath(start.absolute()))
    for candidate in (folder, *folder.parents):
        path = candidate / name
        if path.is_file():
            return path
        if _resolved(candidate) in bounds:
            return None
    return None


def _resolved(path: Path) -> str:
    return os.path.realpath(path)

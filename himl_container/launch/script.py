"""From what a user wants to run to the command of a container.

- ``train.py`` (any path that ends in ``.py``) runs as ``python train.py``; ``-m package.module`` as Python runs it.
- Another path that exists in the snapshot runs as it is; it must be executable.
- Anything else without a slash is a command of the image (``true``, ``pytest``).

Paths are relative to the source folder, as in AzureML.
"""

from __future__ import annotations

import os
from pathlib import Path

from himl_container.errors import InputError
from himl_container.launch.snapshot import Snapshot

PYTHON = "python"


def resolve_command(script: str, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the command for a script, checked against the snapshot.

    :raises InputError: the script is not in the snapshot (the error says whether it is missing or left out), is not
        executable, or lies outside of the source folder.
    """
    if script == "-m":
        return (PYTHON, "-m")
    path = _relative(script, snapshot.root)
    file = snapshot.find(path)
    if path.endswith(".py"):
        if file is None:
            raise _not_there(script, path, snapshot)
        return (PYTHON, path)
    if file is not None:
        if not file.executable:
            raise InputError(
                "the script is not executable",
                where=str(snapshot.root / path),
                hint="'chmod +x' it, or give its interpreter: 'himl-container run --local sh SCRIPT'.",
            )
        return (f"./{path}",)
    if "/" in script or snapshot.why_ignored(path):
        raise _not_there(script, path, snapshot)
    return (script,)


def _relative(script: str, root: Path) -> str:
    """Return a script's path below the source folder, with ``/``."""
    full = os.path.normpath(root.absolute() / script)
    base = os.path.normpath(root.absolute())
    below = os.path.relpath(full, base)
    if below == ".." or below.startswith("../"):
        # The same folder may have two names (a link to it).
        below = os.path.relpath(os.path.realpath(full), os.path.realpath(base))
    if below == ".." or below.startswith("../"):
        raise InputError(
            f"the script must lie inside of the source folder {base}",
            where=script,
            hint="Choose the source folder with --source.",
        )
    return below


def _not_there(script: str, path: str, snapshot: Snapshot) -> InputError:
    rule = snapshot.why_ignored(path)
    if rule:
        return InputError(
            f"the script is left out of the snapshot by {rule}",
            where=str(snapshot.root / path),
            hint="Change that rule; the cloud would not have the script either.",
        )
    near = [file.path for file in snapshot.files if file.path.rsplit("/", 1)[-1] == path.rsplit("/", 1)[-1]]
    if (snapshot.root / path).is_dir():
        return InputError("this is a folder, not a script", where=str(snapshot.root / path))
    return InputError(
        f"there is no such script: {script}",
        where=str(snapshot.root),
        hint=f"Did you mean {near[0]}?" if near else "Its path is relative to the source folder (--source).",
    )

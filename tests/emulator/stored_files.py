"""Files in the workspace's default datastore, and in folders that tests compare with them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azureml.core import Workspace


def upload_names(workspace: Workspace, source: Path, names: Iterable[str]) -> str:
    """Upload files whose text is their name, by way of an empty folder; return where they are in the datastore."""
    for name in names:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    folder = f"names-{uuid.uuid4().hex[:10]}"
    workspace.get_default_datastore().upload(str(source), folder, show_progress=False)
    return folder


def names_in(folder: Path) -> list[str]:
    """Return the files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

_MODE = 0o644


def replace_file(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Put a file in place in one step. One that was there keeps its mode; a new one is readable by everybody.

    It is written beside its place under a new name, so no link that lies in wait is ever followed, and renamed. A
    symbolic link in its place is replaced; who wants to keep one gives what it points to.

    :param sync: wait until the content is on the disk, for what must survive a loss of power right after.
    :raises OSError: the folder cannot be written, or the disk is full; the old file is as it was.
    """
    name = path.parent / f".{path.name}.{os.urandom(8).hex()}"
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
            os.fchmod(file.fileno(), _mode_of(path))
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def _mode_of(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return _MODE

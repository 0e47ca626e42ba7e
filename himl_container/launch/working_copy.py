"""Files of a run: the snapshot as it was taken, each node's working copy of it, and what the script left in there.

The snapshot in the run folder is the record and is never mounted. A script works in a copy, because it may change its
own files; AzureML gives each node its own copy too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from himl_container.errors import InputError, StorageError
from himl_container.launch.snapshot import Snapshot, SnapshotFile
from himl_container.launch.spec import SnapshotRef

_BLOCK = 1 << 20
Stamps = dict[str, tuple[int, int]]
"""Size and time of change (nanoseconds) of each file of a working copy, by its path."""


def take(snapshot: Snapshot, target: Path) -> SnapshotRef:
    """Copy a snapshot into a new folder.

    Links become what they point at; modes become 0755 for executable files and 0644 for others, as in the image.

    :raises InputError: a file vanished or cannot be read.
    :raises StorageError: the target cannot be written.
    """
    total = hashlib.sha256()
    make_folder(target)
    for file in snapshot.files:
        content = _copy(file, target / file.path)
        # A length before the name keeps apart what concatenation would make equal.
        name = file.path.encode()
        total.update(len(name).to_bytes(4, "big") + name + (b"x" if file.executable else b"-") + content)
    return SnapshotRef(total.hexdigest(), len(snapshot.files), snapshot.size)


def lay_out(source: Path, files: Iterable[SnapshotFile], target: Path) -> Stamps:
    """Copy the taken snapshot to a working folder, and return what its files look like, for :func:`strays`.

    :raises StorageError: the target cannot be written.
    """
    make_folder(target)
    stamps: Stamps = {}
    try:
        for file in files:
            path = target / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with (source / file.path).open("rb") as reader, path.open("wb") as writer:
                while block := reader.read(_BLOCK):
                    writer.write(block)
            path.chmod(0o755 if file.executable else 0o644)
            info = path.stat()
            stamps[file.path] = (info.st_size, info.st_mtime_ns)
    except OSError as error:
        raise _cannot_write(target, error) from error
    return stamps


def strays(folder: Path, stamps: Stamps, mounted: Iterable[str]) -> tuple[str, ...]:
    """Return the files that a script made or changed in its working folder, sorted.

    AzureML keeps none of them. Bytecode that Python leaves behind does not count.

    :param mounted: names of sub-folders that lie elsewhere (``outputs``, ``logs``).
    """
    found: list[str] = []
    top = frozenset(mounted)
    for current, folders, names in os.walk(folder):
        below = os.path.relpath(current, folder)
        prefix = "" if below == "." else below + "/"
        folders[:] = [name for name in folders if name != "__pycache__" and not (prefix == "" and name in top)]
        for name in names:
            info = os.lstat(os.path.join(current, name))  # noqa: PTH118 - a Path per file doubles the time
            if stamps.get(prefix + name) != (info.st_size, info.st_mtime_ns):
                found.append(prefix + name)
    return tuple(sorted(found))


def prune(folder: Path, keep: Iterable[str]) -> None:
    """Remove everything below a working folder but the files of these paths; the folder too when nothing is kept."""
    kept = frozenset(keep)
    for current, folders, names in os.walk(folder, topdown=False):
        below = os.path.relpath(current, folder)
        prefix = "" if below == "." else below + "/"
        with contextlib.suppress(OSError):  # what is not the user's stays, and was warned of
            for name in names:
                if prefix + name not in kept:
                    os.unlink(os.path.join(current, name))  # noqa: PTH108, PTH118 - as above
            for name in folders:
                if os.path.islink(os.path.join(current, name)) and prefix + name not in kept:  # noqa: PTH114, PTH118
                    os.unlink(os.path.join(current, name))  # noqa: PTH108, PTH118
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(current)  # noqa: PTH106


def _copy(file: SnapshotFile, target: Path) -> bytes:
    """Copy one file and return the sha256 of its bytes."""
    digest = hashlib.sha256()
    try:
        reader = file.source.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(file.source)) from error
    with reader:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as writer:
                while block := reader.read(_BLOCK):
                    digest.update(block)
                    writer.write(block)
            target.chmod(0o755 if file.executable else 0o644)
        except OSError as error:
            raise _cannot_write(target, error) from error
    return digest.digest()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; an existing one is fine.

    :raises StorageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write: {error.strerror or error}",
        where=str(path),
        hint="Free some space, or choose another place with --runs-dir.",
    )

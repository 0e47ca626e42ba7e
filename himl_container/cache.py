"""The cache: one folder, safe for several processes at once and for a kill at any moment.

::

    <cache>/blobs/sha256/<hex>      layer tars, named by their digest
    <cache>/layers/<key>.json       layer key -> digest, size, entries
    <cache>/wheels/<sha256>/<name>  wheels that were built from source distributions
    <cache>/interpreters/<key>/     laid-out interpreters (for bytecode, wheels)
    <cache>/memo/<kind>/<key>.json  results of pure functions of file bytes
    <cache>/builds/<project>.json   what the last builds were made from (``explain``)
    <cache>/tmp/                    work in progress; anything here may be removed when no process holds its lock

Nothing is ever written under its final name: it is written below ``tmp`` and renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from himl_container.errors import StorageError


class Cache:
    """The cache folder. Creating the object touches nothing; folders appear when they are needed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, *parts: str) -> Path:
        """Return a folder of the cache, created when it is missing.

        :raises StorageError: it cannot be created.
        """
        path = self.root.joinpath(*parts)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(path, error) from error
        return path

    def blob(self, digest: str) -> Path:
        """Where the blob of a digest (``sha256:<hex>``) lies or would lie."""
        algorithm, _, value = digest.partition(":")
        return self.root / "blobs" / algorithm / value

    def has(self, *parts: str) -> bool:
        """Whether something is kept under ``parts``, sound or damaged."""
        return self.root.joinpath(*parts).is_file()

    def read_json(self, *parts: str) -> Any:
        """Return the JSON value kept under ``parts``, or None where there is none or where it is damaged."""
        try:
            # Not by Path.joinpath, which takes longer than opening a file: a build reads hundreds of these.
            with open(os.path.join(self.root, *parts), "rb") as file:  # noqa: PTH118
                return json.loads(file.read())
        except (OSError, ValueError):
            return None

    def write_json(self, value: Any, *parts: str) -> None:
        """Keep a JSON value under ``parts``, whole or not at all."""
        text = json.dumps(value, sort_keys=True, ensure_ascii=False)  # indented, it would take ten times as long
        target = self.folder(*parts[:-1]) / parts[-1]
        with self.new_file() as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
            os.replace(temporary, target)

    @contextlib.contextmanager
    def new_file(self) -> Iterator[Path]:
        """Yield the path of a new empty file below ``tmp``; it is removed at the end unless it was renamed away."""
        import tempfile

        with self._storage():
            handle, name = tempfile.mkstemp(dir=self.folder("tmp"))
            os.close(handle)
            Path(name).chmod(0o644)
            try:
                yield Path(name)
            finally:
                Path(name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[Path]:
        """Yield a new empty folder below ``tmp``, removed at the end unless it was renamed away."""
        import shutil
        import tempfile

        with self._storage():
            name = tempfile.mkdtemp(dir=self.folder("tmp"))
            Path(name).chmod(0o755)
            try:
                yield Path(name)
            finally:
                try:
                    shutil.rmtree(name, ignore_errors=True)
                except KeyboardInterrupt:  # it came in the middle of this
                    shutil.rmtree(name, ignore_errors=True)
                    raise

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """Hold the named lock; waits for another process that holds it. Released by the kernel when a process dies.

        Yields whether it had to wait: what another one did meanwhile may be what is about to be done.
        """
        import fcntl

        path = self.folder("locks") / name
        with open(path, "w") as file:
            waited = False
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                fcntl.flock(file, fcntl.LOCK_EX)
            yield waited

    @contextlib.contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _STORAGE_ERRNOS:
                raise _cannot_write(Path(error.filename or self.root), error) from error
            raise


_STORAGE_ERRNOS = {13, 28, 30, 122}  # EACCES, ENOSPC, EROFS, EDQUOT


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write: {error.strerror or error}",
        where=str(path),
        hint="Free some space ('himl-container cache prune') or choose another folder with --cache-dir.",
    )

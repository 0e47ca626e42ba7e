"""Several processes of this machine that want to change the same file or folder, one after the other."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from himl_container.errors import StorageError


@contextlib.contextmanager
def one_at_a_time(path: Path, purpose: str) -> Iterator[None]:
    """Keep other processes that want the same of a path waiting, until this one leaves the context.

    A cache that cannot be written has no locks, and is no reason not to go on.

    :param path: need not exist; two names of one place (a link) are one. :param purpose: a part of the lock's name.
    """
    from himl_container.azureml.workspace_registry import default_cache

    key = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(StorageError, OSError):
            stack.enter_context(default_cache().lock(f"{purpose}-{key}"))
        yield

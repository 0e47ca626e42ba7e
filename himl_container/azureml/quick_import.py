"""The AzureML SDK, imported without what a submission does not use.

``import azureml.core`` brings in an HTTP client for asyncio, a client of Docker with SSH, and numpy: about a third of
its time. All three are optional to it or used by functions that are not called here. Only for processes of our own
command line: in a user's script the SDK is imported as it is.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

_OPTIONAL = ("aiohttp", "numpy")
"""The SDK catches that they cannot be imported: ``_vendor/azure_storage/blob/_shared/authentication.py``,
``core/_metrics.py``."""
_LATER = ("docker",)
"""Imported whole (``_model_management/_util.py``), and used when a model is deployed to a local service."""


def import_sdk() -> ModuleType:
    """Return ``azureml.core``."""
    if "azureml.core" in sys.modules:
        return sys.modules["azureml.core"]
    with _left_out():
        # What a submission imports when it is under way would come without the exceptions above.
        importlib.import_module("azureml._run_impl.run_history_facade")
        return importlib.import_module("azureml.core")


@contextlib.contextmanager
def _left_out() -> Iterator[None]:
    absent = [name for name in _OPTIONAL if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # the import system's own way to say "cannot be imported"
    finder = _LaterFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in absent:
            if sys.modules.get(name, False) is None:
                del sys.modules[name]


class _LaterFinder(importlib.abc.MetaPathFinder):
    """Gives a module that is loaded when something of it is asked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec that loads later, for the modules that may."""
        if fullname not in _LATER:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if found is not None and found.loader is not None:
            found.loader = importlib.util.LazyLoader(found.loader)
        return found

"""The AzureML SDK, imported without what a submission does not use.

``import azureml.core`` brings in an HTTP client for asyncio, a client of Docker with SSH, and numpy: a quarter of
its time. All three are optional to it or used by functions that are not called here. A user's script that submits
itself keeps numpy, whose numbers it may log to the run afterwards; any other process imports the SDK as it is.
"""

from __future__ import annotations

import contextlib
import gc
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


IN_A_SCRIPT = ("aiohttp",)
"""What is left out where the process is a user's."""


def import_sdk(optional: Sequence[str] | None = None) -> ModuleType:
    """Return ``azureml.core``.

    :param optional: modules that are left out where they were not imported before. None: as many as can be in our own
        command line, and nothing in any other process.
    """
    if optional is None:
        optional = _OPTIONAL if is_our_command() else ()
    if "azureml.core" in sys.modules or not optional:
        return importlib.import_module("azureml.core")
    with _left_out(optional), _without_collection():
        # What a submission imports when it is under way would come without the exceptions above.
        importlib.import_module("azureml._run_impl.run_history_facade")
        return importlib.import_module("azureml.core")


def is_our_command() -> bool:
    """Whether this process is our command line, and nobody else's script, notebook or test."""
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None) or ""
    file = getattr(main, "__file__", None) or ""
    return name.startswith("himl_container.") or file.replace("\\", "/").rpartition("/")[2] == "himl-container"


@contextlib.contextmanager
def _left_out(optional: Sequence[str]) -> Iterator[None]:
    absent = [name for name in optional if name not in sys.modules]
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


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Look for no garbage among 2,000 modules, of which none goes away: a fourteenth of the import's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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

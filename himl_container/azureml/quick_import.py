"""The AzureML SDK, imported without what a submission does not use.

``import azureml.core`` brings in an HTTP client for asyncio, a client of Docker with SSH, numpy, and clients of Azure's
resources and storage: half of its time. All of them are optional to it or used by functions that are rarely called. A
user's script that submits itself keeps numpy, whose numbers it may log to the run afterwards; any other process imports
the SDK as it is.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

from himl_container.azureml.later import imported_later

_OPTIONAL = ("aiohttp", "numpy")
"""The SDK catches that they cannot be imported: ``_vendor/azure_storage/blob/_shared/authentication.py``,
``core/_metrics.py``."""
_LATER = ("docker",)
"""Imported whole (``_model_management/_util.py``), and used when a model is deployed to a local service."""
_CALLED_LATER = (
    "azure.mgmt.keyvault",
    "azure.mgmt.resource",
    "azure.mgmt.storage",
    "azureml._vendor.azure_resources",
    "azureml._vendor.azure_storage.blob",
    "azureml._vendor.azure_storage.fileshare",
)
"""Clients that are made when a workspace is created (``_workspace/_utils.py``, ``_arm_deployment_orchestrator.py``,
``_project/_commands.py``), or when files travel (``_file_utils/file_utils.py``, ``_run_impl/file_watcher.py``,
``_history/utils/_hdi_wasb_utils.py``, ``data/azure_storage_datastore.py``)."""

_SUBSCRIPTIONS = "azure.mgmt.resource"
"""Of this the login uses one client (``core/authentication.py``), once for each workspace that is opened."""
_OTHER_CLIENTS = tuple(
    f"{_SUBSCRIPTIONS}.{name}"
    for name in ("databoundaries", "features", "links", "locks", "managedapplications", "policy", "resources")
)

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
        sdk = importlib.import_module("azureml.core")
    with imported_later((), _OTHER_CLIENTS):
        importlib.import_module(_SUBSCRIPTIONS)
    return sdk


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
    try:
        with imported_later(_LATER, _CALLED_LATER):
            yield
    finally:
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

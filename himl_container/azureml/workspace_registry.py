"""The container registry that belongs to a workspace.

Its name never changes while the workspace exists, and asking for it takes several requests, so it is kept on disk by
the workspace's own id, which is new for a new workspace of the same name.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from himl_container.azureml.failures import WrongValue
from himl_container.azureml.retry import retried
from himl_container.azureml.service_failures import explained
from himl_container.cache import Cache
from himl_container.errors import StorageError

if TYPE_CHECKING:
    from azureml.core import Workspace

_NAME = re.compile(r"[A-Za-z0-9]{5,50}\Z")
_PUBLIC_CLOUD = ".azurecr.io"


def registry_of(workspace: Workspace, cache: Cache | None = None) -> str:
    """Return the address of the workspace's registry (``NAME.azurecr.io``).

    :param cache: where it is kept; by default that of the settings where none are given.
    :raises WrongValue: the workspace has none yet: AzureML makes it when it first builds an image itself.
    :raises AzureMLError: AzureML does not answer.
    """
    cache = cache or default_cache()
    key = workspace_key(workspace)
    kept = cache.read_json("memo", "workspace-registry", f"{key}.json")
    if isinstance(kept, str):
        return kept
    with explained("the workspace's registry"):
        resource = retried("asking for the workspace's registry", lambda: _resource(workspace))
    name = resource.rpartition("/")[2]
    if not _NAME.match(name):
        raise WrongValue(
            f"the workspace {workspace.name} has no container registry",
            hint="Attach one in the Azure portal, or set 'registry' to a registry that the cluster can pull from.",
        )
    found = f"{name.lower()}.{_domain(workspace)}"
    with contextlib.suppress(StorageError):  # then it is asked for again
        cache.write_json(found, "memo", "workspace-registry", f"{key}.json")
    return found


def workspace_key(workspace: Workspace) -> str:
    """Return a text for a file name that no other workspace has, an earlier one of the same name included."""
    import hashlib

    parts = (workspace.subscription_id, workspace.resource_group, workspace.name, workspace._workspace_id)
    return hashlib.sha256("\n".join(str(part) for part in parts).encode()).hexdigest()[:32]


def default_cache() -> Cache:
    """Return the cache of this user."""
    import os
    from pathlib import Path

    from himl_container.settings import default_cache_dir

    folder = os.environ.get("HIML_CONTAINER_CACHE_DIR", "")
    return Cache(Path(folder) if folder else default_cache_dir())


def _resource(workspace: Workspace) -> str:
    details: dict[str, Any] = workspace.get_details()
    return str(details.get("containerRegistry") or "")


def _domain(workspace: Workspace) -> str:
    """Return where the registries of the workspace's cloud are (``azurecr.io``)."""
    suffixes = getattr(getattr(getattr(workspace, "_auth", None), "_cloud_type", None), "suffixes", None)
    return str(getattr(suffixes, "acr_login_server_endpoint", None) or _PUBLIC_CLOUD).lstrip(".")

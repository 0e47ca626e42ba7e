"""Azure's library of blob storage, which is there twice."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def blob_library() -> Any:
    """Return ``azure.storage.blob``, or the older copy that azureml-core brings along, for jobs that have only that.

    Both have what is used here, under the same names.
    """
    try:
        return import_module("azure.storage.blob")
    except ImportError:
        return import_module("azureml._vendor.azure_storage.blob")

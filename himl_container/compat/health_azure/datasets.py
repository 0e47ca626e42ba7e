"""hi-ml's module of datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from health_azure._lazy import exports

if TYPE_CHECKING:
    from himl_container.azureml.datasets import (
        DatasetConfig,
        convert_himl_to_azureml_datasets,
        create_dataset_configs,
        get_datastore,
        get_or_create_dataset,
    )

_PLACES = {
    "himl_container.azureml.datasets": (
        "DatasetConfig",
        "convert_himl_to_azureml_datasets",
        "create_dataset_configs",
        "get_datastore",
        "get_or_create_dataset",
    ),
}

__all__ = [
    "DatasetConfig",
    "convert_himl_to_azureml_datasets",
    "create_dataset_configs",
    "get_datastore",
    "get_or_create_dataset",
]

__getattr__, __dir__ = exports(__name__, _PLACES)

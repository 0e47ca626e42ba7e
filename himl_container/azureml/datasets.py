"""Datasets of runs: folders of blob storage that AzureML knows by a name.

What a script's author wrote (:class:`DatasetConfig`) becomes what the SDK submits. The room that finds the dataset, or
makes it, is :mod:`himl_container.azureml.dataset_lookup`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.dataset_lookup import (
    folder_of,
    folder_tags,
    get_datastore,
    get_or_create_dataset,
    registered_name,
)
from himl_container.azureml.failures import WrongValue

if TYPE_CHECKING:
    from azureml.core import Workspace
    from azureml.data import OutputFileDatasetConfig
    from azureml.data.dataset_consumption_config import DatasetConsumptionConfig

__all__ = [
    "DatasetConfig",
    "convert_himl_to_azureml_datasets",
    "create_dataset_configs",
    "get_datastore",
    "get_or_create_dataset",
    "input_key",
    "output_key",
]

_log = logging.getLogger(__name__)


@dataclass
class DatasetConfig:
    """A dataset that a run reads or writes.

    :param name: the name under which the dataset is registered, which is also its folder in the datastore. Blanks
        around it are taken away. A slash in it makes a folder in a folder; one at its end means nothing.
    :param datastore: where the folder is; empty for the workspace's default datastore.
    :param version: which version of an input; None for the latest one. An output always makes a new version.
    :param use_mounting: whether files are read or written over the network when they are used, or all together before
        and after the run. None: an input is downloaded, an output mounted.
    :param target_folder: where an input is on the cluster's machine; empty for a folder that AzureML chooses.
    :param local_folder: where the dataset is on this machine; for runs that are not in AzureML.
    :raises WrongValue: the name is empty.
    """

    name: str
    datastore: str = ""
    version: int | None = None
    use_mounting: bool | None = None
    target_folder: str | Path = ""
    local_folder: Path | None = None

    def __post_init__(self) -> None:
        self.name = self.name.strip()
        if not self.name:
            raise WrongValue("The name of the dataset must be a non-empty string.")
        if self.local_folder is not None:
            self.local_folder = Path(self.local_folder)

    @property
    def registered_name(self) -> str:
        """The name under which AzureML has the dataset: without slashes (``foo/`` and ``foo`` are one dataset)."""
        return registered_name(self.name)

    def to_input_dataset(self, workspace: Workspace, dataset_index: int) -> DatasetConsumptionConfig:
        """Return what makes the dataset an input of a run, named ``INPUT_<dataset_index>``.

        A dataset that does not exist is made of the folder of its name (:func:`get_or_create_dataset`).

        :raises WrongValue: the dataset or its version does not exist and cannot be made, or is a table.
        """
        dataset = get_or_create_dataset(workspace, self.datastore, self.name, self.version)
        if not hasattr(dataset, "as_mount"):
            raise WrongValue(
                f"The dataset '{self.name}' is a table, and not a dataset of files.",
                hint="Only datasets of files can be inputs; register the files under another name.",
            )
        named = dataset.as_named_input(input_key(dataset_index))
        place = str(self.target_folder) or None
        if self.use_mounting:
            how, result = "mounted", named.as_mount(place)
        else:
            how, result = "downloaded", named.as_download(place)
        shown = place or "a folder that AzureML chooses"
        _log.info("In AzureML, input dataset %d ('%s') will be %s at %s.", dataset_index, self.name, how, shown)
        return result

    def to_output_dataset(self, workspace: Workspace, dataset_index: int) -> OutputFileDatasetConfig:
        """Return what makes the dataset an output of a run, named ``OUTPUT_<dataset_index>``.

        Files go to the folder of the dataset's name; when the run has completed, it is registered under that name.

        :raises WrongValue: the datastore does not exist, or a target folder is set.
        """
        if str(self.target_folder):
            raise WrongValue("Output datasets can't have a target_folder set.", where=f"dataset '{self.name}'")
        folder = folder_of(self.name)
        from azureml.data import OutputFileDatasetConfig

        datastore = get_datastore(workspace, self.datastore)
        config = OutputFileDatasetConfig(name=output_key(dataset_index), destination=(datastore, folder))
        if self.use_mounting is None or self.use_mounting:
            how, result = "written while the run lasts (mounted)", config.as_mount()
        else:
            how, result = "uploaded when the run has ended", config.as_upload()
        _log.info("In AzureML, output dataset %d ('%s') will be %s.", dataset_index, self.name, how)
        return result.register_on_complete(name=self.registered_name, tags=folder_tags(self.name))


def input_key(index: int) -> str:
    """Return the name by which a run finds its input dataset."""
    return f"INPUT_{index}"


def output_key(index: int) -> str:
    """Return the name by which a run finds its output dataset."""
    return f"OUTPUT_{index}"


def create_dataset_configs(
    datasets: Sequence[str | DatasetConfig] | None, default_datastore: str = ""
) -> list[DatasetConfig]:
    """Return a list in which names have become :class:`DatasetConfig` objects in the default datastore.

    What is a DatasetConfig already keeps its own datastore, an empty one too: that means the workspace's default.

    :raises WrongValue: a name is empty, or there is a name where a list of them is wanted.
    """
    if isinstance(datasets, (str, DatasetConfig)):
        raise WrongValue(f"Datasets are given as a list, and not as {datasets!r}.")
    return [
        DatasetConfig(name=item, datastore=default_datastore) if isinstance(item, str) else item
        for item in datasets or ()
    ]


def convert_himl_to_azureml_datasets(
    cleaned_input_datasets: Sequence[DatasetConfig],
    cleaned_output_datasets: Sequence[DatasetConfig],
    workspace: Workspace,
) -> tuple[dict[str, DatasetConsumptionConfig], dict[str, OutputFileDatasetConfig]]:
    """Return a run's inputs and outputs by the names under which it finds them (``INPUT_0``, ``OUTPUT_0``, ...).

    Everything that can be checked without the workspace is checked first.

    :raises WrongValue: an input is there twice in one version, or an output twice; or what the parts raise.
    """
    seen_in = [(item.registered_name, item.version) for item in cleaned_input_datasets]
    _refuse_twice(seen_in, [item.name for item in cleaned_input_datasets], "input")
    seen_out = [(item.registered_name, item.datastore) for item in cleaned_output_datasets]
    _refuse_twice(seen_out, [item.name for item in cleaned_output_datasets], "output")
    inputs = {
        input_key(index): item.to_input_dataset(workspace, index) for index, item in enumerate(cleaned_input_datasets)
    }
    outputs = {
        output_key(index): item.to_output_dataset(workspace, index)
        for index, item in enumerate(cleaned_output_datasets)
    }
    return inputs, outputs


def _refuse_twice(seen: Sequence[object], names: Sequence[str], kind: str) -> None:
    for index, item in enumerate(seen):
        if item in seen[:index]:
            raise WrongValue(f"There is already an {kind} dataset with name '{names[index]}' set up?")

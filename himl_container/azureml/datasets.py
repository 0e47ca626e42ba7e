"""Datasets of runs: folders of blob storage that AzureML knows by a name.

An input that is not registered is registered here, from the folder of its name. That happens when the service says that
there is no such dataset, and on no other answer: a lookup that failed says nothing about what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himl_container.azureml.failures import WrongValue

if TYPE_CHECKING:
    from azureml.core import Workspace
    from azureml.data import FileDataset, OutputFileDatasetConfig
    from azureml.data.abstract_datastore import AbstractDatastore
    from azureml.data.dataset_consumption_config import DatasetConsumptionConfig

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
        """The name without slashes at its ends: ``foo/`` and ``foo`` are one dataset."""
        return self.name.strip("/")

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
        from azureml.data import OutputFileDatasetConfig

        if str(self.target_folder):
            raise WrongValue("Output datasets can't have a target_folder set.", where=f"dataset '{self.name}'")
        folder = folder_of(self.name)
        datastore = get_datastore(workspace, self.datastore)
        config = OutputFileDatasetConfig(name=output_key(dataset_index), destination=(datastore, folder))
        if self.use_mounting is None or self.use_mounting:
            how, result = "written while the run lasts (mounted)", config.as_mount()
        else:
            how, result = "uploaded when the run has ended", config.as_upload()
        _log.info("In AzureML, output dataset %d ('%s') will be %s.", dataset_index, self.name, how)
        return result.register_on_complete(name=self.registered_name)


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

    :raises WrongValue: a name is empty.
    """
    return [
        DatasetConfig(name=item, datastore=default_datastore) if isinstance(item, str) else item
        for item in datasets or ()
    ]


def get_datastore(workspace: Workspace, datastore_name: str) -> AbstractDatastore:
    """Return a datastore, with the credentials that the workspace has for it.

    :param datastore_name: empty for the workspace's default datastore, or its only one.
    :raises WrongValue: there is no such datastore, or no name and no default.
    """
    from himl_container.azureml.retry import retried

    if not datastore_name:
        return _default_datastore(workspace)
    from azureml.core import Datastore

    try:
        return retried(f"get the datastore '{datastore_name}'", lambda: Datastore.get(workspace, datastore_name))
    except Exception as error:
        if not _is_absent(error):
            raise
        known = _datastore_names(workspace)
        raise WrongValue(
            f"Datastore {datastore_name} was not found in the workspace. Existing datastores: {known}"
        ) from error


def get_or_create_dataset(
    workspace: Workspace, datastore_name: str, dataset_name: str, version: int | None = None
) -> FileDataset:
    """Return the dataset of a name; where there is none, make it of the folder of that name, and register it.

    :param datastore_name: where the folder is, should it be needed; empty for the workspace's default datastore.
    :param version: which version; None for the latest one. A dataset is never made to get a version.
    :raises WrongValue: no name, or an unusable one; no such version; neither a dataset nor files below that folder.
    """
    if not dataset_name.strip():
        raise WrongValue("No dataset name provided.")
    folder = folder_of(dataset_name)
    name = folder.rstrip("/")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
        raise WrongValue(
            f"{version!r} is not a version of a dataset.", where=f"dataset '{name}'", hint="Versions are 1, 2, 3, ..."
        )
    found = _registered(workspace, name, version)
    if found is not None:
        return found
    if version is not None:
        raise WrongValue(
            f"The dataset '{name}' has no version {version} in the workspace, or does not exist.",
            hint="Leave the version away to get the latest one, or to make the dataset of a folder of its name.",
        )
    return _created(workspace, get_datastore(workspace, datastore_name), name, folder)


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


def folder_of(dataset_name: str) -> str:
    """Return the folder of a dataset in its datastore, with a slash at its end.

    Without that slash, ``foo`` would also be the beginning of ``foo_bar``. A ``*`` would be read as a pattern.

    :raises WrongValue: the name is no path below the datastore's root.
    """
    name = dataset_name.strip().strip("/")
    parts = name.split("/")
    bad = [character for character in name if character in "*\\" or not character.isprintable()]
    if not name or bad or any(part in {"", ".", ".."} for part in parts):
        raise WrongValue(
            f"{dataset_name!r} cannot be the name of a dataset.",
            hint="A name is a folder in the datastore: parts that are not empty, '.' or '..', without '*' and '\\'.",
        )
    return f"{name}/"


def _refuse_twice(seen: Sequence[object], names: Sequence[str], kind: str) -> None:
    for index, item in enumerate(seen):
        if item in seen[:index]:
            raise WrongValue(f"There is already an {kind} dataset with name '{names[index]}' set up?")


def _default_datastore(workspace: Workspace) -> AbstractDatastore:
    from himl_container.azureml.retry import retried

    try:
        found = retried("get the workspace's default datastore", workspace.get_default_datastore)
    except Exception as error:
        if not _is_absent(error):
            raise
        found = None
    if found is not None:
        return found
    known = _datastore_names(workspace)
    if len(known) == 1:
        return get_datastore(workspace, known[0])
    raise WrongValue(
        "No datastore name provided. This is only possible if the workspace has a default datastore, or a single "
        f"datastore. However, it has these: {known}"
    )


def _datastore_names(workspace: Workspace) -> list[str]:
    from himl_container.azureml.retry import retried

    return sorted(retried("list the workspace's datastores", lambda: workspace.datastores))


def _registered(workspace: Workspace, name: str, version: int | None) -> FileDataset | None:
    """Return a registered dataset, or None where the service says that there is none."""
    from azureml.core import Dataset

    from himl_container.azureml.retry import retried

    wanted: Any = "latest" if version is None else version
    try:
        return retried(
            f"look for the dataset '{name}'", lambda: Dataset.get_by_name(workspace, name=name, version=wanted)
        )
    except Exception as error:
        if _is_absent(error):
            return None
        raise


def _created(workspace: Workspace, datastore: AbstractDatastore, name: str, folder: str) -> FileDataset:
    from azureml.core import Dataset
    from azureml.exceptions import UserErrorException

    from himl_container.azureml.retry import retried

    dataset = Dataset.File.from_files(path=[(datastore, folder)], validate=False)
    if not retried(f"look into the folder '{folder}'", lambda: _has_files(datastore, dataset, folder)):
        raise WrongValue(
            f"There is no dataset '{name}', and it cannot be made: no file is below '{folder}' in the datastore "
            f"'{datastore.name}'.",
            hint="Check the name and the datastore, or upload the files first (himl_container.upload_to_datastore).",
        )
    _log.info("Dataset '%s' is not registered; it is made of '%s' in '%s'.", name, folder, datastore.name)
    try:
        return retried(f"register the dataset '{name}'", lambda: dataset.register(workspace, name=name))
    except UserErrorException:
        # Somebody else may have registered the name since we looked.
        found = _registered(workspace, name, None)
        if found is None:
            raise
        return found


def _has_files(datastore: AbstractDatastore, dataset: FileDataset, folder: str) -> bool:
    """Whether a file is below the folder.

    One request tells it of blobs that a key or a signature opens; else the SDK's native engine looks.
    """
    service = getattr(datastore, "blob_service", None)
    if service is not None and datastore.credential_type != "None":
        container = service.get_container_client(container=datastore.container_name)
        return any(True for _ in container.list_blobs(name_starts_with=folder, results_per_page=1))
    return bool(dataset.take(1).to_path())


def _is_absent(error: Exception) -> bool:
    """Whether the service said that a thing does not exist.

    The SDK keeps the status in the error's ``response`` for datastores. For datasets it makes a text of a 404, and of
    nothing else (``abstract_dataset.py``).
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status == 404 or str(getattr(error, "message", "")).startswith(_NO_SUCH_DATASET)


_NO_SUCH_DATASET = "Cannot find dataset registered with name"

"""Finding datastores and datasets in a workspace; making a dataset of a folder.

A dataset is registered from the folder of its name when the service says that there is none, and on no other answer: a
lookup that failed says nothing about what is there.

AzureML takes no slash in a dataset's name. The dataset of the folder ``a/b`` is therefore registered as ``a_b``, with a
tag that names the folder, so that it is never taken for the dataset of a folder that is called ``a_b``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from himl_container.azureml.failures import WrongValue

if TYPE_CHECKING:
    from azureml.core import Workspace
    from azureml.data import FileDataset
    from azureml.data.abstract_datastore import AbstractDatastore

_log = logging.getLogger(__name__)

FOLDER_TAG = "himl_folder"
"""Tag of a dataset whose folder has another name than the dataset."""

_NO_SUCH_DATASET = "Cannot find dataset registered with name"


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
        return retried(f"getting the datastore '{datastore_name}'", lambda: Datastore.get(workspace, datastore_name))
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
    found = _find(workspace, name, version)
    if found is not None:
        return found
    if version is not None:
        raise WrongValue(
            f"The dataset '{name}' has no version {version} in the workspace, or does not exist.",
            hint="Leave the version away to get the latest one, or to make the dataset of a folder of its name.",
        )
    return _created(workspace, get_datastore(workspace, datastore_name), name, folder)


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


def registered_name(dataset_name: str) -> str:
    """Return the name that a dataset gets when it is registered.

    :raises WrongValue: the name is no path below the datastore's root.
    """
    return folder_of(dataset_name).rstrip("/").replace("/", "_")


def folder_tags(dataset_name: str) -> dict[str, str] | None:
    """Return the tags that tell the folder of a dataset where its name does not; None where it does."""
    folder = folder_of(dataset_name).rstrip("/")
    return {FOLDER_TAG: folder} if "/" in folder else None


def _default_datastore(workspace: Workspace) -> AbstractDatastore:
    from himl_container.azureml.retry import retried

    try:
        found = retried("getting the workspace's default datastore", workspace.get_default_datastore)
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

    return sorted(retried("listing the workspace's datastores", lambda: workspace.datastores))


def _find(workspace: Workspace, name: str, version: int | None) -> FileDataset | None:
    """Return the dataset of a folder, or None where the service says that there is none."""
    found = _registered(workspace, name, version)
    if found is not None or "/" not in name:
        return found
    other = registered_name(name)
    found = _registered(workspace, other, version)
    if found is not None and (found.tags or {}).get(FOLDER_TAG) != name:
        raise WrongValue(
            f"The dataset '{other}' is not that of the folder '{name}', which would get the same name.",
            hint=f"Register the folder '{name}' under another name in AzureML, and use that name.",
        )
    return found


def _registered(workspace: Workspace, name: str, version: int | None) -> FileDataset | None:
    """Return what is registered under a name, or None where the service says that nothing is."""
    from azureml.core import Dataset

    from himl_container.azureml.retry import retried, status_of

    wanted: Any = "latest" if version is None else version
    try:
        return retried(
            f"looking for the dataset '{name}'", lambda: Dataset.get_by_name(workspace, name=name, version=wanted)
        )
    except Exception as error:
        # A name that a service takes for malformed is not registered with it either.
        if _is_absent(error) or ("/" in name and status_of(error) == 400):
            return None
        raise


def _created(workspace: Workspace, datastore: AbstractDatastore, name: str, folder: str) -> FileDataset:
    from azureml.core import Dataset
    from azureml.exceptions import UserErrorException

    from himl_container.azureml.retry import retried

    dataset = Dataset.File.from_files(path=[(datastore, folder)], validate=False)
    if not retried(f"looking into the folder '{folder}'", lambda: _has_files(datastore, dataset, folder)):
        raise WrongValue(
            f"There is no dataset '{name}', and it cannot be made: no file is below '{folder}' in the datastore "
            f"'{datastore.name}'.",
            hint="Check the name and the datastore, or upload the files first (himl_container.upload_to_datastore).",
        )
    _log.info("Dataset '%s' is not registered; it is made of '%s' in '%s'.", name, folder, datastore.name)
    try:
        return retried(
            f"registering the dataset '{name}'",
            lambda: dataset.register(workspace, name=registered_name(name), tags=folder_tags(name)),
        )
    except UserErrorException:
        # Somebody else may have registered the name since we looked.
        found = _find(workspace, name, None)
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
    try:
        return bool(dataset.take(1).to_path())
    except Exception as error:
        if "StreamAccess.NotFound" in str(error):  # the engine's code for a folder that is not there
            return False
        raise


def _is_absent(error: Exception) -> bool:
    """Whether the service said that a thing does not exist.

    The SDK keeps the status in the error's ``response`` for datastores. For datasets it makes a text of a 404, and of
    nothing else (``abstract_dataset.py``).
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status == 404 or str(getattr(error, "message", "")).startswith(_NO_SUCH_DATASET)

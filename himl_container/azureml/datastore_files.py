"""The files of a datastore of blobs: what there is, addresses that open it, and the client that uploads to it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from himl_container.azureml.failures import FailedAssertion, MissingKey, WrongValue
from himl_container.azureml.remote_files import RemoteFile, folders_of
from himl_container.azureml.retry import retried, status_of

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient
    from azureml.core import Workspace
    from azureml.data.azure_storage_datastore import AzureBlobDatastore

_LIFETIME = timedelta(days=1)
"""Of a signature that is made here; a new one is made when it has expired."""
_IN_ADDRESSES = "/~()*!.'"
_NOT_FOUND = 404


class BlobEntry(NamedTuple):
    """A blob of a container. :param size: in bytes."""

    name: str
    size: int


def blob_datastore(workspace: Workspace, datastore_name: str, action: str) -> AzureBlobDatastore:
    """Return a datastore of blobs, with its key or signature.

    :param action: ``download from`` or ``upload to``, for the message.
    :raises MissingKey: there is none of that name. :raises FailedAssertion: it is of another kind.
    :raises WrongValue: it has neither a key nor a signature.
    """
    from azureml.core import Datastore
    from azureml.data.azure_storage_datastore import AzureBlobDatastore

    try:
        found = retried(f"getting the datastore '{datastore_name}'", lambda: Datastore.get(workspace, datastore_name))
    except Exception as error:
        if status_of(error) != _NOT_FOUND:
            raise
        known = ", ".join(sorted(workspace.datastores))
        raise MissingKey(f"The workspace has no datastore '{datastore_name}'", hint=f"It has {known}.") from error
    if not isinstance(found, AzureBlobDatastore):
        raise FailedAssertion(
            f"Invalid datastore type. Can only {action} AzureBlobDatastore",
            where=f"datastore '{datastore_name}' ({type(found).__name__})",
        )
    if not found.account_key and not found.sas_token:
        raise WrongValue(
            f"The datastore '{datastore_name}' has neither an account key nor a signature.",
            hint="Register it with one of them, or use its files as a dataset.",
        )
    return found


def container_client(datastore: AzureBlobDatastore) -> ContainerClient:
    """Return a client of the datastore's container. It does not try again by itself: our callers do."""
    from himl_container.azureml.blob_library import blob_library

    credential = datastore.sas_token or {
        "account_name": str(datastore.account_name),
        "account_key": str(datastore.account_key),
    }
    client: ContainerClient = blob_library().ContainerClient(
        _account(datastore), str(datastore.container_name), credential=credential, retry_total=0, retry_connect=0
    )
    return client


def list_blobs(client: ContainerClient, prefix: str) -> list[BlobEntry]:
    """Return the blobs whose names begin with a prefix, without those that only stand for a folder.

    Programs that show blobs as files make empty blobs for folders: with a slash at the end, or with the folder's name.
    """

    def listed() -> list[BlobEntry]:
        return [BlobEntry(str(blob.name), int(blob.size)) for blob in client.list_blobs(name_starts_with=prefix)]

    found = retried(f"listing '{prefix}'", listed)
    folders = {folder for entry in found for folder in folders_of(entry.name)}
    return [entry for entry in found if not entry.name.endswith("/") and (entry.size or entry.name not in folders)]


def remote_files(datastore: AzureBlobDatastore, names: list[str]) -> list[RemoteFile]:
    """Return blobs with addresses that open them."""
    base = f"{_account(datastore)}/{quote(str(datastore.container_name))}"
    signature = _Signature(datastore)

    def address(name: str) -> str:
        return f"{base}/{quote(name, safe=_IN_ADDRESSES)}?{signature.current()}"

    return [RemoteFile(name, address(name), lambda name=name: address(name)) for name in names]  # type: ignore[misc]


class _Signature:
    """The signature of a datastore, or one that is made with its key and made again when it ends."""

    def __init__(self, datastore: AzureBlobDatastore) -> None:
        self._datastore = datastore
        self._value, self._end = "", datetime.min.replace(tzinfo=timezone.utc)

    def current(self) -> str:
        if self._datastore.sas_token:
            return str(self._datastore.sas_token).lstrip("?")
        now = datetime.now(timezone.utc)
        if now + _LIFETIME / 2 > self._end:
            self._end = now + _LIFETIME
            self._value = self._made()
        return self._value

    def _made(self) -> str:
        from himl_container.azureml.blob_library import blob_library

        library, store = blob_library(), self._datastore
        signature = library.generate_container_sas(
            str(store.account_name),
            str(store.container_name),
            account_key=str(store.account_key),
            permission=library.ContainerSasPermissions(read=True),
            expiry=self._end,
        )
        return str(signature)


def _account(datastore: AzureBlobDatastore) -> str:
    return f"https://{datastore.account_name}.blob.{datastore.endpoint or 'core.windows.net'}"

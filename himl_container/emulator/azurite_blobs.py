"""Blob storage behind the services: Azurite, by Azure's own client library."""

from __future__ import annotations

import contextlib
import datetime
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, ContainerClient, generate_blob_sas

from himl_container.emulator.blobs import Blob
from himl_container.emulator.installation import Installation
from himl_container.errors import StorageError

_CHUNK = 4 * 2**20

_RETRIES: Any = {"retry_total": 2, "initial_backoff": 0, "increment_base": 2, "random_jitter_range": 0}
"""Azurite closes connections that nobody has used for five seconds, sometimes just as a request is on its way. It is on
this machine, so two seconds until the second try are enough, and the 18 of the library would be for nothing."""


class AzuriteBlobs:
    """The storage account of an emulator, as :class:`himl_container.emulator.blobs.Blobs`.

    :param address: of Azurite, ``http://127.0.0.1:PORT``.
    """

    def __init__(self, installation: Installation, address: str) -> None:
        self._account, self._key = installation.workspace.storage_account, installation.storage_key
        self._host = installation.workspace.blob_host
        self._address = address
        # A proxy that the emulator's own environment names has nothing to do with its own child.
        transport = RequestsTransport(use_env_settings=False, connection_timeout=10, read_timeout=120)
        self._service = BlobServiceClient(
            f"{address}/{self._account}",
            credential={"account_name": self._account, "account_key": self._key},
            transport=transport,
            **_RETRIES,
            max_single_put_size=16 * 2**20,
            max_block_size=_CHUNK,
            max_chunk_get_size=_CHUNK,
            max_single_get_size=_CHUNK,
        )
        self._made: set[str] = set()
        self._lock = threading.Lock()

    def make_container(self, container: str) -> None:
        """Create a container; nothing happens where it exists."""
        with self._lock:
            if container in self._made:
                return
        with _failures(), contextlib.suppress(ResourceExistsError):
            self._service.create_container(container)
        with self._lock:
            self._made.add(container)

    def reach(self, container: str, signature: str = "") -> Literal["yes", "missing", "denied"]:
        """Find out whether a container can be listed, with the account's own key or with a signature."""
        client = self._service.get_container_client(container)
        if signature:
            transport = RequestsTransport(use_env_settings=False, connection_timeout=10, read_timeout=120)
            client = ContainerClient(
                f"{self._address}/{self._account}", container, credential=signature, transport=transport, **_RETRIES
            )
        try:
            with client, _failures(container):
                next(iter(client.list_blobs(results_per_page=1)), None)
        except FileNotFoundError:
            return "missing"
        except _DeniedError:
            return "denied"
        return "yes"

    def put(self, container: str, name: str, data: bytes | Path | Iterable[bytes]) -> None:
        """Store a blob, replacing one of the same name; a path or an iterable is streamed."""
        self.make_container(container)
        client = self._client(container, name)
        with _failures():
            if isinstance(data, Path):
                with data.open("rb") as file:
                    self._upload(client, file, data.stat().st_size)
            else:
                self._upload(client, data, len(data) if isinstance(data, bytes) else None)

    def append(self, container: str, name: str, data: bytes) -> None:
        """Append to an append blob, which is created when it is missing."""
        self.make_container(container)
        client = self._client(container, name)
        with _failures():
            for start in range(0, len(data), _CHUNK):
                part = data[start : start + _CHUNK]
                try:
                    client.append_block(part)
                except ResourceNotFoundError:
                    client.create_append_blob()
                    client.append_block(part)
            if not data and not client.exists():
                client.create_append_blob()

    def read(self, container: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Return a part of a blob, nothing beyond its end."""
        client = self._client(container, name)
        with _failures(name):
            size = client.get_blob_properties().size
            if start >= size or length == 0:
                return b""
            wanted = size - start if length is None else min(length, size - start)
            return bytes(client.download_blob(offset=start, length=wanted).readall())

    def stream(self, container: str, name: str) -> Iterator[bytes]:
        """Yield a blob's bytes."""
        with _failures(name):
            found = self._client(container, name).download_blob()
        return self._chunks(found, name)

    def stat(self, container: str, name: str) -> Blob | None:
        """Return what is known of a blob; None where there is none."""
        try:
            with _failures(name):
                found = self._client(container, name).get_blob_properties()
        except FileNotFoundError:
            return None
        return _blob(name, found)

    def list(self, container: str, prefix: str = "") -> Iterator[Blob]:
        """Yield the blobs whose names begin with ``prefix``, by name; none of a container that does not exist."""
        with contextlib.suppress(FileNotFoundError), _failures(container):
            for found in self._service.get_container_client(container).list_blobs(name_starts_with=prefix or None):
                yield _blob(found.name, found)

    def delete(self, container: str, name: str) -> None:
        """Delete a blob; nothing happens where there is none."""
        with contextlib.suppress(FileNotFoundError), _failures(name):
            self._client(container, name).delete_blob()

    def url(self, container: str, name: str) -> str:
        """Return the address of a blob, without a signature."""
        return f"https://{self._host}/{container}/{urllib.parse.quote(name, safe='/~')}"

    def signed_url(self, container: str, name: str, permission: str = "r", hours: float = 24) -> str:
        """Return the address of a blob with a shared access signature."""
        now = datetime.datetime.now(datetime.timezone.utc)
        signature = generate_blob_sas(
            self._account,
            container,
            name,
            account_key=self._key,
            permission=BlobSasPermissions.from_string(permission),
            start=now - datetime.timedelta(minutes=10),
            expiry=now + datetime.timedelta(hours=hours),
        )
        return f"{self.url(container, name)}?{signature}"

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    def _client(self, container: str, name: str) -> Any:
        return self._service.get_blob_client(container, name)

    @staticmethod
    def _upload(client: Any, data: Any, length: int | None) -> None:
        try:
            client.upload_blob(data, length=length, overwrite=True)
        except ResourceExistsError:
            # An append blob of that name: Azure wants it gone before a block blob may take its place.
            client.delete_blob()
            client.upload_blob(data, length=length, overwrite=True)

    @staticmethod
    def _chunks(found: Any, name: str) -> Iterator[bytes]:
        with _failures(name):
            yield from found.chunks()


class _DeniedError(StorageError):
    """A signature does not allow what was tried."""


def _blob(name: str, found: Any) -> Blob:
    digest = found.content_settings.content_md5 if found.content_settings else None
    return Blob(name, int(found.size), found.last_modified.timestamp(), bytes(digest or b""))


@contextlib.contextmanager
def _failures(name: str = "") -> Iterator[None]:
    """Turn the library's errors into ours."""
    try:
        yield
    except ResourceNotFoundError:
        raise FileNotFoundError(name) from None
    except ResourceExistsError:
        raise
    except AzureError as error:
        # The library's text may hold a signed address; its kind and the server's own code do not.
        code = getattr(error, "error_code", "") or type(error).__name__
        kind = _DeniedError if getattr(error, "status_code", None) in {401, 403} else StorageError
        raise kind(f"the blob storage refused a request: {code}", where=name) from None

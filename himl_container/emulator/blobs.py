"""Blob storage as the services and the compute use it: Azurite in the emulator, a dictionary in unit tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

RUNS_CONTAINER = "azureml"
"""Container of run artifacts, below ``ExperimentRun/dcid.<run id>/``, as AzureML keeps them."""

FILES_CONTAINER = "azureml-blobstore"
"""Container of the default datastore ``workspaceblobstore``; the real name ends in the workspace's id."""

SNAPSHOTS_CONTAINER = "snapshots"


@dataclass(frozen=True)
class Blob:
    """One blob. ``size`` in bytes, ``modified`` in seconds since the epoch; ``md5`` is empty where it is not known."""

    name: str
    size: int
    modified: float
    md5: bytes = b""


class Blobs(Protocol):
    """Containers of blobs. Every method raises :class:`himl_container.errors.StorageError` where the storage fails."""

    def make_container(self, container: str) -> None:
        """Create a container; nothing happens where it exists."""

    def reach(self, container: str, signature: str = "") -> Literal["yes", "missing", "denied"]:
        """Find out whether a container can be listed.

        :param signature: a shared access signature to do it with; empty for the account's own key.
        """

    def put(self, container: str, name: str, data: bytes | Path | Iterable[bytes]) -> None:
        """Store a blob, replacing one of the same name; a path or an iterable is streamed."""

    def append(self, container: str, name: str, data: bytes) -> None:
        """Append to an append blob, which is created when it is missing."""

    def read(self, container: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Return a part of a blob.

        :raises FileNotFoundError: there is none.
        """

    def stream(self, container: str, name: str) -> Iterator[bytes]:
        """Yield a blob's bytes.

        :raises FileNotFoundError: there is none.
        """

    def stat(self, container: str, name: str) -> Blob | None:
        """Return what is known of a blob; None where there is none."""

    def list(self, container: str, prefix: str = "") -> Iterator[Blob]:
        """Yield the blobs whose names begin with ``prefix``, by name; none of a container that does not exist."""

    def delete(self, container: str, name: str) -> None:
        """Delete a blob; nothing happens where there is none."""

    def url(self, container: str, name: str) -> str:
        """Return the address of a blob, without a signature (``https://<account>.blob.core.windows.net/...``)."""

    def signed_url(self, container: str, name: str, permission: str = "r", hours: float = 24) -> str:
        """Return the address of a blob with a shared access signature.

        :param permission: letters of Azure's: ``r`` read, ``c`` create, ``w`` write, ``a`` add, ``d`` delete.
        """

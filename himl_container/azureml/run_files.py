"""The files of a run, with addresses that open them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from himl_container.azureml.remote_files import RemoteFile
from himl_container.azureml.retry import retried

if TYPE_CHECKING:
    from azureml.core import Run

_ORIGIN = "ExperimentRun"


def files_of_run(run: Run, prefix: str = "") -> list[RemoteFile]:
    """Return the files of a run whose names begin with ``prefix``, sorted by name.

    One request tells names and addresses of up to a thousand files. The SDK's own artifacts client makes it; it is not
    public, but its public functions either ask for each file alone, or download at once and to names that they do not
    check.
    """
    container = _container(run)
    if not container:
        return []
    client = run._client.artifacts
    found = retried(
        f"listing the files of run {run.id}",
        lambda: client.get_files_by_artifact_prefix_id(f"{_ORIGIN}/{container}/"),
    )
    return [
        RemoteFile(name, address, functools.partial(_address, client, container, name))
        for name, address in sorted(found)
        if name.startswith(prefix)
    ]


def _address(client: Any, container: str, name: str) -> str:
    return str(retried(f"getting the address of {name}", lambda: client.get_file_uri(_ORIGIN, container, name)))


def _container(run: Run) -> str:
    return str(getattr(run, "_container", None) or "")

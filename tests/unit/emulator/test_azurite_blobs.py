"""The blob storage's client, before a server that hangs up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.core.pipeline.transport import HttpTransport

from himl_container.emulator.azurite_blobs import AzuriteBlobs
from himl_container.emulator.installation import open_installation
from himl_container.errors import StorageError


@pytest.fixture
def hangs_up() -> Iterator[str]:
    """The address of a server that closes every connection as soon as it is asked."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def test_a_connection_that_is_closed_costs_a_moment(
    hangs_up: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Azurite closes idle ones, and a request may meet that: the next try is not a quarter of a minute later."""
    waited: list[float] = []
    monkeypatch.setattr(HttpTransport, "sleep", lambda _self, seconds: waited.append(seconds))
    blobs = AzuriteBlobs(open_installation(tmp_path, workspace_name="ws", resource_group="group"), hangs_up)
    try:
        with pytest.raises(StorageError):
            blobs.stat("azureml", "x")
    finally:
        blobs.close()
    assert len(waited) == 2
    assert max(waited) <= 5

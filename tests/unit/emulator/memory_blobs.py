"""Blob storage in a dictionary, for tests of services without Azurite."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from himl_container.emulator.blobs import Blob

ACCOUNT = "https://account.blob.core.windows.net"
SIGNATURE = "sv=1&sig=good"
"""The only shared access signature that opens a container."""


class MemoryBlobs:
    """As :class:`himl_container.emulator.blobs.Blobs`; ``content`` is there to be looked at."""

    def __init__(self) -> None:
        self.content: dict[str, dict[str, bytes]] = {}
        self._modified: dict[tuple[str, str], float] = {}
        self._lock = threading.RLock()

    def make_container(self, container: str) -> None:
        with self._lock:
            self.content.setdefault(container, {})

    def reach(self, container: str, signature: str = "") -> Literal["yes", "missing", "denied"]:
        if container not in self.content:
            return "missing"
        return "yes" if signature in ("", SIGNATURE) else "denied"

    def put(self, container: str, name: str, data: bytes | Path | Iterable[bytes]) -> None:
        if isinstance(data, Path):
            data = data.read_bytes()
        elif not isinstance(data, bytes):
            data = b"".join(data)
        with self._lock:
            self.make_container(container)
            self.content[container][name] = data
            self._modified[container, name] = time.time()

    def append(self, container: str, name: str, data: bytes) -> None:
        with self._lock:
            self.make_container(container)
            self.put(container, name, self.content[container].get(name, b"") + data)

    def read(self, container: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        with self._lock:
            data = self.content.get(container, {}).get(name)
        if data is None:
            raise FileNotFoundError(name)
        return data[start:] if length is None else data[start : start + length]

    def stream(self, container: str, name: str) -> Iterator[bytes]:
        data = self.read(container, name)
        return (data[start : start + 65536] for start in range(0, len(data), 65536))

    def stat(self, container: str, name: str) -> Blob | None:
        with self._lock:
            data = self.content.get(container, {}).get(name)
            return None if data is None else Blob(name, len(data), self._modified[container, name])

    def list(self, container: str, prefix: str = "") -> Iterator[Blob]:
        with self._lock:
            names = sorted(name for name in self.content.get(container, {}) if name.startswith(prefix))
            found = [self.stat(container, name) for name in names]
        return (blob for blob in found if blob is not None)

    def delete(self, container: str, name: str) -> None:
        with self._lock:
            self.content.get(container, {}).pop(name, None)

    def url(self, container: str, name: str) -> str:
        return f"{ACCOUNT}/{container}/{name}"

    def signed_url(self, container: str, name: str, permission: str = "r", hours: float = 24) -> str:
        return f"{self.url(container, name)}?sp={permission}&hours={hours:g}&sig=test"

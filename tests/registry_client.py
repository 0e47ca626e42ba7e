"""What tests of the registry client share: a client that does not sleep, and content of a given size."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from himl_container.progress import SilentReporter
from himl_container.registry.client import RegistryClient
from himl_container.registry.credentials import Credentials
from himl_container.registry.model import (
    OCI_CONFIG,
    OCI_MANIFEST,
    OCI_TAR_GZIP,
    Descriptor,
    canonical_json,
    sha256_of,
)
from himl_container.registry.retries import Patience


@dataclass
class Told(SilentReporter):
    """A reporter that keeps the lines, and a pause that keeps its lengths instead of waiting.

    :param slowly: the part of each pause that is waited all the same. Where several send one blob at once, the registry
        answers 500 until the link that it writes anew is whole; six tries without a pause may be over before that.
    """

    lines: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    slowly: float = 0.0

    def info(self, text: str) -> None:
        """Keep."""
        self.lines.append(text)

    def warn(self, text: str) -> None:
        """Keep."""
        self.lines.append(text)

    @property
    def patience(self) -> Patience:
        """Tells and pauses here; the time is always the start of 2026."""
        return Patience(self, clock=lambda: 1767225600.0, sleep=self._pause, chance=lambda: 1.0)

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        time.sleep(seconds * self.slowly)


def client(
    name: str, told: Told | None = None, *, environ: Mapping[str, str] | None = None, chunk: int = 32 << 20
) -> RegistryClient:
    """Return a client without any login, proxy or certificate of this machine, that does not wait."""
    told = told or Told()
    return RegistryClient.connect(
        name, credentials=Credentials(()), environ=environ or {}, patience=told.patience, chunk=chunk
    )


def layer_file(path: Path, size: int, seed: int = 0) -> Descriptor:
    """Write a file that does not compress; the same for the same size and seed."""
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return Descriptor(OCI_TAR_GZIP, sha256_of(data), size)


def file_digest(path: Path) -> str:
    """Return the digest of a file."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def small_image(repository: RegistryClient, *layers: Descriptor, seed: int = 0) -> bytes:
    """Send a configuration and return the manifest of an image with it, not yet sent."""
    config = canonical_json({"architecture": "amd64", "os": "linux", "author": str(seed)})
    described = Descriptor(OCI_CONFIG, repository.upload_bytes(config), len(config))
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described.as_json(),
            "layers": [layer.as_json() for layer in layers],
        }
    )

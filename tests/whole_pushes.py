"""Whole pushes for tests of faults: images of small files, and the one question that counts after each fault.

That question is :func:`image_at`: what is under the tag, asked of the registry itself, not through the client under
test and not through a proxy that misbehaves, and with every byte compared with its digest.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kit
from registry_client import Told, client
from registry_server import Host

from himl_container.cache import Cache
from himl_container.publish.model import Pushed, PushImage, PushLayer
from himl_container.publish.push import push
from himl_container.registry.client import RegistryClient
from himl_container.registry.model import Descriptor, canonical_json, sha256_of

TAG = "ab" * 16
MIB = 1 << 20


@dataclass
class Machine:
    """A machine that pushes: its cache, and its layers as files.

    :param told: what its client says, and how long it would have waited.
    """

    folder: Path
    told: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cache = Cache(self.folder / "cache")

    def layer(self, name: str, size: int = 300_000) -> PushLayer:
        """Write a layer that does not compress, the same on every machine."""
        data = random.Random(name).randbytes(size)
        path = self.folder / f"{name}.tar"
        path.write_bytes(data)
        return PushLayer(name, sha256_of(data), size=size, path=path)

    def image(self, *names: str, size: int = 300_000) -> PushImage:
        """Return an image of a base (3 MiB and a bit: several chunks) and layers with these names."""
        return image_of(self.layer("base", 3 * MIB + 5), *[self.layer(name, size) for name in names])

    def push(
        self,
        image: PushImage,
        target: str | RegistryClient,
        *,
        tag: str = TAG,
        before: Descriptor | None = None,
        attach: Callable[[Descriptor], None] | None = None,
    ) -> Pushed:
        """Push in chunks of 1 MiB, without any wait."""
        repository = client(target, self.told, chunk=MIB) if isinstance(target, str) else target
        return push(
            image,
            repository,
            tag,
            cache=self.cache,
            compression="gzip",
            reporter=self.told,
            before=before,
            attach=attach,
        )

    def start(self, image: PushImage, target: str, *, before: Descriptor | None = None) -> subprocess.Popen[str]:
        """Begin the push in a process of its own, as it is outside of tests; it prints what ``push_child`` says."""
        spec = {
            "target": target,
            "tag": TAG,
            "cache": str(self.cache.root),
            "config": image.config.decode(),
            "layers": [[one.name, one.diff_id, one.size, str(one.path)] for one in image.layers],
            "before": before.as_json() if before else None,
        }
        return subprocess.Popen(
            [sys.executable, kit.ROOT / "tests" / "push_child.py", json.dumps(spec)],
            env=kit.clean_environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def leftovers(self) -> list[Path]:
        """Return what unfinished work has left in the cache."""
        return sorted(self.cache.folder("tmp").iterdir())


def image_of(*layers: PushLayer) -> PushImage:
    """Return an image of layers."""
    diff_ids = [layer.diff_id for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return PushImage(canonical_json(config), layers, {"org.opencontainers.image.title": layers[-1].name})


def image_at(host: Host, name: str, tag: str = TAG) -> str:
    """Return the digest of the configuration of the image under a tag, empty where there is no such tag.

    The image has to be whole: manifest, configuration and all layers are fetched from the registry, and every digest,
    every size, and the layers' content inside of their compression are compared.
    """
    status, data = _get(host, f"/v2/{name}/manifests/{tag}")
    if status == 404:
        return ""
    assert status == 200, f"{tag}: {status} {data[:300]!r}"
    status, again = _get(host, f"/v2/{name}/manifests/{sha256_of(data)}")
    assert (status, again) == (200, data), f"{tag} is not what its digest gives: {status}"
    content = json.loads(data)
    config, *layers = [_blob(host, name, one) for one in (content["config"], *content["layers"])]
    diff_ids = json.loads(config)["rootfs"]["diff_ids"]
    assert [sha256_of(gzip.decompress(layer)) for layer in layers] == diff_ids
    return str(content["config"]["digest"])


def blobs_at(host: Host, name: str) -> set[str]:
    """Return the digests of the blobs that a repository gives to whoever asks for them."""
    links = host.folder / "docker/registry/v2/repositories" / name / "_layers/sha256"
    found = {f"sha256:{link.parent.name}" for link in links.glob("*/link")}
    return {digest for digest in found if _get(host, f"/v2/{name}/blobs/{digest}", method="HEAD")[0] == 200}


def _blob(host: Host, name: str, descriptor: dict[str, Any]) -> bytes:
    status, data = _get(host, f"/v2/{name}/blobs/{descriptor['digest']}")
    assert status == 200, f"the image under the tag lacks {descriptor}: {status}"
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor["digest"]
    assert len(data) == descriptor["size"]
    return data


def _get(host: Host, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(str(host), timeout=60)
    try:
        accepted = "application/vnd.oci.image.manifest.v1+json"
        connection.request(method, path, headers={"Accept": accepted})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()

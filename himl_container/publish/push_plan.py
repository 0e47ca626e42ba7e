"""What a push would send, found out without changing anything: for ``push --dry-run``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

from himl_container.cache import Cache
from himl_container.image.engine import Engine
from himl_container.image.engine import connect as connect_engine_
from himl_container.progress import Reporter
from himl_container.publish.compress import CompressedStore
from himl_container.publish.layer_index import LayerIndex
from himl_container.publish.model import PushLayer
from himl_container.publish.push_image import find_pushed
from himl_container.publish.push_source import PushSource
from himl_container.publish.remote import Connect, open_repository
from himl_container.publish.transfer import CONNECTIONS
from himl_container.registry.api import Repository, connect
from himl_container.settings import Settings

What = Literal["there", "mount", "copy", "send", "compress", "export"]
_TEXTS: Mapping[What, str] = {
    "there": "is there",
    "mount": "MOUNT",
    "copy": "COPY",
    "send": "SEND",
    "compress": "COMPRESS, SEND",
    "export": "EXPORT, COMPRESS, SEND",
}


@dataclass(frozen=True)
class PlannedLayer:
    """One layer of a push.

    :param size: bytes that would travel to the registry; before compression where ``what`` is ``compress``, and 0 where
        nobody knows (``export``).
    """

    name: str
    diff_id: str
    what: What
    size: int


@dataclass(frozen=True)
class PushPlan:
    """What a push would do.

    :param name: ``host/repository:tag``.
    :param exists: whether the registry has the image already.
    """

    name: str
    exists: bool
    layers: tuple[PlannedLayer, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {"dry_run": True, **asdict(self)}

    def as_text(self) -> str:
        """Return the plan for people."""
        if self.exists:
            return f"{self.name}\nThe registry has it already: nothing would be sent."
        lines = [self.name]
        lines += [f"{_TEXTS[layer.what]:<22}  {layer.size:>12,}  {layer.name}" for layer in self.layers]
        travelling = [layer for layer in self.layers if layer.what not in ("there", "mount")]
        total = sum(layer.size for layer in travelling)
        more = " before compression" if any(layer.what == "compress" for layer in travelling) else ""
        lines.append(f"{len(travelling)} of {len(self.layers)} layers would be sent, at most {total:,} bytes{more}.")
        return "\n".join(lines)


def plan_push(
    settings: Settings,
    *,
    reporter: Reporter,
    connect_engine: Callable[[Cache], Engine] = connect_engine_,
    connect_registry: Connect = connect,
) -> PushPlan:
    """Return what :func:`himl_container.publish.push_image.push_image` would do. Only asks; errors are the same."""
    source = PushSource(
        settings,
        reporter=reporter,
        connect_engine=connect_engine,
        connect_registry=connect_registry,
    )
    repository = open_repository(settings, reporter, connect_registry)
    name = f"{repository.host}/{repository.name}:{source.fingerprint[:32]}"
    if find_pushed(settings, source.fingerprint, repository) is not None:
        return PushPlan(name, exists=True)
    index = LayerIndex.fetch(repository, reporter=reporter)
    layers = dict.fromkeys(source.layers(source.remotes(index, repository)))
    store = CompressedStore(source.cache, settings.compression)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        planned = pool.map(lambda layer: _planned(layer, repository, store), layers)
        return PushPlan(name, exists=False, layers=tuple(planned))


def _planned(layer: PushLayer, repository: Repository, store: CompressedStore) -> PlannedLayer:
    made = store.get(layer.diff_id)
    known = [remote.descriptor for remote in layer.remotes] + ([made.descriptor] if made else [])
    for blob in {blob.digest: blob for blob in known}.values():
        if repository.blob_readable(blob.digest, blob.size):
            return PlannedLayer(layer.name, layer.diff_id, "there", blob.size)
    beside = next((one for one in layer.remotes if one.host == repository.host), None)
    if beside is not None and beside.repository != repository.name:
        return PlannedLayer(layer.name, layer.diff_id, "mount", beside.descriptor.size)
    if made is not None:
        return PlannedLayer(layer.name, layer.diff_id, "send", made.descriptor.size)
    if layer.path is not None:
        return PlannedLayer(layer.name, layer.diff_id, "compress", layer.size or layer.path.stat().st_size)
    if layer.remotes:
        return PlannedLayer(layer.name, layer.diff_id, "copy", layer.remotes[0].descriptor.size)
    return PlannedLayer(layer.name, layer.diff_id, "export", layer.size)

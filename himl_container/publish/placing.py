"""Bringing the layers of an image into a repository: what is there stays, what is near is mounted, the rest is sent.

For each distinct layer, until one works:

1. a compressed form that is known by its digest (from the layer index or the base's registry, or made here before) is
   in the repository already: one ``HEAD``;
2. it is in another repository of the same registry: mounted there;
3. it is a layer of the base, and another registry has it: copied, so that it has one digest everywhere, and a machine
   that has the base need not fetch it under another;
4. it was compressed here before: sent;
5. its tar is on this machine: compressed, then sent;
6. it is in another registry: copied;
7. it is only in the daemon: exported (all such layers in one stream), compressed, then sent.

Compressing uses all cores, while what is compressed already travels
(over :data:`himl_container.publish.transfer.CONNECTIONS` connections).
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from himl_container.errors import RegistryError
from himl_container.publish.compress import Compressed, CompressedStore
from himl_container.publish.model import PushLayer, RemoteBlob
from himl_container.publish.transfer import Threads, Transfer
from himl_container.registry.api import Repository
from himl_container.registry.model import Descriptor

How = Literal["there", "mounted", "copied", "sent"]
Export = Callable[[Sequence[PushLayer]], Mapping[str, Path]]
"""Brings layers that exist only in the daemon into the cache; returns their tars by diff id."""

Connect = Callable[[str], Repository]
"""Returns a repository by its full name."""


@dataclass(frozen=True)
class Placed:
    """A layer that the repository has.

    :param descriptor: its compressed form there.
    :param how: why it is there.
    """

    descriptor: Descriptor
    how: How


class Placer:
    """Brings layers into one repository.

    :param store: where compressed layers are kept; entered as a context.
    :param export: how to get at layers that exist only in the daemon; None where there is none.
    :param connect: how to reach other registries.
    :param seen: digests of layers that the repository was just asked for, and has.
    """

    def __init__(
        self,
        target: Repository,
        store: CompressedStore,
        transfer: Transfer,
        export: Export | None,
        connect: Connect,
        *,
        seen: Set[str] = frozenset(),
    ) -> None:
        self.target = target
        self.store = store
        self.transfer = transfer
        self.seen = seen
        self._export = export
        self._connect = functools.lru_cache(maxsize=None)(connect)
        self._connecting = threading.Lock()
        self._sources: set[Repository] = set()
        self.distrusted: frozenset[str] = frozenset()
        """Digests of blobs that the registry says it has and has not."""

    def place(
        self, layers: Iterable[PushLayer], *, documents: Sequence[tuple[bytes, Descriptor]] = ()
    ) -> dict[str, Placed]:
        """Bring layers, and small blobs, into the repository; return what became of each layer, by diff id.

        After an error (or Ctrl-C) the connections are stopped for good.

        :raises RegistryError: the registry refuses, or a layer is nowhere to be had.
        """
        # The largest first: what is begun last should be short.
        ordered = sorted(layers, key=lambda layer: -layer.size)
        run = _Run(self, {layer.diff_id: layer for layer in ordered}.values())
        with Threads(self.transfer, self.store.threads) as threads:
            try:
                run.begin(threads, documents)
                threads.finish()
            except BaseException:
                self._stop()
                raise
        return run.placed

    def known(self, layer: PushLayer) -> Iterator[tuple[Descriptor, RemoteBlob | None]]:
        """Yield the compressed forms of a layer whose digests are known, those of registries first."""
        yield from ((remote.descriptor, remote) for remote in layer.remotes)
        made = self.store.get(layer.diff_id)
        if made is not None:
            yield made.descriptor, None

    def locate(self, layer: PushLayer) -> Placed | None:
        """Find a layer in the repository, or beside it in the same registry; None where it has to be sent."""
        asked: set[str] = set()
        for descriptor, remote in self.known(layer):
            digest = descriptor.digest
            if digest in self.distrusted:
                continue
            if digest not in asked and (digest in self.seen or self.target.blob_readable(digest, descriptor.size)):
                return Placed(descriptor, "there")
            asked.add(digest)
            beside = remote is not None and remote.host == self.target.host and remote.repository != self.target.name
            if remote is not None and beside and self.target.mount(digest, remote.repository):
                return Placed(descriptor, "mounted")
        return None

    def sources(self, layer: PushLayer) -> list[RemoteBlob]:
        """Return the places that a layer can be copied from."""
        here = (self.target.host, self.target.name)
        return [remote for remote in layer.remotes if (remote.host, remote.repository) != here]

    def copy(self, layer: PushLayer) -> Placed | None:
        """Copy a layer from another repository; None where none of them gives it."""
        for remote in self.sources(layer):
            name = f"{remote.host}/{remote.repository}"
            with self.store.cache.new_file() as temporary:
                try:
                    source = self._source(name)
                    source.download(remote.descriptor, temporary, received=self.transfer.passed)
                except RegistryError as error:
                    self.transfer.inform(f"{layer.name}: cannot be copied from {name}: {error.what}")
                    continue
                self._upload(layer.name, temporary, remote.descriptor)
                return Placed(remote.descriptor, "copied")
        return None

    def compress(self, layer: PushLayer, path: Path) -> Compressed:
        """Return a layer's compressed form, made where it is missing."""
        self.transfer.compressing(layer.name)
        made = self.store.make(layer.diff_id, path, name=layer.name, read=self.transfer.compressed)
        self.transfer.has_compressed()
        return made

    def send(self, layer: PushLayer, made: Compressed, *, ask: bool) -> Placed:
        """Send a layer's compressed form.

        :param ask: whether the repository may have it: its digest was not known before it was compressed.
        """
        digest = made.descriptor.digest
        if ask and digest not in self.distrusted and self.target.blob_readable(digest, made.descriptor.size):
            return Placed(made.descriptor, "there")
        sent = self._upload(layer.name, made.path, made.descriptor)
        return Placed(made.descriptor, "sent" if sent else "there")

    def send_document(self, data: bytes, descriptor: Descriptor) -> None:
        """Send a small blob, unless it is there."""
        if descriptor.digest not in self.distrusted and self.target.blob_readable(descriptor.digest, descriptor.size):
            return
        with self.store.cache.new_file() as temporary:
            temporary.write_bytes(data)
            self._upload("configuration", temporary, descriptor)

    def export(self, layers: Sequence[PushLayer]) -> Mapping[str, Path]:
        """Get layers out of the daemon.

        :raises RegistryError: there is no daemon to get them from.
        """
        if self._export is not None:
            return self._export(layers)
        names = ", ".join(layer.name for layer in layers)
        raise RegistryError(
            f"layers are neither on this machine nor in a registry that gives them: {names}",
            where=f"{self.target.host}/{self.target.name}",
            hint="Build the image here ('himl-container build') and push it again.",
        )

    def _stop(self) -> None:
        """End the waits of all connections before their next try: what they wait for is not wanted any more."""
        self.transfer.stop()
        for repository in (self.target, *self._sources):
            stop = getattr(repository, "stop", None)
            if stop is not None:
                stop()

    def _source(self, name: str) -> Repository:
        with self._connecting:
            source = self._connect(name)
            self._sources.add(source)
            return source

    def _upload(self, name: str, path: Path, descriptor: Descriptor) -> bool:
        """Send a blob, unless another process of this machine has sent it just now; return whether it was sent."""
        digest, place = descriptor.digest, f"{self.target.host}/{self.target.name}@{descriptor.digest}"
        with self.store.cache.lock("upload-" + hashlib.sha256(place.encode()).hexdigest()[:3]) as waited:
            if waited and digest not in self.distrusted and self.target.blob_readable(digest, descriptor.size):
                return False
            self.transfer.expect(name, descriptor.size)
            self.target.upload(path, descriptor, sent=self.transfer.sent)
            return True


class _Run:
    """One round of placing: what happens with each layer next. Everything here runs in the caller's thread."""

    def __init__(self, placer: Placer, layers: Iterable[PushLayer]) -> None:
        self.placer = placer
        self.placed: dict[str, Placed] = {}
        self._layers = tuple(layers)
        self._locating = 1  # the beginning itself: nothing is exported before all layers were looked at
        self._hidden: list[PushLayer] = []

    def begin(self, threads: Threads, documents: Sequence[tuple[bytes, Descriptor]]) -> None:
        """Begin with everything; the rest follows from what comes back."""
        self.threads = threads
        for layer in self._layers:
            if next(self.placer.known(layer), None) is None:
                self._bring(layer)
            else:
                self._locating += 1
                threads.connect(self.placer.locate, layer, then=functools.partial(self._located, layer))
        for data, descriptor in documents:
            threads.connect(self.placer.send_document, data, descriptor, then=_nothing)
        self._locating -= 1
        self._export_hidden()

    def _located(self, layer: PushLayer, found: Placed | None) -> None:
        self._locating -= 1
        if found is not None:
            self.placed[layer.diff_id] = found
        else:
            self._bring(layer)
        self._export_hidden()

    def _bring(self, layer: PushLayer) -> None:
        made = self.placer.store.get(layer.diff_id)
        sources = self.placer.sources(layer)
        same = made is not None and any(made.descriptor.digest == one.descriptor.digest for one in sources)
        if not layer.key and sources and not same:
            self._copy(layer, instead=self._bring_ours)
        else:
            self._bring_ours(layer)

    def _bring_ours(self, layer: PushLayer) -> None:
        """Bring a layer with what this machine has of it."""
        made = self.placer.store.get(layer.diff_id)
        if made is not None:
            self._send(layer, made, ask=False)
        elif layer.path is not None:
            self._compress(layer, layer.path)
        elif layer.key and self.placer.sources(layer):
            self._copy(layer, instead=self._hide)
        else:
            self._hide(layer)

    def _copy(self, layer: PushLayer, *, instead: Callable[[PushLayer], None]) -> None:
        def copied(found: Placed | None) -> None:
            if found is not None:
                self.placed[layer.diff_id] = found
            else:
                instead(layer)

        self.threads.connect(self.placer.copy, layer, then=copied)

    def _hide(self, layer: PushLayer) -> None:
        self._hidden.append(layer)
        self._export_hidden()

    def _export_hidden(self) -> None:
        """Export in one stream all layers that exist only in the daemon, as soon as it is known which these are."""
        if self._hidden and not self._locating:
            layers, self._hidden = tuple(self._hidden), []
            self.threads.work(self.placer.export, layers, then=functools.partial(self._exported, layers))

    def _exported(self, layers: Sequence[PushLayer], paths: Mapping[str, Path]) -> None:
        for layer in layers:
            path = paths[layer.diff_id]
            self._compress(replace(layer, size=path.stat().st_size), path)

    def _compress(self, layer: PushLayer, path: Path) -> None:
        self.placer.transfer.will_compress(layer.size)
        then = functools.partial(self._send, layer, ask=True)
        self.threads.work(self.placer.compress, layer, path, then=then)

    def _send(self, layer: PushLayer, made: Compressed, *, ask: bool) -> None:
        then = functools.partial(self.placed.__setitem__, layer.diff_id)
        self.threads.connect(functools.partial(self.placer.send, ask=ask), layer, made, then=then)


def _nothing(_: None) -> None:
    return None

"""The image of some settings as this machine has it: in the daemon, in the store, or in both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from himl_container.cache import Cache
from himl_container.errors import BuildError, HimlError, RegistryError
from himl_container.image import fingerprint as fingerprints
from himl_container.image.engine import Engine, connect
from himl_container.image.model import ImageInfo, ImagePlan, Layer
from himl_container.image.prepare import Prepared
from himl_container.progress import Reporter
from himl_container.publish.base_layers import RegistryBase, registry_base
from himl_container.publish.compose import (
    Remotes,
    below_of,
    compose_push,
    exporter,
    lower_layers,
    with_remotes,
)
from himl_container.publish.compress import CompressedStore
from himl_container.publish.engine_layers import OpenArchive, export_layers
from himl_container.publish.layer_index import LayerIndex
from himl_container.publish.model import PushImage, PushLayer, RemoteBlob
from himl_container.publish.placing import Export
from himl_container.publish.publication import Publication, base_key
from himl_container.publish.push_result import diff_ids_of
from himl_container.publish.remote import Connect
from himl_container.registry.api import Repository
from himl_container.registry.api import connect as connect_registry_
from himl_container.registry.model import sha256_of
from himl_container.settings import Settings


class PushSource:
    """The image of some settings in the daemon. Nothing is asked of anybody before it is needed.

    :param open_archive: how to get the daemon's export of an image.
    :param prepared: what is known of the image already; the files are not read again then.
    :param cache: that of the settings when None.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reporter: Reporter,
        connect_engine: Callable[[Cache], Engine] = connect,
        connect_registry: Connect = connect_registry_,
        open_archive: OpenArchive | None = None,
        prepared: Prepared | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.settings = settings
        self.cache = cache or Cache(settings.cache_dir)
        self.reporter = reporter
        self._connect_engine = connect_engine
        self.connect_registry = connect_registry
        self._open_archive = open_archive
        self._prepared = prepared

    @functools.cached_property
    def engine(self) -> Engine:
        """The daemon."""
        return self._connect_engine(self.cache)

    @functools.cached_property
    def prepared(self) -> Prepared:
        """What the image is made from; the lock has to be current."""
        from himl_container.image.prepare import prepare

        if self._prepared is not None:
            return self._prepared
        return prepare(self.settings, engine=lambda: self.engine, reporter=self.reporter, locked=True)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The image's fingerprint."""
        if self._prepared is None and (known := fingerprints.remembered(self.settings, self.cache)):
            return known
        return self.prepared.fingerprint

    @functools.cached_property
    def info(self) -> ImageInfo:
        """What the daemon says of the image.

        :raises BuildError: it has none.
        """
        found = self.engine.inspect(self._tag)
        if found is not None:
            return found
        raise BuildError(
            "the image of these inputs is not built",
            where=self._tag,
            hint="Build it with 'himl-container build', or build and push in one step with 'build --push'.",
        )

    def connect(self, name: str) -> Repository:
        """Return a repository of any registry."""
        return self.connect_registry(name, reporter=self.reporter)

    def _export(self) -> Export:
        return exporter(self.info.id, cache=self.cache, reporter=self.reporter, open_archive=self._open_archive)

    @functools.cached_property
    def plan(self) -> ImagePlan:
        """The image's plan. Packages are not looked into for it: what the store has lost comes from the daemon."""
        from himl_container.image.prepare import plan_image

        return plan_image(self.prepared, self.settings, cache=self.cache, reporter=self.reporter, fetch=False)

    def remotes(self, index: LayerIndex, repository: Repository) -> Remotes:
        """Return where the repository has the image's layers, by diff id, as far as its index knows."""
        compression = self.settings.compression
        diff_ids = self.info.diff_ids
        entries = {diff_id: index.entry(base_key(diff_id)) for diff_id in diff_ids}
        ours = diff_ids[len(diff_ids) - len(self.plan.layers) :]
        for plan, diff_id in zip(self.plan.layers, ours, strict=False):
            entries[diff_id] = index.known(plan.key, compression)
        found: dict[str, list[RemoteBlob]] = {}
        for diff_id, entry in entries.items():
            if entry is not None and entry.diff_id == diff_id and entry.blobs:
                blob = entry.blobs.get(compression) or next(iter(entry.blobs.values()))
                found[diff_id] = [RemoteBlob(repository.host, repository.name, blob)]
        return found

    def publication(self, remotes: Remotes) -> Publication:
        """Return the image of the daemon as a registry is to get it.

        What was assembled here is composed again from the store, which costs nothing. What Docker itself built, or
        what the store has lost, is taken out of the daemon.
        """
        return self._assembled(remotes) or Publication(self._exported(remotes), self.plan, export=self._export())

    def layers(self, remotes: Remotes) -> tuple[PushLayer, ...]:
        """Return the layers of the image, without taking anything out of the daemon."""
        assembled = self._assembled(remotes)
        return assembled.image.layers if assembled is not None else self._foreign(remotes)

    @property
    def _tag(self) -> str:
        return fingerprints.tag_of(self.settings.image_name, self.fingerprint)

    def _assembled(self, remotes: Remotes) -> Publication | None:
        """Return the image that assembling gives, when it is the one in the daemon."""
        from himl_container.image.dockerfile import needs_docker

        if needs_docker(self.settings.template):
            return None
        plan = self.plan
        layers, info = self._layers(plan), self._below(plan)
        if info is None or (*info.diff_ids, *(layer.digest for layer in layers)) != self.info.diff_ids:
            return None
        activations = self._activations(plan, layers)
        if activations is None:
            return None
        below = below_of(info, self._base(info.diff_ids, remotes), cache=self.cache)
        image = compose_push(
            plan,
            below,
            layers,
            next(iter(activations.values()), {}),
            remotes=remotes,
        )
        # containerd's store names an image by its manifest, so there the layers have to be enough.
        if sha256_of(image.config) != self.info.id and not self.engine.info().containerd_store:
            return None
        whole = all(layer.size for layer in layers)
        return Publication(image, plan, layers if whole else (), activations, self._export())

    def _layers(self, plan: ImagePlan) -> tuple[Layer, ...]:
        """Return our layers, by the diff ids that the image has; their files may be gone from the store."""
        from himl_container.image.store import LayerStore

        store = LayerStore(self.cache)
        ours = self.info.diff_ids[-len(plan.layers) :] if plan.layers else ()
        found = []
        for one, diff_id in zip(plan.layers, ours, strict=False):
            kept = store.get(one.key, one.name)
            if kept is None or kept.digest != diff_id:
                kept = Layer(one.name, one.key, diff_id, size=0, entries=0, path=self.cache.blob(diff_id))
            found.append(kept)
        return tuple(found)

    def _below(self, plan: ImagePlan) -> ImageInfo | None:
        """Return the image below our layers, where the daemon still has it."""
        from himl_container.image.dockerfile import base_reference, render_system
        from himl_container.image.system import system_tag

        base = self.engine.inspect(base_reference(plan.base))
        if base is None or plan.system.empty:
            return base
        text = render_system(plan.system, plan.base, template=self.settings.template)
        return self.engine.inspect(system_tag(base, text))

    def _activations(self, plan: ImagePlan, layers: tuple[Layer, ...]) -> Mapping[str, Mapping[str, str]] | None:
        """Return what the layers' activation scripts set, by their key; None where that cannot be known any more."""
        from himl_container.image.activation import find_files, known_activation, memo_key

        try:
            files = find_files(layers, cache=self.cache)
            known = known_activation(layers, cache=self.cache, plan=plan)
        except HimlError:
            return None  # a layer is no longer in the store, and was never read
        if files.empty:
            return {}
        return None if known is None else {memo_key(files, plan): known}

    def _base(self, diff_ids: tuple[str, ...], remotes: Remotes) -> RegistryBase | None:
        """Return the base as its registry has it, unless the index names all its layers anyway."""
        if all(remotes.get(diff_id) for diff_id in diff_ids):
            return None
        try:
            return registry_base(
                self.prepared.lock.base, cache=self.cache, platform=self.settings.platform, connect_to=self.connect
            )
        except RegistryError as error:
            self.reporter.info(f"the base's registry does not give it, so it comes from the daemon: {error.what}")
            return None

    def _exported(self, remotes: Remotes) -> PushImage:
        """Return the image with its configuration, and the layers that are nowhere else, out of the daemon."""
        layers = self._foreign(remotes)
        memo = ("memo", "image-config", self.info.id.removeprefix("sha256:") + ".json")
        config = self.cache.read_json(*memo)
        if not isinstance(config, str) or diff_ids_of(config.encode()) != self.info.diff_ids:
            store = CompressedStore(self.cache, self.settings.compression)
            hidden = [one for one in layers if one.path is None and not one.remotes and store.get(one.diff_id) is None]
            exported = export_layers(
                self.info.id,
                {layer.diff_id: layer.name for layer in hidden},
                cache=self.cache,
                reporter=self.reporter,
                config_of=self.info.diff_ids,
                open_archive=self._open_archive,
            )
            config = exported.config.decode()
            self.cache.write_json(config, *memo)
            layers = self._foreign(remotes)
        return PushImage(config.encode(), layers)

    def _foreign(self, remotes: Remotes) -> tuple[PushLayer, ...]:
        """Return all layers of the image as ones that are not ours."""
        base = self._base(self.info.diff_ids, remotes)
        return with_remotes(lower_layers(self.info.diff_ids, base, cache=self.cache), remotes)

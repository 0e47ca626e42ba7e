"""An image put together for its registry: with a daemon or without, from layers that are here or only there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from himl_container.cache import Cache
from himl_container.errors import EngineError, RegistryError
from himl_container.image.assembly import Assembly, late_engine
from himl_container.image.engine import Engine
from himl_container.image.model import ImageInfo, ImagePlan, Layer, LayerPlan
from himl_container.image.prepare import Prepared, plan_image
from himl_container.image.store import LayerStore
from himl_container.progress import Reporter
from himl_container.publish.layer_facts import KnowingCache
from himl_container.publish.model import PushImage, PushLayer, RemoteBlob, Work
from himl_container.publish.placing import Export
from himl_container.publish.source import RegistrySource
from himl_container.registry.model import Descriptor
from himl_container.settings import Settings


class UnknownActivationError(Exception):
    """The environment has activation scripts that were never run: that takes a daemon."""


@dataclass(frozen=True)
class Publication:
    """An image for a registry, and what is known of it.

    :param layers: our own layers; those that stay in the registry have no file here. Empty for an image that Docker
        made.
    :param activations: what its activation scripts set, by their key.
    :param export: gets layers out of the daemon that are nowhere else; None where no daemon was asked for anything.
    """

    image: PushImage
    plan: ImagePlan
    layers: tuple[Layer, ...] = ()
    activations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    export: Export | None = None
    work: Work = field(default_factory=Work)


@dataclass(frozen=True)
class _Below:
    """The image below the environment.

    :param daemon: its name in the daemon; empty where no daemon was asked.
    """

    info: ImageInfo
    layers: tuple[PushLayer, ...]
    daemon: str = ""


class Publisher:
    """Puts one image together.

    :param engine: asked for only where the base is in no registry, or there is a system part.
    """

    def __init__(
        self,
        settings: Settings,
        prepared: Prepared,
        source: RegistrySource,
        *,
        engine: Callable[[], Engine],
        reporter: Reporter,
    ) -> None:
        self.settings = settings
        self.prepared = prepared
        self.source = source
        self.engine = engine
        self.reporter = reporter

    def assembled(self) -> Publication:
        """Return the image, making the layers that are neither in the store nor in the registry.

        :raises UnknownActivationError: the variables of the image are not known.
        """
        from himl_container.image.compose import compose

        cache = self.source.knowing(self.prepared)
        below = self._below(cache)
        plan, layers, work = self._layers(cache)
        activations = self._activations(layers, plan, cache)
        variables = next(iter(activations.values()), {})
        composed = compose(plan=plan, system=below.info, layers=layers, activation=variables)
        ours = tuple(self._push_layer(layer) for layer in layers)
        image = PushImage(composed.config, (*below.layers, *ours))
        return Publication(image, plan, layers, activations, self._export(below.daemon), work)

    def _layers(self, cache: KnowingCache) -> tuple[ImagePlan, tuple[Layer, ...], Work]:
        """Bring about every layer: it is in the store, or stays in the registry, or is made."""
        made, reused = list(self.source.made), []
        while True:
            plan = plan_image(self.prepared, self.settings, cache=cache, reporter=self.reporter, fetch=False)
            layers = _stored(plan.layers, cache)
            stays = self.source.reusable(_without(plan.layers, layers), cache, self.settings.compression)
            layers |= stays
            missing = _without(plan.layers, layers)
            layers |= {layer.key: layer for layer in self._make(plan, missing, cache)}
            made += [one.name for one in missing]
            reused += [one.name for one in plan.layers if one.key in stays]
            if not plan.assumed:
                found = tuple(layers[one.key] for one in plan.layers)
                return plan, found, Work(made=tuple(dict.fromkeys(made)), reused=tuple(dict.fromkeys(reused)))
            # What was made shows the paths of packages never seen; they may take some from others, or lose some.
            self._see_all_paths(cache)

    def _make(self, plan: ImagePlan, missing: Sequence[LayerPlan], cache: Cache) -> tuple[Layer, ...]:
        if not missing:
            return ()
        part = dataclasses.replace(plan, layers=tuple(missing), assumed=False)
        engine = late_engine(self.engine)
        assembly = Assembly(part, self.prepared, self.settings, engine=engine, cache=cache, reporter=self.reporter)
        return assembly.build_layers()

    def _see_all_paths(self, cache: Cache) -> None:
        from himl_container.image.clobber import package_paths

        package_paths(self.prepared.lock, cache=cache, settings=self.settings, reporter=self.reporter)

    def _activations(
        self, layers: Sequence[Layer], plan: ImagePlan, cache: KnowingCache
    ) -> Mapping[str, Mapping[str, str]]:
        from himl_container.image.activation import find_files, known_activation, memo_key

        files = find_files(layers, cache=cache)
        if files.empty:
            return {}
        key = memo_key(files, plan)
        known = known_activation(layers, cache=cache, plan=plan)
        if known is None:
            known = self.source.index.activation(key)
        if known is None:
            raise UnknownActivationError
        return {key: known}

    def _below(self, cache: Cache) -> _Below:
        if self.prepared.system.empty:
            from himl_container.publish.base_layers import registry_base

            base = registry_base(
                self.prepared.lock.base, cache=cache, platform=self.settings.platform, connect_to=self.source.connect
            )
            if base is not None:
                return _Below(base.info, tuple(self._with_index(layer) for layer in base.layers))
        return self._daemon_below(cache)

    def _daemon_below(self, cache: Cache) -> _Below:
        part = ImagePlan(
            self.prepared.fingerprint,
            self.settings.image_name,
            self.prepared.lock.base,
            self.prepared.system,
            layers=(),
            environment=(),
            labels=(),
        )
        try:
            engine = self.engine()
        except EngineError as error:
            what = "the base image is in no registry" if self.prepared.system.empty else "there is a system part"
            error.hint = "\n".join(filter(None, (error.hint, f"The daemon is needed because {what}.")))
            raise
        assembly = Assembly(part, self.prepared, self.settings, engine=engine, cache=cache, reporter=self.reporter)
        info = assembly.system(assembly.base())
        of_registry = self._registry_layers(cache)
        layers = []
        for number, diff_id in enumerate(info.diff_ids, 1):
            layer = of_registry.get(diff_id) or PushLayer(f"base {number}", diff_id)
            layers.append(self._with_index(layer))
        return _Below(info, tuple(layers), info.id)

    def _registry_layers(self, cache: Cache) -> dict[str, PushLayer]:
        """Return the base's layers where its registry can be asked; the daemon has them all, so it is no must."""
        from himl_container.publish.base_layers import registry_base

        pin, platform = self.prepared.lock.base, self.settings.platform
        try:
            base = registry_base(pin, cache=cache, platform=platform, connect_to=self.source.connect)
        except RegistryError as error:
            self.reporter.info(f"{pin.reference}: its registry cannot be asked ({error.what}); the daemon has it")
            return {}
        return {layer.diff_id: layer for layer in base.layers} if base is not None else {}

    def _export(self, image: str) -> Export | None:
        from himl_container.publish.compose import exporter

        return exporter(image, cache=Cache(self.settings.cache_dir), reporter=self.reporter) if image else None

    def _push_layer(self, layer: Layer) -> PushLayer:
        path = layer.path if layer.path.is_file() else None
        pushed = PushLayer(layer.name, layer.digest, layer.key, layer.size, path)
        entry = self.source.index.known(layer.key, self.settings.compression)
        if entry is None or entry.diff_id != layer.digest:
            return pushed
        return self._beside(pushed, entry.blobs[self.settings.compression])

    def _with_index(self, layer: PushLayer) -> PushLayer:
        """Add what the index knows of a layer that is not ours."""
        entry = self.source.index.entry(base_key(layer.diff_id))
        if entry is None or entry.diff_id != layer.diff_id or not entry.blobs:
            return layer
        return self._beside(layer, next(iter(entry.blobs.values())))

    def _beside(self, layer: PushLayer, blob: Descriptor) -> PushLayer:
        repository = self.source.repository
        return dataclasses.replace(layer, remotes=(RemoteBlob(repository.host, repository.name, blob), *layer.remotes))


def base_key(diff_id: str) -> str:
    """Return the index's key of a layer that is not ours."""
    return "base-" + diff_id.partition(":")[2]


def _stored(plans: Iterable[LayerPlan], cache: Cache) -> dict[str, Layer]:
    store = LayerStore(cache)
    return {plan.key: layer for plan in plans if (layer := store.get(plan.key, plan.name)) is not None}


def _without(plans: Sequence[LayerPlan], layers: Mapping[str, Layer]) -> list[LayerPlan]:
    return [plan for plan in plans if plan.key not in layers]

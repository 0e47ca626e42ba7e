"""One image under way: base, system part, layers, and the candidate that is made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from himl_container.cache import Cache
from himl_container.environment.model import EnvironmentSpec, Lock
from himl_container.image.engine import Engine
from himl_container.image.model import ComposedImage, ImageInfo, ImagePlan, Layer, LayerPlan
from himl_container.progress import Reporter
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.image.prepare import Prepared


class LayerSource(Protocol):
    """Where an image or its layers can be had besides making them: a registry, seen from a room that knows of none."""

    def image(self, prepared: Prepared, engine: Engine) -> bool | None:
        """Bring the whole image into the daemon under its tag; whether it was tested. None where there is none."""

    def knowing(self, prepared: Prepared) -> Cache:
        """Return the cache to plan and build with; it may know more of packages than this machine has ever seen."""

    def bring(self, plan: ImagePlan, cache: Cache) -> None:
        """Bring layers of a plan, that would have to be made otherwise, into the store."""


class Assembly:
    """The stages of one image.

    :param source: asked for layers before any is made.
    """

    def __init__(
        self,
        plan: ImagePlan,
        prepared: Prepared,
        settings: Settings,
        *,
        engine: Engine,
        cache: Cache,
        reporter: Reporter,
        source: LayerSource | None = None,
    ) -> None:
        self.plan = plan
        self.prepared = prepared
        self.settings = settings
        self.engine = engine
        self.cache = cache
        self.reporter = reporter
        self.source = source
        self.layers: tuple[Layer, ...] = ()

    def by_layers(self, candidate: str) -> ImageInfo:
        """Assemble the image from layers and load what the daemon lacks, while later layers are still being made."""
        system = self.system(self.base())
        with self.engine.load_stream(system, self.reporter) as stream:
            self.layers = self.build_layers(on_layer=stream.add)
            known = self._known_activation()
            image = stream.finish(self._compose(system, known or {}, candidate))
        if known is not None:
            return image
        captured = self._capture_activation(candidate)
        return self.engine.load(self._compose(system, captured, candidate), self.reporter) if captured else image

    def by_docker(self, candidate: str) -> ImageInfo:
        """Have Docker execute the rendered Dockerfile."""
        self.base()
        self.layers = self.build_layers()
        known = self._known_activation()
        image = self._docker_build(known or {}, candidate)
        if known is not None:
            return image
        captured = self._capture_activation(candidate)
        return self._docker_build(captured, candidate) if captured else image

    def render(self, folder: Path) -> None:
        """Write the build context into a folder, whole or not at all."""
        self.layers = self.build_layers()
        self._write_context(folder, self._rendered_activation())

    def build_layers(self, on_layer: Callable[[Layer], None] | None = None) -> tuple[Layer, ...]:
        """Bring every layer into the store.

        Packages are laid out and written in one go on the assumption that those never seen share no path with others.
        Where they do, the plan is made again, and what it changes is written again.

        :param on_layer: called with each layer, in order, as soon as it is there.
        """
        from himl_container.image.prepare import plan_image

        layers = self._build_layers(on_layer)
        if self.plan.assumed:
            assumed, self.plan = (
                self.plan.layers,
                plan_image(self.prepared, self.settings, cache=self.cache, reporter=self.reporter),
            )
            if self.plan.layers != assumed:
                layers = self._build_layers()
        return layers

    def _build_layers(self, on_layer: Callable[[Layer], None] | None = None) -> tuple[Layer, ...]:
        from himl_container.image.layers import build_layers

        if self.source is not None:
            self.source.bring(self.plan, self.cache)
        lock = self._lock_of_missing()
        if any(wheel.sdist_url for wheel in lock.wheels):
            from himl_container.image.sdist import ensure_built_wheels

            ensure_built_wheels(
                lock,
                self.settings,
                engine=lambda: self.engine,
                cache=self.cache,
                reporter=self.reporter,
                indexes=self.prepared.spec.indexes,
            )
        return build_layers(
            self.plan.layers,
            self.prepared.lock,
            wheel_paths=wheel_paths(self.prepared.spec),
            cache=self.cache,
            settings=self.settings,
            reporter=self.reporter,
            on_layer=on_layer,
            indexes=self.prepared.spec.indexes,
        )

    def base(self) -> ImageInfo:
        """Return the base image, pulled when the daemon lacks it."""
        from himl_container.image.base import resolve_base

        return resolve_base(self.plan.base, engine=self.engine, reporter=self.reporter, platform=self.settings.platform)

    def system(self, base: ImageInfo) -> ImageInfo:
        """Return the image below the environment: the base with the system part, made when the daemon lacks it."""
        from himl_container.image.dockerfile import render_system
        from himl_container.image.system import ensure_system

        text = ""
        if not self.plan.system.empty:
            text = render_system(self.plan.system, self.plan.base, template=self.settings.template)
        return ensure_system(self.plan.system, base, text, engine=self.engine, cache=self.cache, reporter=self.reporter)

    def _lock_of_missing(self) -> Lock:
        """Return the lock with the wheels of the layers that are to be made: no others are needed."""
        missing = missing_layers(self.plan.layers, self.cache)
        wanted = {wheel.sha256 for plan in missing for wheel in plan.wheels}
        wheels = tuple(wheel for wheel in self.prepared.lock.wheels if wheel.sha256 in wanted)
        return dataclasses.replace(self.prepared.lock, wheels=wheels)

    def _compose(self, system: ImageInfo, activation: Mapping[str, str], tag: str) -> ComposedImage:
        from himl_container.image.compose import compose

        return compose(plan=self.plan, system=system, layers=self.layers, activation=activation, tag=tag)

    def _known_activation(self) -> Mapping[str, str] | None:
        from himl_container.image.activation import known_activation

        return known_activation(self.layers, cache=self.cache, plan=self.plan)

    def _capture_activation(self, image: str) -> Mapping[str, str]:
        from himl_container.image.activation import capture_activation

        return capture_activation(
            image, layers=self.layers, engine=self.engine, cache=self.cache, reporter=self.reporter, plan=self.plan
        )

    def _rendered_activation(self) -> Mapping[str, str]:
        known = self._known_activation()
        if known is not None:
            return known
        from himl_container.image.candidate import candidate_name

        with candidate_name(self.plan.fingerprint, engine=self.engine, cache=self.cache) as candidate:
            self.by_layers(candidate)
            return self._known_activation() or {}

    def _write_context(self, folder: Path, activation: Mapping[str, str]) -> None:
        from himl_container.image.context import write_context
        from himl_container.image.dockerfile import render_dockerfile

        text = render_dockerfile(self.plan, self.layers, activation=activation, template=self.settings.template)
        write_context(
            folder,
            dockerfile=text,
            layers=self.layers,
            reporter=self.reporter,
            lock=self.settings.lock_file,
            tag=self.plan.tag,
        )

    def _docker_build(self, activation: Mapping[str, str], tag: str) -> ImageInfo:
        with self.cache.new_folder() as folder:
            context = folder / "context"
            self._write_context(context, activation)
            return self.engine.build(context, tag=tag, reporter=self.reporter)


def late_engine(connect: Callable[[], Engine]) -> Engine:
    """Return a daemon that is connected to when something is first asked of it."""
    return cast("Engine", _LateEngine(connect))


class _LateEngine:
    def __init__(self, connect: Callable[[], Engine]) -> None:
        self._connect = connect
        self._engine: Engine | None = None

    def __getattr__(self, name: str) -> Any:
        if self._engine is None:
            self._engine = self._connect()
        return getattr(self._engine, name)


def missing_layers(plans: Iterable[LayerPlan], cache: Cache) -> tuple[LayerPlan, ...]:
    """Return the layers that the store lacks."""
    from himl_container.image.store import LayerStore

    store = LayerStore(cache)
    return tuple(plan for plan in plans if store.get(plan.key) is None)


def wheel_paths(spec: EnvironmentSpec) -> dict[str, Path]:
    """Return where each private wheel lies, by its sha256."""
    return {wheel.sha256: wheel.path for wheel in spec.wheels}

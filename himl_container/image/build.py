"""From settings to a tested image in the daemon: the stages of :mod:`himl_container.image` in their order.

::

    settings -> current_lock -> ImagePlan -> look-up -> base, system, layers -> candidate -> smoke test -> tag

The image gets its tag last, so that a tag always names a whole and tested image.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from himl_container.cache import Cache
from himl_container.environment.model import EnvironmentSpec
from himl_container.errors import SmokeTestError
from himl_container.image import fingerprint as fingerprints
from himl_container.image.engine import Engine, connect
from himl_container.image.lookup import BuiltImage, find_image
from himl_container.image.model import ComposedImage, ImageInfo, ImagePlan, Layer
from himl_container.progress import Reporter
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.image.prepare import Prepared
    from himl_container.image.smoke import SmokeReport

Builder = Literal["assemble", "docker"]


def ensure_image(
    settings: Settings,
    *,
    reporter: Reporter,
    locked: bool = False,
    builder: Builder = "assemble",
    connect_engine: Callable[[Cache], Engine] = connect,
) -> BuiltImage:
    """Return the tested image of these settings, building what is missing.

    :param locked: fail on a missing or stale lock instead of locking again.
    :param builder: ``docker`` has Docker execute the rendered Dockerfile instead of assembling the image.
    :raises HimlError: any of the family; the image has not got its tag then.
    """
    found = find_image(settings)
    if found is not None:
        return found
    from himl_container.image.prepare import prepare

    cache = Cache(settings.cache_dir)
    # Not before the files are read: what is wrong with them is told first, also where no daemon runs.
    connected = functools.cache(lambda: connect_engine(cache))
    prepared = prepare(settings, engine=connected, reporter=reporter, locked=locked)
    engine, tag = connected(), prepared.tag
    with cache.lock(f"build-{prepared.fingerprint[:32]}"):
        existing = engine.inspect(tag)
        if existing is not None:
            smoke = _test(tag, prepared, settings, engine=engine, cache=cache, reporter=reporter)
            remember(settings, prepared, cache)
            return BuiltImage(tag, existing.id, prepared.fingerprint, built=False, smoke=smoke)
        built = _build(prepared, settings, builder, engine=engine, cache=cache, reporter=reporter)
        remember(settings, prepared, cache)
        return built


def remember(settings: Settings, prepared: Prepared, cache: Cache) -> None:
    """Keep the fingerprint for :func:`find_image`."""
    files = [*prepared.spec.files, *settings.wheels, settings.lock_file]
    files += [settings.template] if settings.template else []
    fingerprints.remember(settings, files, prepared.fingerprint, cache)


def _build(
    prepared: Prepared, settings: Settings, builder: Builder, *, engine: Engine, cache: Cache, reporter: Reporter
) -> BuiltImage:
    from himl_container.image.dockerfile import needs_docker
    from himl_container.image.explain import record_build
    from himl_container.image.prepare import plan_image

    plan = plan_image(prepared, settings, cache=cache, reporter=reporter)
    assembly = Assembly(plan, prepared, settings, engine=engine, cache=cache, reporter=reporter)
    candidate = f"himl-candidate:{plan.fingerprint[:32]}"
    try:
        docker = builder == "docker" or needs_docker(settings.template)
        image = assembly.by_docker(candidate) if docker else assembly.by_layers(candidate)
        try:
            smoke = _test(candidate, prepared, settings, engine=engine, cache=cache, reporter=reporter)
        except SmokeTestError as error:
            failed = f"{plan.repository}:failed-{plan.fingerprint[:24]}"
            engine.tag(candidate, failed)
            kept = f"The image is kept as {failed}: docker run --rm -it {failed} bash"
            error.hint = "\n".join(filter(None, (error.hint, kept)))
            raise
        engine.tag(candidate, plan.tag)
    finally:
        with contextlib.suppress(Exception):  # the first error is the one to tell; a stray name is harmless
            engine.remove_image(candidate)
    record_build(settings, prepared.spec, prepared.lock, plan, assembly.layers, image_id=image.id, cache=cache)
    return BuiltImage(plan.tag, image.id, plan.fingerprint, built=True, layers=assembly.layers, smoke=smoke)


def _test(
    image: str, prepared: Prepared, settings: Settings, *, engine: Engine, cache: Cache, reporter: Reporter
) -> SmokeReport:
    from himl_container.image.smoke import smoke_test

    return smoke_test(image, lock=prepared.lock, settings=settings, engine=engine, cache=cache, reporter=reporter)


class Assembly:
    """One image under way: base, system part, layers, and the candidate made of them."""

    def __init__(
        self,
        plan: ImagePlan,
        prepared: Prepared,
        settings: Settings,
        *,
        engine: Engine,
        cache: Cache,
        reporter: Reporter,
    ) -> None:
        self.plan = plan
        self.prepared = prepared
        self.settings = settings
        self.engine = engine
        self.cache = cache
        self.reporter = reporter
        self.layers: tuple[Layer, ...] = ()

    def by_layers(self, candidate: str) -> ImageInfo:
        """Assemble the image from layers and load what the daemon lacks, while later layers are still being made."""
        system = self._system(self._base())
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
        self._base()
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

        :param on_layer: called with each layer, in order, as soon as it is there.
        """
        from himl_container.image.layers import build_layers
        from himl_container.image.sdist import ensure_built_wheels

        ensure_built_wheels(
            self.prepared.lock,
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

    def _base(self) -> ImageInfo:
        from himl_container.image.base import resolve_base

        return resolve_base(self.plan.base, engine=self.engine, reporter=self.reporter, platform=self.settings.platform)

    def _system(self, base: ImageInfo) -> ImageInfo:
        from himl_container.image.dockerfile import render_system
        from himl_container.image.system import ensure_system

        text = ""
        if not self.plan.system.empty:
            text = render_system(self.plan.system, self.plan.base, template=self.settings.template)
        return ensure_system(self.plan.system, base, text, engine=self.engine, cache=self.cache, reporter=self.reporter)

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
        candidate = f"himl-candidate:{self.plan.fingerprint[:32]}"
        try:
            self.by_layers(candidate)
            return self._known_activation() or {}
        finally:
            self.engine.remove_image(candidate)

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


def wheel_paths(spec: EnvironmentSpec) -> dict[str, Path]:
    """Return where each private wheel lies, by its sha256."""
    return {wheel.sha256: wheel.path for wheel in spec.wheels}

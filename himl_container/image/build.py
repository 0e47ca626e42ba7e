"""From settings to a tested image in the daemon: the stages of :mod:`himl_container.image` in their order.

::

    settings -> current_lock -> ImagePlan -> look-up -> base, system, layers -> candidate -> smoke test -> tag

The image gets its tag last, so that a tag always names a whole image, and a tested one unless the test was refused
(``build --no-test``): such an image has the tag too, because it has the same bytes, but it is not remembered as tested,
so the next build without ``--no-test`` tests it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from himl_container.cache import Cache
from himl_container.errors import SmokeTestError
from himl_container.image import fingerprint as fingerprints
from himl_container.image.assembly import Assembly, LayerSource, wheel_paths
from himl_container.image.engine import Engine, connect
from himl_container.image.lookup import BuiltImage, find_image
from himl_container.progress import Reporter
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.image.prepare import Prepared
    from himl_container.image.smoke import SmokeReport

__all__ = ["Assembly", "Builder", "LayerSource", "current_fingerprint", "ensure_image", "remember", "wheel_paths"]

Builder = Literal["assemble", "docker"]


def ensure_image(
    settings: Settings,
    *,
    reporter: Reporter,
    locked: bool = False,
    builder: Builder = "assemble",
    connect_engine: Callable[[Cache], Engine] = connect,
    test: bool = True,
    source: LayerSource | None = None,
    prepared: Prepared | None = None,
) -> BuiltImage:
    """Return the image of these settings in the daemon, tested, building what is missing.

    :param locked: fail on a missing or stale lock instead of locking again.
    :param builder: ``docker`` has Docker execute the rendered Dockerfile instead of assembling the image.
    :param test: without, the image is not tested, and not remembered as tested.
    :param source: where the image or its layers may be had besides making them.
    :param prepared: what is known of the image already; the files are not read again then.
    :raises HimlError: any of the family; the image has not got its tag then.
    """
    found = find_image(settings, test=test) if prepared is None else None
    if found is not None:
        return found
    from himl_container.image.prepare import prepare

    cache = Cache(settings.cache_dir)
    # Not before the files are read: what is wrong with them is told first, also where no daemon runs.
    connected = functools.cache(lambda: connect_engine(cache))
    if prepared is None:
        prepared = prepare(settings, engine=connected, reporter=reporter, locked=locked)
    build = _Build(settings, prepared, connected(), cache=cache, reporter=reporter, test=test, source=source)
    with cache.lock(f"build-{prepared.fingerprint[:32]}"):
        return build.found() or build.fetched() or build.made(builder)


def remember(settings: Settings, prepared: Prepared, cache: Cache, *, tested: bool = True) -> None:
    """Keep the fingerprint for :func:`find_image`, and whether its image has passed the test of these settings."""
    files = [*prepared.spec.files, *settings.wheels, settings.lock_file]
    files += [settings.template] if settings.template else []
    fingerprints.remember(settings, files, prepared.fingerprint, cache, tested=tested)


def current_fingerprint(settings: Settings, *, reporter: Reporter) -> str:
    """Return the fingerprint of the image that the lock and the settings describe, without a daemon.

    :raises StaleLockError: the lock is missing or stale.
    """
    cache = Cache(settings.cache_dir)
    known = fingerprints.remembered(settings, cache)
    if known is not None:
        return known
    from himl_container.image.prepare import prepare

    prepared = prepare(settings, engine=lambda: connect(cache), reporter=reporter, locked=True)
    remember(settings, prepared, cache, tested=False)
    return prepared.fingerprint


class _Build:
    """The ways to one image: it is in the daemon, its source has it, or it is made."""

    def __init__(
        self,
        settings: Settings,
        prepared: Prepared,
        engine: Engine,
        *,
        cache: Cache,
        reporter: Reporter,
        test: bool,
        source: LayerSource | None,
    ) -> None:
        self.settings = settings
        self.prepared = prepared
        self.engine = engine
        self.cache = cache
        self.reporter = reporter
        self.test = test
        self.source = source

    def found(self, *, tested: bool = False) -> BuiltImage | None:
        """Return the image that the daemon has, tested now where it has to be.

        :param tested: where the image comes from, it was tested.
        """
        tag = self.prepared.tag
        existing = self.engine.inspect(tag)
        if existing is None:
            return None
        smoke = self._tested(tag) if self.test and not tested else None
        return self._remembered(
            BuiltImage(tag, existing.id, self.prepared.fingerprint, built=False, smoke=smoke), tested
        )

    def fetched(self) -> BuiltImage | None:
        """Return the image of the source, brought into the daemon."""
        if self.source is None:
            return None
        tested = self.source.image(self.prepared, self.engine)
        return None if tested is None else self.found(tested=tested)

    def made(self, builder: Builder) -> BuiltImage:
        """Make the image."""
        from himl_container.image.candidate import candidate_name
        from himl_container.image.dockerfile import needs_docker
        from himl_container.image.explain import record_build
        from himl_container.image.prepare import plan_image

        cache = self.cache if self.source is None else self.source.knowing(self.prepared)
        plan = plan_image(self.prepared, self.settings, cache=cache, reporter=self.reporter, fetch=False)
        assembly = Assembly(
            plan,
            self.prepared,
            self.settings,
            engine=self.engine,
            cache=cache,
            reporter=self.reporter,
            source=self.source,
        )
        with candidate_name(plan.fingerprint, engine=self.engine, cache=self.cache) as candidate:
            docker = builder == "docker" or needs_docker(self.settings.template)
            image = assembly.by_docker(candidate) if docker else assembly.by_layers(candidate)
            smoke = self._tested_candidate(candidate) if self.test else None
            self.engine.tag(candidate, plan.tag)
        spec, lock = self.prepared.spec, self.prepared.lock
        record_build(self.settings, spec, lock, assembly.plan, assembly.layers, image_id=image.id, cache=self.cache)
        built = BuiltImage(plan.tag, image.id, plan.fingerprint, built=True, layers=assembly.layers, smoke=smoke)
        return self._remembered(built, tested=False)

    def _tested_candidate(self, candidate: str) -> SmokeReport:
        try:
            return self._tested(candidate)
        except SmokeTestError as error:
            name, value = self.prepared.tag.rpartition(":")[0], self.prepared.fingerprint
            failed = f"{name}:failed-{value[:24]}"
            self.engine.tag(candidate, failed)
            kept = f"The image is kept as {failed}: docker run --rm -it {failed} bash"
            error.hint = "\n".join(filter(None, (error.hint, kept)))
            raise

    def _tested(self, image: str) -> SmokeReport:
        from himl_container.image.smoke import smoke_test

        return smoke_test(
            image,
            lock=self.prepared.lock,
            settings=self.settings,
            engine=self.engine,
            cache=self.cache,
            reporter=self.reporter,
        )

    def _remembered(self, image: BuiltImage, tested: bool) -> BuiltImage:
        import dataclasses

        tested = tested or image.smoke is not None or fingerprints.tested(self.settings, image.fingerprint, self.cache)
        remember(self.settings, self.prepared, self.cache, tested=tested)
        return dataclasses.replace(image, tested=tested)

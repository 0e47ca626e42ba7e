"""``build`` with a registry: what is there already is taken, what is missing is made, and with ``--push`` sent.

::

    without --push   daemon -> registry: pull -> make, from layers of the registry where it has them
    with --push      registry: done -> (test: the same with a daemon | no test: no daemon) -> push -> index
    emulator exec    (outside) lock -> registry: done or pull -> (outside) make, in the daemon -> push -> index

Each "->" means: only where that did not have it. A question that a registry does not answer is an error and not a
"no": nothing is built on a guess.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from himl_container.cache import Cache
from himl_container.errors import RegistryError, SmokeTestError
from himl_container.image import fingerprint as fingerprints
from himl_container.image.lookup import BuiltImage
from himl_container.outside import outside, undisturbed
from himl_container.progress import Reporter
from himl_container.publish.beside import beside, is_in
from himl_container.publish.model import Pushed, Work
from himl_container.publish.remote import (
    Connect,
    RemoteImage,
    attach_test,
    check_name,
    find_remote,
    not_answered,
    open_repository,
)
from himl_container.registry.api import Repository
from himl_container.registry.api import connect as connect_registry
from himl_container.settings import Settings

if TYPE_CHECKING:  # an image that is in the registry is found with few imports
    from himl_container.image.ahead import WheelsAhead
    from himl_container.image.build import Builder
    from himl_container.image.engine import Engine
    from himl_container.image.model import Layer
    from himl_container.image.prepare import Prepared
    from himl_container.publish.layer_index import LayerIndex
    from himl_container.publish.publication import Publication
    from himl_container.publish.source import RegistrySource


def _connect_engine(cache: Cache) -> Engine:
    from himl_container.image.engine import connect

    return connect(cache)


@dataclass(frozen=True)
class Built:
    """What a build ended with.

    :param tag: the image's name in the daemon.
    :param built: whether anything was made; an image that was found or pulled was not.
    :param tested: whether the image has passed its test, here or where it comes from.
    :param id: the daemon's id of the image; empty where no daemon was asked.
    :param layers: our own layers, where they had to be known.
    :param remote: what the registry has; None where it was not asked.
    :param pushed: what was sent; None where nothing was.
    :param work: what became of the layers that were not in the store.
    """

    tag: str
    fingerprint: str
    built: bool
    tested: bool
    id: str = ""
    layers: tuple[Layer, ...] = ()
    remote: RemoteImage | None = None
    pushed: Pushed | None = None
    work: Work = field(default_factory=Work)
    pulled: bool = False


def build(
    settings: Settings,
    *,
    reporter: Reporter,
    locked: bool = False,
    push: bool = False,
    test: bool = True,
    builder: Builder = "assemble",
    connect_engine: Callable[[Cache], Engine] = _connect_engine,
    connect_to: Connect = connect_registry,
) -> Built:
    """Return the image of these settings: in the daemon, or with ``push`` in the registry.

    :param locked: fail on a missing or stale lock instead of locking again.
    :param push: bring the image into the registry; the daemon need not have it then, nor be there where nothing needs
        it: the image is in the registry, or ``test`` is off and the base is in a registry without a system part.
    :param test: without, the image is neither tested nor called tested.
    :param builder: ``docker`` has Docker execute the rendered Dockerfile.
    :raises RegistryError: the registry cannot be asked, or does not take the image.
    :raises HimlError: any of the family.
    """
    with undisturbed() as there:
        # What is pushed goes nowhere but through the emulator, which lets nothing out unnoticed.
        apart = there is not None and bool(settings.remote_name) and (push or is_in(there.registry, settings))
        flow = _Flow(
            settings,
            reporter,
            locked=locked,
            test=test,
            builder=builder,
            connect_engine=connect_engine,
            connect_to=beside(there, settings, connect_to) if there is not None and apart else connect_to,
            apart=apart,
        )
        if apart:
            return flow.pushed() if push else flow.local()
        with outside():
            return flow.pushed() if push else flow.local()


class _Flow:
    """One build."""

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        *,
        locked: bool,
        test: bool,
        builder: Builder,
        connect_engine: Callable[[Cache], Engine],
        connect_to: Connect,
        apart: bool,
    ) -> None:
        self.settings = settings
        self.reporter = reporter
        self.locked = locked
        self.test = test
        self.builder = builder
        self.connect_to = connect_to
        self.apart = apart  # the registry is reached through an emulator, and packages are not
        self.cache = Cache(settings.cache_dir)
        self.engine = functools.cache(lambda: connect_engine(self.cache))

    def local(self) -> Built:
        """Have the image in the daemon."""
        source = None
        if self.apart and self._look_up(self.prepared.fingerprint) is None:
            return _built(self._made_outside())
        if self.settings.remote_name:
            source = self._source()
        image = self._ensure(source)
        return self._built(image, source) if source is not None else _built(image)

    def pushed(self) -> Built:
        """Have the image in the registry."""
        check_name(self.settings)  # where none is set, that is told first
        known = fingerprints.remembered(self.settings, self.cache)
        if known is not None or self.apart:
            return self._pushed(known or self.prepared.fingerprint)
        from himl_container.image.ahead import WheelsAhead

        with WheelsAhead(self.prepared, self.settings, cache=self.cache, reporter=self.reporter) as ahead:
            if not ahead.active:
                return self._pushed(self.prepared.fingerprint)
            repository = self.repository
            pool = ThreadPoolExecutor(1, thread_name_prefix="index")
            try:
                # Who has a wheel that was never built has an image that was never pushed: the index will be needed.
                index = pool.submit(_fetch_index, repository, self.reporter)
                return self._pushed(self.prepared.fingerprint, ahead, index)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # who presses Ctrl-C does not wait for an answer

    def _pushed(self, known: str, ahead: WheelsAhead | None = None, index: Future[LayerIndex] | None = None) -> Built:
        remote = self._look_up(known)
        if remote is not None:
            if self.test and not remote.tested:
                return self._tested(remote)
            tag = fingerprints.tag_of(self.settings.image_name, known)
            return Built(tag, known, built=False, tested=remote.tested, remote=remote)
        if self.apart:
            self._made_outside()
        source = self._source(asked=True, index=index)
        if ahead is not None:
            source.look_ahead(self.prepared)
            source.made = ahead.made()
        image = self._ensure(source) if self.test or self._by_docker else None
        if image is None:
            image, publication = self._without_test(source)
        else:
            publication = self._from_daemon(source)
        return self._sent(image, publication, source)

    @functools.cached_property
    def repository(self) -> Repository:
        return open_repository(self.settings, self.reporter, self.connect_to)

    @functools.cached_property
    def prepared(self) -> Prepared:
        from himl_container.image.build import remember
        from himl_container.image.prepare import prepare

        with outside():
            prepared = prepare(self.settings, engine=self.engine, reporter=self.reporter, locked=self.locked)
        remember(self.settings, prepared, self.cache, tested=False)
        return prepared

    def _made_outside(self) -> BuiltImage:
        """Have the image in the daemon without the registry, which cannot be reached from where packages can."""
        with outside():
            return self._ensure(None)

    @property
    def _by_docker(self) -> bool:
        from himl_container.image.dockerfile import needs_docker

        return self.builder == "docker" or needs_docker(self.settings.template)

    def _look_up(self, fingerprint: str) -> RemoteImage | None:
        try:
            return find_remote(
                self.settings,
                fingerprint,
                reporter=self.reporter,
                repository=self.repository,
                later_tests=self.test,
            )
        except RegistryError as error:
            raise not_answered(error, self.settings.remote_name) from error

    def _ensure(self, source: RegistrySource | None) -> BuiltImage:
        from himl_container.image.build import ensure_image

        try:
            return ensure_image(
                self.settings,
                reporter=self.reporter,
                locked=self.locked,
                builder=self.builder,
                connect_engine=lambda _: self.engine(),
                test=self.test,
                source=source,
                prepared=self.prepared,
            )
        except RegistryError as error:
            if source is None or source.looked_up:
                raise
            raise not_answered(error, self.settings.remote_name) from error

    def _source(self, *, asked: bool = False, index: Future[LayerIndex] | None = None) -> RegistrySource:
        from himl_container.publish.source import RegistrySource

        return RegistrySource(
            self.settings, self.repository, reporter=self.reporter, asked=asked, connect_to=self.connect_to, index=index
        )

    def _from_daemon(self, source: RegistrySource) -> Publication:
        """Return what the daemon has under the image's tag, as it is."""
        from himl_container.publish.push_source import PushSource

        pushing = PushSource(
            self.settings,
            reporter=self.reporter,
            connect_engine=lambda _: self.engine(),
            connect_registry=self.connect_to,
            prepared=self.prepared,
            cache=source.knowing(self.prepared),
        )
        return pushing.publication(pushing.remotes(source.index, self.repository))

    def _without_test(self, source: RegistrySource) -> tuple[BuiltImage, Publication]:
        from himl_container.publish.publication import Publisher, UnknownActivationError

        publisher = Publisher(self.settings, self.prepared, source, engine=self.engine, reporter=self.reporter)
        try:
            publication = publisher.assembled()
        except UnknownActivationError:
            self.reporter.info("Activation scripts of the environment were never run: that takes a daemon, once.")
            self._ensure(source)
            publication = publisher.assembled()
        image = BuiltImage(
            self.prepared.tag,
            "",
            self.prepared.fingerprint,
            built=True,
            layers=publication.layers,
            # The same bytes may have been tested here before.
            tested=fingerprints.tested(self.settings, self.prepared.fingerprint, self.cache),
        )
        return image, publication

    def _sent(self, image: BuiltImage, publication: Publication, source: RegistrySource) -> Built:
        from himl_container.publish.sending import send

        passed = image.smoke.checks if image.smoke is not None else ()
        remote, pushed = send(publication, self.prepared, source, tested=image.tested, passed=passed)
        work = source.work if source.work != Work() else publication.work
        return replace(_built(image), remote=remote, pushed=pushed, work=work, layers=publication.layers)

    def _tested(self, remote: RemoteImage) -> Built:
        """Test an image that the registry has untested, and say so there. Its digest stays the same."""
        from himl_container.image.build import remember
        from himl_container.image.smoke import smoke_test
        from himl_container.publish.pull import pull_image

        engine = self.engine()
        info = pull_image(
            f"{remote.name}@{remote.manifest.digest}",
            engine=engine,
            cache=self.cache,
            reporter=self.reporter,
            platform=self.settings.platform,
            connect=self._source().connect,
            fingerprint=self.prepared.fingerprint,
        ).image
        try:
            report = smoke_test(
                info.id,
                lock=self.prepared.lock,
                settings=self.settings,
                engine=engine,
                cache=self.cache,
                reporter=self.reporter,
            )
        except SmokeTestError as error:
            told = f"It was pushed untested, and stays in the registry: {remote.reference}"
            error.hint = "\n".join(filter(None, (error.hint, told)))
            raise
        engine.tag(info.id, self.prepared.tag)
        remember(self.settings, self.prepared, self.cache)
        attach_test(self.repository, remote.manifest, self.prepared.fingerprint, report.checks)
        remote = replace(remote, tested=True)
        tag, value = self.prepared.tag, self.prepared.fingerprint
        return Built(tag, value, built=False, tested=True, id=info.id, remote=remote, pulled=True)

    def _built(self, image: BuiltImage, source: RegistrySource) -> Built:
        pulled = source.remote is not None
        return replace(_built(image), remote=source.remote, work=source.work, pulled=pulled)


def _fetch_index(repository: Repository, reporter: Reporter) -> LayerIndex:
    from himl_container.publish.layer_index import LayerIndex

    return LayerIndex.fetch(repository, reporter=reporter)


def _built(image: BuiltImage) -> Built:
    return Built(
        tag=image.tag,
        fingerprint=image.fingerprint,
        built=image.built,
        tested=image.tested,
        id=image.id,
        layers=image.layers,
    )

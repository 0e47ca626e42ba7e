"""From a registry into the daemon: an image on a machine that never built it, and only what is missing of it travels.

::

    name -> manifest for the platform -> configuration -> which layers the daemon lacks -> store of blobs -> daemon

The daemon is not asked to pull. It would need a login of its own, fetch layers that lie in our store already, and
begin each layer that was cut short anew. Ours takes each layer once, compares it with the manifest's digest and with
the configuration's diff id, and sends the daemon what it lacks; the image's id is the configuration's digest in the
classic store, so it is the same as where the image was built.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

from himl_container.cache import Cache
from himl_container.errors import EngineError, RegistryError
from himl_container.image.engine import Engine
from himl_container.image.model import ComposedImage, ImageInfo, chain_ids
from himl_container.progress import Reporter, SilentReporter
from himl_container.publish.known_names import find_known, first_of, images_of, remember
from himl_container.publish.pull_downloads import Downloads, drop_damaged
from himl_container.publish.pull_layers import fetch_layer
from himl_container.publish.pull_manifest import FINGERPRINT_LABEL, RemoteConfig, RemoteImage, find_image, read_config
from himl_container.publish.pull_model import Pulled, PullLayer, PullPlan, Where, registry_reference
from himl_container.registry.api import Repository
from himl_container.registry.api import connect as connect_registry

__all__ = ["PullPlan", "Pulled", "fetch_layer", "plan_pull", "pull", "pull_image"]

Connect = Callable[..., Repository]


def plan_pull(
    name: str,
    *,
    engine: Engine,
    cache: Cache,
    reporter: Reporter | None = None,
    platform: str = "linux-64",
    environ: Mapping[str, str] | None = None,
    connect: Connect = connect_registry,
    fingerprint: str = "",
) -> PullPlan:
    """Return what :func:`pull` would do. Fetches the manifest and the configuration, and keeps nothing.

    Parameters and errors are those of :func:`pull_image`.
    """
    reporter = reporter or SilentReporter()
    opened = functools.partial(connect, reporter=reporter, environ=environ)
    work = _Pull(name, engine=engine, cache=cache, reporter=reporter, platform=platform, connect=opened)
    return work.plan(fingerprint)


def pull_image(
    name: str,
    *,
    engine: Engine,
    cache: Cache,
    reporter: Reporter,
    platform: str = "linux-64",
    environ: Mapping[str, str] | None = None,
    connect: Connect = connect_registry,
    fingerprint: str = "",
) -> Pulled:
    """Bring an image from its registry into the daemon, and say what travelled.

    Without a digest in the name the registry is asked what the tag means now.

    :param name: ``host/repository[:tag][@digest]``; the digest wins. Without a tag, one is made of the digest.
    :param platform: the Conda platform, which chooses among the images of an index.
    :param environ: variables that name logins, proxies and certificates; the process's own when not given.
    :param connect: as :func:`himl_container.registry.api.connect`.
    :param fingerprint: what the image's own label has to say; looked at before any layer is fetched.
    :raises InputError: the name is malformed, or names no registry.
    :raises RegistryError: the registry does not answer, has no such image, or what it gives is damaged.
    :raises EngineError: the daemon went away, or has something else in the end than what was sent.
    :raises StorageError: the cache cannot be written.
    """
    opened = functools.partial(connect, reporter=reporter, environ=environ)
    work = _Pull(name, engine=engine, cache=cache, reporter=reporter, platform=platform, connect=opened)
    return work.pull(fingerprint)


def pull(
    name: str,
    *,
    engine: Engine,
    cache: Cache,
    reporter: Reporter,
    platform: str = "linux-64",
    environ: Mapping[str, str] | None = None,
    connect: Connect = connect_registry,
) -> ImageInfo:
    """Bring an image from its registry into the daemon and return it; see :func:`pull_image`."""
    return pull_image(
        name, engine=engine, cache=cache, reporter=reporter, platform=platform, environ=environ, connect=connect
    ).image


class _Pull:
    """One image on its way."""

    def __init__(
        self,
        name: str,
        *,
        engine: Engine,
        cache: Cache,
        reporter: Reporter,
        platform: str,
        connect: Connect,
    ) -> None:
        self._reference = registry_reference(name)
        self._name, self._platform = name, platform
        self._engine, self._cache, self._reporter = engine, cache, reporter
        self._connect = connect
        self._fetched = self._received = 0

    def plan(self, fingerprint: str) -> PullPlan:
        known = self._present_by_digest()
        if known is not None:
            self._check(known.labels.get(FINGERPRINT_LABEL, ""), fingerprint)
            return PullPlan(self._name, self._tag(), (self._asked(),), present=known)
        repository, image = self._look_up()
        tag = self._tag()
        present = self._present(image)
        if present is not None:
            self._check(present.labels.get(FINGERPRINT_LABEL, ""), fingerprint)
            return PullPlan(self._name, tag, image.names, present=present)
        config = read_config(repository, image, platform=self._platform)
        self._check(config.fingerprint, fingerprint)
        return PullPlan(self._name, tag, image.names, self._layers(image, config))

    def pull(self, fingerprint: str) -> Pulled:
        known = self._present_by_digest()
        if known is not None:
            self._check(known.labels.get(FINGERPRINT_LABEL, ""), fingerprint)
            names = (self._asked(),)
            return Pulled(self._named(known, names), self._tag(), names, existed=True)
        repository, image = self._look_up()
        present = self._present(image)
        existed = present is not None
        if present is None:
            config = read_config(repository, image, platform=self._platform)
            self._check(config.fingerprint, fingerprint)
            present = self._bring(repository, image, config)
        self._check(present.labels.get(FINGERPRINT_LABEL, ""), fingerprint)
        remember(self._cache, {present.id, image.config.digest}, image.names)
        return Pulled(
            image=self._named(present, image.names),
            tag=self._tag(),
            names=image.names,
            fetched=self._fetched,
            bytes_received=self._received,
            requests=repository.requests,
            existed=existed,
        )

    def _check(self, found: str, expected: str) -> None:
        if expected and found != expected:
            raise RegistryError(
                f"the registry's image of this name was made from other inputs ({found[:12] or 'not by this tool'})",
                where=self._name,
                hint="Somebody has pushed another image under the tag of this lock; build and push the right one.",
            )

    def _look_up(self) -> tuple[Repository, RemoteImage]:
        repository = self._connect(self._reference.repository)
        asked = self._reference.digest or self._reference.tag or "latest"
        return repository, find_image(repository, asked, platform=self._platform)

    def _present_by_digest(self) -> ImageInfo | None:
        """Return the daemon's image of the digest that was asked for, without asking the registry."""
        if not self._reference.digest:
            return None
        return find_known(self._asked(), engine=self._engine, cache=self._cache, platform=self._platform)

    def _present(self, image: RemoteImage) -> ImageInfo | None:
        """Return the daemon's image of a configuration: its id, in the classic store."""
        ids = (image.config.digest, *images_of(self._cache, image.manifest.digest))
        return first_of(ids, engine=self._engine, platform=self._platform)

    def _bring(self, repository: Repository, image: RemoteImage, config: RemoteConfig) -> ImageInfo:
        layers = self._layers(image, config)
        try:
            return self._load(repository, config, layers)
        except (EngineError, FileNotFoundError):
            # What we counted on may be gone: an image of the daemon, a blob of the store, or its soundness.
            damaged = drop_damaged(layers, self._cache)
            again = self._layers(image, config)
            pairs = zip(layers, again, strict=True)
            lost = any(old.where != "registry" and new.where not in ("daemon", old.where) for old, new in pairs)
            if not damaged and not lost:
                raise
            return self._load(repository, config, again)

    def _load(self, repository: Repository, config: RemoteConfig, layers: tuple[PullLayer, ...]) -> ImageInfo:
        """Fetch what is missing and hand it to the daemon, each layer as soon as those below it are there."""
        ours = [layer for layer in layers if layer.where != "daemon"]
        below = ImageInfo(
            id="",
            tags=(),
            repo_digests=(),
            diff_ids=config.diff_ids[: len(layers) - len(ours)],
            architecture=config.architecture,
            os="linux",
            size=0,
        )
        with (
            Downloads(self._name, ours, repository, cache=self._cache, reporter=self._reporter) as downloads,
            self._engine.load_stream(below, self._reporter) as stream,
        ):
            taken = []
            for layer in downloads:
                stream.add(layer)
                taken.append(layer)
            self._fetched += len(downloads.missing)
            self._received += downloads.received
            found = stream.finish(ComposedImage(config.data, config.diff_ids, tuple(taken), self._tag()))
        if found.diff_ids != config.diff_ids:
            with contextlib.suppress(EngineError):
                self._engine.remove_image(self._tag())
            raise EngineError(
                "the daemon has other layers than the registry's image",
                where=self._name,
                hint="Pull it again. Its name was taken away from what the daemon has.",
            )
        return found

    def _layers(self, image: RemoteImage, config: RemoteConfig) -> tuple[PullLayer, ...]:
        """Say where each layer is. The daemon's layers are always the lowest: a chain id names all that is below."""
        chains = self._engine.known_chain_ids()
        result, present = [], True
        parts = zip(config.layer_names, config.diff_ids, image.layers, chain_ids(config.diff_ids), strict=True)
        for name, diff_id, blob, chain in parts:
            present = present and chain in chains
            where: Where = "daemon" if present else "store" if self._cache.blob(diff_id).is_file() else "registry"
            result.append(PullLayer(name, diff_id, blob, where))
        return tuple(result)

    def _named(self, found: ImageInfo, names: tuple[str, ...]) -> ImageInfo:
        tag = self._tag()
        if tag not in found.tags:
            self._engine.tag(found.id, tag)
        tags = tuple(dict.fromkeys((*found.tags, tag)))
        return replace(found, tags=tags, repo_digests=tuple(dict.fromkeys((*names, *found.repo_digests))))

    def _asked(self) -> str:
        return self._reference.at(self._reference.digest)

    def _tag(self) -> str:
        """The name in the daemon. An image without one would be the first to go when somebody tidies up."""
        name = self._reference
        return name.tagged if name.tag or not name.digest else f"{name.repository}:pulled-{name.digest[7:39]}"

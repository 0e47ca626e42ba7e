"""From settings to an image in the registry: the built image of these settings, pushed.

::

    settings -> fingerprint -> what has the registry? -> the image in the daemon -> PushImage -> push
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from himl_container.cache import Cache
from himl_container.errors import EngineError
from himl_container.image import fingerprint as fingerprints
from himl_container.image.engine import Engine
from himl_container.image.engine import connect as connect_engine_
from himl_container.progress import Reporter
from himl_container.publish.model import Pushed
from himl_container.publish.push_result import diff_ids_of, layers_of, other_image, same_image
from himl_container.publish.remote import Connect, open_repository
from himl_container.registry.api import Repository, connect
from himl_container.registry.model import Manifest
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.publish.engine_layers import OpenArchive
    from himl_container.publish.push_source import PushSource


class LocalImage(Protocol):
    """What has to be known of a daemon's image to tell whether it is another's equal."""

    @property
    def id(self) -> str:
        """The daemon's id of it."""

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Its layers."""


def push_image(
    settings: Settings,
    *,
    reporter: Reporter,
    connect_engine: Callable[[Cache], Engine] = connect_engine_,
    connect_registry: Connect = connect,
    open_archive: OpenArchive | None = None,
) -> Pushed:
    """Push the built image of these settings under its tag, with its proof; nothing is sent when the registry has it.

    Layers travel in the form that the registry's layer index names, and the index learns those that are new.

    :param open_archive: how to get the daemon's export of an image.
    :raises InputError: no registry is set.
    :raises StaleLockError: the lock is missing or stale, so no image of the present inputs was built.
    :raises BuildError: the image is not built.
    :raises HimlError: as :func:`himl_container.publish.push.push`.
    """

    def source() -> PushSource:
        from himl_container.publish.push_source import PushSource

        return PushSource(
            settings,
            reporter=reporter,
            connect_engine=connect_engine,
            connect_registry=connect_registry,
            open_archive=open_archive,
        )

    repository = open_repository(settings, reporter, connect_registry)
    requests = repository.requests
    fingerprint = fingerprints.remembered(settings, Cache(settings.cache_dir)) or source().fingerprint
    existing = find_pushed(settings, fingerprint, repository)
    pushed = existing or _push(source(), repository)
    return replace(pushed, requests=repository.requests - requests)


def find_pushed(settings: Settings, fingerprint: str, repository: Repository) -> Pushed | None:
    """Return the image that the registry has under a fingerprint's tag; None where it has none.

    One request to the registry and one to the daemon. Without a daemon there is nothing that it could differ from.

    :raises RegistryError: it is another image than the one in the daemon.
    """
    from himl_container.image.probe import image_exists

    tag = fingerprint[:32]
    found = repository.manifest(tag)
    if found is None:
        return None
    try:
        local = image_exists(fingerprints.tag_of(settings.image_name, fingerprint))
    except EngineError:
        local = None
    check_same(repository, tag, found, local)
    return Pushed(f"{repository.host}/{repository.name}:{tag}", found.descriptor, layers_of(found), existed=True)


def _push(source: PushSource, repository: Repository) -> Pushed:
    from himl_container.publish.sending import send
    from himl_container.publish.source import RegistrySource

    source.info  # noqa: B018 - what is not built is told before the registry is asked anything more
    settings, prepared = source.settings, source.prepared
    registry = RegistrySource(
        settings, repository, reporter=source.reporter, asked=True, connect_to=source.connect_registry
    )
    publication = source.publication(source.remotes(registry.index, repository))
    tested = fingerprints.tested(settings, prepared.fingerprint, source.cache)
    return send(publication, prepared, registry, tested=tested)[1]


def check_same(repository: Repository, tag: str, found: Manifest, local: LocalImage | None) -> None:
    """See that the image under a tag is the one that the daemon has under it, where it has one.

    In the classic store the image's id is the configuration's digest; elsewhere the layers are compared.

    :raises RegistryError: it is another.
    """
    if local is None or same_image(found, local.id) or found.digest == local.id:
        return
    config = found.content.get("config")
    digest = config.get("digest") if isinstance(config, dict) else None
    if isinstance(digest, str) and diff_ids_of(repository.blob(digest)) == local.diff_ids:
        return
    raise other_image(f"{repository.host}/{repository.name}:{tag}", found.digest)

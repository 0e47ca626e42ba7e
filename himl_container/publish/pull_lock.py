"""The image of a lock from the registry: somebody with the same lock has pushed it, so nobody else need build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from himl_container.cache import Cache
from himl_container.errors import InputError, RegistryError
from himl_container.image.build import remember
from himl_container.image.engine import Engine
from himl_container.image.prepare import Prepared, prepare
from himl_container.progress import Reporter
from himl_container.publish.pull import pull_image
from himl_container.publish.pull_model import Pulled
from himl_container.publish.remote import Connect, find_remote, open_repository
from himl_container.registry.api import connect as connect_registry
from himl_container.settings import Settings


@dataclass(frozen=True)
class LockedImage:
    """The image that the registry has, or would have, for a lock.

    :param name: ``host/repository:tag`` in the registry.
    """

    name: str
    prepared: Prepared


def locked_image(settings: Settings, *, engine: Callable[[], Engine], reporter: Reporter) -> LockedImage:
    """Return the name under which the registry has the image of these settings. Asks nobody, and writes nothing.

    :raises InputError: the settings name no registry.
    :raises StaleLockError: the lock is missing or stale: what it would be is not what others have.
    """
    if not settings.remote_name:
        raise InputError(
            "no registry is set",
            hint="Set 'registry' in [tool.himl-container], use --registry, or give the image's full name.",
        )
    prepared = prepare(settings, engine=engine, reporter=reporter, locked=True, write=False)
    return LockedImage(f"{settings.remote_name}:{prepared.fingerprint[:32]}", prepared)


def pull_locked(
    found: LockedImage,
    settings: Settings,
    *,
    engine: Callable[[], Engine],
    cache: Cache,
    reporter: Reporter,
    connect: Connect = connect_registry,
) -> Pulled:
    """Bring the image of a lock into the daemon, under its name in the registry and its local one.

    The next build finds it there as if it had been made here. It is tested then, unless it was where it comes from.

    :param engine: called once the registry is known to have the image.
    :raises RegistryError: as :func:`himl_container.publish.pull.pull_image`, or the image was made from other inputs.
    """
    prepared = found.prepared
    repository = open_repository(settings, reporter, connect)
    remote = find_remote(settings, prepared.fingerprint, reporter=reporter, repository=repository)
    if remote is None:
        raise RegistryError(
            "the registry has no image of this lock",
            where=found.name,
            hint="Build and push it ('himl-container build --push'), or look at another commit's lock.",
        )
    pulled = pull_image(
        f"{found.name}@{remote.manifest.digest}",
        engine=engine(),
        cache=cache,
        reporter=reporter,
        platform=settings.platform,
        connect=lambda *_, **__: repository,
        fingerprint=prepared.fingerprint,
    )
    if prepared.tag not in pulled.image.tags:
        engine().tag(pulled.image.id, prepared.tag)
    remember(settings, prepared, cache, tested=remote.tested)
    tags = tuple(dict.fromkeys((*pulled.image.tags, prepared.tag)))
    return replace(pulled, image=replace(pulled.image, tags=tags), tag=prepared.tag, requests=repository.requests)

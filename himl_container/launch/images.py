"""The image of a run: one that is named, or that of the project's lock; exactly, as the run's record keeps it.

A named image that the daemon lacks comes from its registry. That of the lock comes from the daemon, else from the
registry of the settings, and is built only where neither has it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

from himl_container.cache import Cache
from himl_container.config.images import has_host
from himl_container.errors import InputError, LaunchError
from himl_container.image.lookup import find_image
from himl_container.image.probe import image_exists
from himl_container.launch.spec import ImageRef
from himl_container.progress import Reporter
from himl_container.publish.known_names import names_of
from himl_container.registry.reference import is_image, parse_reference
from himl_container.settings import Settings


def check_name(name: str) -> None:
    """Check the name or id of an image.

    :raises InputError: it is none.
    """
    if not is_image(name):
        raise InputError(
            f"{name!r} is not the name of an image",
            where="--image",
            hint="Expected [registry/]repository[:tag][@sha256:digest], or an id of the daemon's.",
        )


def named_image(
    name: str, settings: Settings, *, reporter: Reporter, environ: Mapping[str, str] = os.environ
) -> ImageRef:
    """Return an image by name, digest or id: the daemon's, else its registry's, pulled.

    A tag that the daemon has is taken as it is there; ``himl-container pull`` asks what it means now.

    :raises InputError: it is no name of an image.
    :raises LaunchError: the daemon does not have it, and it names no registry.
    :raises RegistryError: the registry does not give it.
    :raises EngineError: no daemon answers.
    """
    check_name(name)
    cache = Cache(settings.cache_dir)
    found = image_exists(name, environ)
    if found is not None:
        reference = parse_reference(name) if "@" in name else None
        exact = reference.at(reference.digest) if reference else ""
        return ImageRef(name, found.id, exact or _registry_name(cache, found.id, settings))
    if not has_host(name.partition("@")[0]):
        raise LaunchError(
            f"the Docker daemon has no image {name!r}",
            where="--image",
            hint="Build or load it first, or give the name that it has in a registry: HOST/REPOSITORY:TAG.",
        )
    from himl_container.image.engine import connect
    from himl_container.publish.pull import pull_image

    pulled = pull_image(
        name, engine=connect(cache), cache=cache, reporter=reporter, platform=settings.platform, environ=environ
    )
    return ImageRef(name, pulled.image.id, pulled.names[0])


def project_image(settings: Settings, *, reporter: Reporter, locked: bool = False) -> ImageRef:
    """Return the image of the project's lock: the daemon's, else the registry's, else built and tested.

    :param locked: fail on a missing or stale lock instead of locking again.
    :raises RegistryError: a registry is set and cannot be asked; nothing is built on a guess.
    :raises HimlError: as :func:`himl_container.publish.build.build`.
    """
    found = find_image(settings)
    if found is not None:
        tag, id_, fingerprint, digest = found.tag, found.id, found.fingerprint, ""
    else:
        from himl_container.publish.build import build

        built = build(settings, reporter=reporter, locked=locked)
        tag, id_, fingerprint = built.tag, built.id, built.fingerprint
        digest = built.remote.reference if built.remote is not None else ""
    return ImageRef(
        tag=tag,
        id=id_,
        digest=digest or _registry_name(Cache(settings.cache_dir), id_, settings),
        fingerprint=fingerprint,
        lock=hashlib.sha256(settings.lock_file.read_bytes()).hexdigest(),
    )


def _registry_name(cache: Cache, id_: str, settings: Settings) -> str:
    """Return the ``repository@digest`` name of an image where one is known, in the project's repository if possible."""
    names = names_of(cache, id_)
    ours = [name for name in names if name.partition("@")[0] == settings.remote_name]
    return next(iter([*ours, *names]), "")

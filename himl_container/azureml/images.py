"""The image of a run in AzureML: in a registry that the cluster pulls from, and known by its digest.

What was once seen in a registry is kept on disk for a day, so that a rerun asks nothing: what a digest means never
changes, and that an image went away since is rare, and said by the run itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from himl_container.azureml.constants import ENV_EMULATOR_CONFIG
from himl_container.cache import Cache
from himl_container.config.images import has_host
from himl_container.errors import StorageError
from himl_container.progress import Reporter

if TYPE_CHECKING:
    from azureml.core import Workspace

    from himl_container.launch.spec import ImageRef
    from himl_container.publish.build import Built
    from himl_container.settings import Settings

REMEMBERED = 24 * 3600.0
"""Seconds for which a registry is not asked again whether it has an image."""

_KIND = "pushed-images"


def pushed_image(
    settings: Settings,
    workspace: Workspace,
    reporter: Reporter,
    *,
    locked: bool = False,
    test: bool = True,
    clock: Callable[[], float] = time.time,
) -> ImageRef:
    """Return the image of the project's lock with its digest in a registry; builds, tests and pushes what is missing.

    The registry is that of the settings, where they name one, else the workspace's own, which its clusters can always
    pull from.

    :param locked: fail on a missing or stale lock instead of locking again.
    :param test: without, an image that was never tested will do.
    :raises HimlError: as :func:`himl_container.publish.build.build`.
    """
    settings = for_workspace(settings, workspace)
    cache = Cache(settings.cache_dir)
    known = _remembered(settings, workspace, cache, test=test, now=clock())
    if known is not None:
        return known
    from himl_container.publish.build import build

    built = build(settings, reporter=reporter, locked=locked, push=True, test=test)
    image = _reference(settings, built.tag, built.fingerprint, _digest(built))
    with contextlib.suppress(StorageError):  # then it is asked for again
        seen = {"digest": image.digest, "tested": built.tested, "time": clock()}
        cache.write_json(seen, "memo", _KIND, _file(settings, workspace, built.fingerprint))
    return image


def for_workspace(settings: Settings, workspace: Workspace) -> Settings:
    """Return the settings with a registry: the workspace's own where they name none, and on the emulator always.

    :raises WrongValue: the workspace has none.
    """
    if os.environ.get(ENV_EMULATOR_CONFIG):
        settings = for_emulator(settings)
    if settings.remote_name:
        return settings
    from himl_container.azureml.workspace_registry import registry_of

    return dataclasses.replace(settings, registry=registry_of(workspace, Cache(settings.cache_dir)))


def for_emulator(settings: Settings) -> Settings:
    """Return the settings for the emulator, whose own registry is the only one that its clusters should need."""
    name = settings.image_name
    if has_host(name):
        name = name.partition("/")[2]
    return dataclasses.replace(settings, registry="", image_name=name)


def _remembered(settings: Settings, workspace: Workspace, cache: Cache, *, test: bool, now: float) -> ImageRef | None:
    """Return an image that the registry had lately, where nothing that it is made of has changed."""
    from himl_container.image import fingerprint as fingerprints

    value = fingerprints.remembered(settings, cache)
    if value is None or not settings.lock_file.is_file():
        return None
    seen = cache.read_json("memo", _KIND, _file(settings, workspace, value))
    if not isinstance(seen, dict) or not isinstance(seen.get("digest"), str):
        return None
    if (test and seen.get("tested") is not True) or not 0 <= now - float(seen.get("time", 0)) <= REMEMBERED:
        return None
    return _reference(settings, fingerprints.tag_of(settings.image_name, value), value, seen["digest"])


def _reference(settings: Settings, tag: str, fingerprint: str, digest: str) -> ImageRef:
    from himl_container.launch.spec import ImageRef

    lock = hashlib.sha256(settings.lock_file.read_bytes()).hexdigest()
    return ImageRef(tag=tag, digest=digest, fingerprint=fingerprint, lock=lock)


def _digest(built: Built) -> str:
    """Return the name by digest of an image that was found in a registry or pushed to it."""
    assert built.remote is not None  # what 'push' is for
    return built.remote.reference


def _file(settings: Settings, workspace: Workspace, fingerprint: str) -> str:
    """Return the name of what is kept: of an image in a repository, as this workspace's jobs have it."""
    from himl_container.azureml.workspace_registry import workspace_key

    parts = (workspace_key(workspace), settings.remote_name, settings.compression, fingerprint)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest() + ".json"

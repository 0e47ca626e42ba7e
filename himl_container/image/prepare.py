"""Everything that is known before an image is built: the declaration, its lock, the fingerprint, the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from himl_container.cache import Cache
from himl_container.environment.model import EnvironmentSpec, Lock
from himl_container.errors import StaleLockError
from himl_container.image.engine import Engine
from himl_container.image.fingerprint import fingerprint, tag_of
from himl_container.image.model import ImagePlan, SystemPlan
from himl_container.progress import Reporter
from himl_container.settings import Settings


@dataclass(frozen=True)
class Prepared:
    """What is built, and why.

    :param stale: why the lock that was found was not current; empty where it was.
    :param tag: the image's full name.
    """

    spec: EnvironmentSpec
    lock: Lock
    stale: tuple[str, ...]
    system: SystemPlan
    fingerprint: str
    tag: str


def prepare(
    settings: Settings,
    *,
    engine: Callable[[], Engine],
    reporter: Reporter,
    locked: bool = False,
    write: bool = True,
) -> Prepared:
    """Read the environment, lock it anew where its lock is not current, and compute the fingerprint.

    :param engine: called only where locking needs a daemon.
    :param locked: fail instead of locking anew.
    :param write: whether a new lock is written; a dry run writes nothing.
    :raises StaleLockError: ``locked``, and the lock is missing or stale.
    """
    from himl_container.environment.declare import load_environment
    from himl_container.environment.lock import compare

    cache = Cache(settings.cache_dir)
    spec = load_environment(settings, reporter, cache=cache)
    lock, stale = compare(spec, settings.lock_file, settings, cache=cache)
    if stale and locked:
        raise StaleLockError(
            "the lock is not current: " + "; ".join(stale),
            where=str(settings.lock_file),
            hint="Run 'himl-container lock' and commit the result.",
        )
    if lock is None or stale:
        from himl_container.environment.lockfile import lock_text, write_lock
        from himl_container.image.locking import new_lock

        lock = new_lock(spec, settings, upgrade=None, engine=engine, reporter=reporter)
        content = lock_text(lock).encode()
        if write:
            write_lock(lock, settings.lock_file)
    else:
        content = settings.lock_file.read_bytes()
    system = SystemPlan(settings.apt, settings.system_lines)
    template = settings.template.read_bytes() if settings.template else b""
    value = fingerprint(content, system, template)
    return Prepared(spec, lock, stale, system, value, tag_of(settings.image_name, value))


def plan_image(
    prepared: Prepared, settings: Settings, *, cache: Cache, reporter: Reporter, fetch: bool = True
) -> ImagePlan:
    """Return what is to be built, as plain data.

    :param fetch: look into the packages for paths that several of them have, downloading those never seen; without,
        the plan assumes that these share none, and says so (``assumed``).
    """
    from himl_container.image.clobber import all_known, excluded_paths
    from himl_container.image.config import image_labels
    from himl_container.image.plan import plan_layers

    known = fetch or all_known(prepared.lock, cache)
    excluded = excluded_paths(prepared.lock, cache=cache, settings=settings, reporter=reporter, fetch=fetch)
    return ImagePlan(
        fingerprint=prepared.fingerprint,
        repository=settings.image_name,
        base=prepared.lock.base,
        system=prepared.system,
        layers=plan_layers(prepared.lock, excluded=excluded),
        environment=prepared.lock.variables,
        labels=image_labels(prepared.lock, prepared.fingerprint),
        assumed=not known,
    )

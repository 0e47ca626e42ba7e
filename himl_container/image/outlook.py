"""Whether the next build is needed, and why, without building or locking anything."""

from __future__ import annotations

from dataclasses import replace

from himl_container.cache import Cache
from himl_container.errors import EngineError
from himl_container.image.explain import Explanation, changes_between, explain, inputs_of
from himl_container.image.fingerprint import fingerprint
from himl_container.image.model import SystemPlan
from himl_container.progress import Reporter
from himl_container.settings import Settings


def explain_with_outlook(settings: Settings, *, reporter: Reporter) -> Explanation | None:
    """Return :func:`himl_container.image.explain.explain` with what has changed since; None where nothing is recorded.

    Without a daemon only the inputs are compared.

    :raises InputError: the environment cannot be read.
    """
    from himl_container.environment.declare import load_environment
    from himl_container.environment.lock import check
    from himl_container.environment.lockfile import read_lock

    known = explain(settings, Cache(settings.cache_dir))
    if known is None:
        return None
    spec = load_environment(settings, reporter)
    stale = check(spec, settings.lock_file, settings)
    if stale:
        return replace(known, needed=tuple(f"the lock is not current: {reason}" for reason in stale))
    lock = read_lock(settings.lock_file)
    system = SystemPlan(settings.apt, settings.system_lines)
    template = settings.template.read_bytes() if settings.template else b""
    value = fingerprint(settings.lock_file.read_bytes(), system, template)
    now = changes_between(known.last.inputs, inputs_of(settings, spec.files, lock, system))
    needed: tuple[str, ...] = ()
    if value != known.last.fingerprint:
        needed = tuple(str(change) for change in now) or ("the lock file has other bytes than at the last build",)
    elif not _exists(known.last.tag):
        needed = ("the daemon does not have the image any more",)
    return replace(known, now=now, needed=needed)


def _exists(tag: str) -> bool:
    from himl_container.image.probe import image_exists

    try:
        return image_exists(tag) is not None
    except EngineError:
        return True  # no daemon answers, so nothing is known against it

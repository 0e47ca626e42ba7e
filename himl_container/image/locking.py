"""Locking for real: the solvers joined with the daemon, which pins the base and builds source distributions."""

from __future__ import annotations

from collections.abc import Callable

from himl_container.cache import Cache
from himl_container.environment.model import BasePin, EnvironmentSpec, Lock
from himl_container.image.engine import Engine
from himl_container.progress import Reporter
from himl_container.settings import Settings


def new_lock(
    spec: EnvironmentSpec,
    settings: Settings,
    *,
    upgrade: frozenset[str] | None,
    engine: Callable[[], Engine],
    reporter: Reporter,
) -> Lock:
    """Return the lock of an environment, the one on disk where it is current and nothing is to move. Writes nothing.

    :param upgrade: names to move on purpose; empty for all of them, None for none.
    :param engine: called only where the base image's digest is asked for, or a source distribution has to be built.
    :raises UnsolvableError: no set of packages satisfies the environment.
    """
    from himl_container.environment.lock import make_lock
    from himl_container.environment.lockfile import read_lock
    from himl_container.image.sdist import SdistBuilder

    cache = Cache(settings.cache_dir)

    def pin(reference: str) -> BasePin:
        from himl_container.image.base import pin_base
        from himl_container.registry.reference import parse_reference

        digest = parse_reference(reference).digest
        # A digest in the name is the pin; a machine without a daemon can lock then.
        return BasePin(reference, digest=digest) if digest else pin_base(reference, engine=engine())

    return make_lock(
        spec,
        settings,
        previous=read_lock(settings.lock_file) if settings.lock_file.is_file() else None,
        upgrade=upgrade,
        resolve_base=pin,
        build_wheel=SdistBuilder(settings, engine, cache, reporter),
        cache=cache,
        reporter=reporter,
    )

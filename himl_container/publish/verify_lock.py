"""What follows from the lock in the working folder, without building, locking or fetching anything."""

from __future__ import annotations

from himl_container.cache import Cache
from himl_container.environment.model import Lock
from himl_container.errors import BuildError, InputError
from himl_container.image.fingerprint import fingerprint
from himl_container.image.model import SystemPlan
from himl_container.image.plan import plan_layers
from himl_container.image.store import LayerStore
from himl_container.progress import SilentReporter
from himl_container.publish.verify_compare import LockFacts
from himl_container.registry.model import sha256_of
from himl_container.settings import Settings


def project_lock(settings: Settings) -> LockFacts | None:
    """Return the lock of the settings; None where there is no such file.

    :raises InputError: it cannot be read or is damaged, or the template cannot be read.
    """
    from himl_container.environment.lock_reader import read_lock_text

    path = settings.lock_file
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"the lock cannot be read: {reason}", where=str(path)) from error
    lock = read_lock_text(text, where=str(path))
    try:
        template = settings.template.read_bytes() if settings.template else b""
    except OSError as error:
        raise InputError(f"the template cannot be read: {error.strerror}", where=str(settings.template)) from error
    value = fingerprint(data, SystemPlan(settings.apt, settings.system_lines), template)
    return LockFacts(lock, sha256_of(data), value, _layers(lock, settings))


def _layers(lock: Lock, settings: Settings) -> dict[str, str]:
    """Return the diff ids of the layers that were made by this lock's plans here; of none where planning needs more.

    A layer's key takes in which paths a package loses to another one, so it is known only where all packages are.
    """
    from himl_container.image.clobber import all_known, excluded_paths

    cache = Cache(settings.cache_dir)
    if not all_known(lock, cache):
        return {}
    try:
        excluded = excluded_paths(lock, cache=cache, settings=settings, reporter=SilentReporter(), fetch=False)
    except BuildError:
        return {}  # nothing can have been built of it: a package has a link script that is not allowed
    store = LayerStore(cache)
    layers = ((plan.name, store.get(plan.key)) for plan in plan_layers(lock, excluded=excluded))
    return {name: layer.digest for name, layer in layers if layer is not None}

"""``render``: the Dockerfile as text from the plan alone, or the whole build context in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from himl_container.cache import Cache
from himl_container.image.engine import Engine, connect
from himl_container.image.model import ImagePlan, Layer, LayerPlan
from himl_container.progress import Reporter
from himl_container.settings import Settings


def render_text(
    settings: Settings, *, reporter: Reporter, locked: bool = False, connect_engine: Callable[[Cache], Engine] = connect
) -> str:
    """Return the Dockerfile, without making, downloading or writing anything.

    A stale lock is solved anew, but not written. Activation scripts of packages whose layers do not exist yet are not
    known; what they set is then missing in the text, and the reporter says so.

    :raises StaleLockError: ``locked``, and the lock is missing or stale.
    """
    from himl_container.image.activation import known_activation
    from himl_container.image.dockerfile import render_dockerfile
    from himl_container.image.prepare import plan_image, prepare

    cache = Cache(settings.cache_dir)
    prepared = prepare(settings, engine=lambda: connect_engine(cache), reporter=reporter, locked=locked, write=False)
    plan = plan_image(prepared, settings, cache=cache, reporter=reporter, fetch=False)
    layers = _stored(plan.layers, cache)
    activation = known_activation(layers, cache=cache, plan=plan) if layers is not None else None
    if activation is None:
        reporter.info("Variables that activation scripts set are known once the layers are made.")
    return render_dockerfile(plan, activation=activation, template=settings.template)


def render_context(
    settings: Settings,
    folder: Path,
    *,
    reporter: Reporter,
    locked: bool = False,
    connect_engine: Callable[[Cache], Engine] = connect,
) -> ImagePlan:
    """Write the build context into ``folder`` and return the plan that it carries out.

    A daemon is asked only where one is needed: to pin a base image that the lock does not have, or to run activation
    scripts that were never run before.

    :raises HimlError: any of the family; the folder is as it was then.
    """
    from himl_container.image.assembly import Assembly, late_engine
    from himl_container.image.context import check_folder
    from himl_container.image.prepare import plan_image, prepare

    check_folder(folder.absolute())  # before minutes of work
    cache = Cache(settings.cache_dir)
    engine = late_engine(lambda: connect_engine(cache))
    prepared = prepare(settings, engine=lambda: engine, reporter=reporter, locked=locked)
    plan = plan_image(prepared, settings, cache=cache, reporter=reporter, fetch=False)
    assembly = Assembly(plan, prepared, settings, engine=engine, cache=cache, reporter=reporter)
    assembly.render(folder)
    return assembly.plan


def _stored(plans: tuple[LayerPlan, ...], cache: Cache) -> tuple[Layer, ...] | None:
    """Return the layers, where the store has all of them."""
    from himl_container.image.store import LayerStore

    store = LayerStore(cache)
    layers = [store.get(plan.key, plan.name) for plan in plans]
    found = tuple(layer for layer in layers if layer is not None)
    return found if len(found) == len(plans) else None

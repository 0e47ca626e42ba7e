"""Layers of packages that were never seen: made on an assumption, which is checked."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from assembly import GENERIC, Told, lock_of, locked, members, settings_of

from himl_container.cache import Cache
from himl_container.environment.model import EnvironmentSpec
from himl_container.errors import BuildError
from himl_container.image.assembly import Assembly
from himl_container.image.engine import Engine
from himl_container.image.model import SystemPlan
from himl_container.image.prepare import Prepared, plan_image
from himl_container.image.store import LayerStore
from himl_container.settings import Settings


def assembly(channel: Path, settings: Settings, told: Told, *names: str, fetch: bool) -> Assembly:
    lock = lock_of(locked(channel, *names))
    spec = EnvironmentSpec("test", ("conda-forge",), ())
    prepared = Prepared(spec, lock, (), SystemPlan(), "f" * 64, "himl:" + "f" * 32)
    cache = Cache(settings.cache_dir)
    plan = plan_image(prepared, settings, cache=cache, reporter=told, fetch=fetch)
    return Assembly(plan, prepared, settings, engine=cast("Engine", None), cache=cache, reporter=told)


def test_packages_that_turn_out_to_share_a_path_give_the_same_layers_as_when_it_is_known(
    channel: Path, tmp_path: Path
) -> None:
    told = Told()
    assumed = assembly(channel, settings_of(channel, tmp_path / "assumed"), told, *GENERIC, fetch=False)
    assert assumed.plan.assumed
    known = assembly(channel, settings_of(channel, tmp_path / "known"), Told(), *GENERIC, fetch=True)
    assert not known.plan.assumed

    layers = assumed.build_layers()

    assert layers == known.build_layers()
    assert assumed.plan == known.plan
    assert len([text for text in told.warnings if "clash-a" in text and "clash-b" in text]) == 1
    assert members(layers) == members(known.build_layers())


def test_a_plan_of_known_packages_assumes_nothing(channel: Path, tmp_path: Path) -> None:
    settings = settings_of(channel, tmp_path)
    assembly(channel, settings, Told(), *GENERIC, fetch=False).build_layers()

    again = assembly(channel, settings, Told(), *GENERIC, fetch=False)

    assert not again.plan.assumed


def test_a_script_that_would_run_is_refused_before_its_layer_is_written(channel: Path, tmp_path: Path) -> None:
    settings = settings_of(channel, tmp_path)

    with pytest.raises(BuildError, match="would run"):
        assembly(channel, settings, Told(), "post-link", fetch=False).build_layers()

    assert {layer.name for layer in LayerStore(Cache(settings.cache_dir))} <= {"himl"}

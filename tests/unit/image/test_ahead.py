"""Layers of private wheels that are made while a registry is asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from assembly import Told, lock_of, locked, make_wheel, settings_of

from himl_container.cache import Cache
from himl_container.environment.model import EnvironmentSpec, PrivateWheel
from himl_container.image.ahead import WheelsAhead
from himl_container.image.layers import build_layers
from himl_container.image.model import SystemPlan
from himl_container.image.plan import plan_layers
from himl_container.image.prepare import Prepared
from himl_container.image.store import LayerStore
from himl_container.settings import Settings

pytestmark = pytest.mark.usefixtures("package_caches")


class World:
    """An environment of Python and one private wheel, and a cache of its own."""

    def __init__(self, channel: Path, folder: Path) -> None:
        self.settings: Settings = settings_of(channel, folder)
        self.cache = Cache(self.settings.cache_dir)
        self.told = Told()
        wheel, path = make_wheel(folder, "mine", {"mine.py": b"x = 1\n"})
        self.lock = dataclasses.replace(lock_of(locked(channel, "python")), wheels=(wheel,))
        private = PrivateWheel(path, wheel.filename, wheel.name, wheel.version, wheel.sha256, wheel.size, None)  # type: ignore[arg-type]
        self.spec = EnvironmentSpec("test", ("conda-forge",), (), wheels=(private,))
        self.plan = next(plan for plan in plan_layers(self.lock) if plan.wheels)

    def ahead(self) -> WheelsAhead:
        prepared = Prepared(self.spec, self.lock, (), SystemPlan(), "f" * 64, "himl:" + "f" * 32)
        return WheelsAhead(prepared, self.settings, cache=self.cache, reporter=self.told)

    def lay_out_interpreter(self, folder: Path) -> None:
        """Build another wheel's layer, as an earlier build has done."""
        other, path = make_wheel(folder, "other", {"other.py": b"x = 2\n"})
        lock = dataclasses.replace(self.lock, wheels=(other,))
        plans = [plan for plan in plan_layers(lock) if plan.wheels]
        paths = {other.sha256: path}
        build_layers(plans, lock, wheel_paths=paths, cache=self.cache, settings=self.settings, reporter=self.told)


@pytest.fixture
def world(channel: Path, tmp_path: Path) -> World:
    return World(channel, tmp_path)


def test_nothing_is_made_ahead_where_the_interpreter_would_have_to_be_fetched(world: World) -> None:
    with world.ahead() as ahead:
        assert not ahead.active
        assert ahead.made() == ()
    assert LayerStore(world.cache).get(world.plan.key) is None


def test_a_wheel_that_is_missing_is_made_once(world: World, tmp_path: Path) -> None:
    world.lay_out_interpreter(tmp_path)
    with world.ahead() as ahead:
        assert ahead.active
        assert ahead.made() == ("wheel:mine",)
    assert LayerStore(world.cache).get(world.plan.key) is not None
    with world.ahead() as again:
        assert not again.active


def test_who_does_not_wait_for_the_layer_finds_it_all_the_same(world: World, tmp_path: Path) -> None:
    world.lay_out_interpreter(tmp_path)
    with pytest.raises(ZeroDivisionError), world.ahead():
        raise ZeroDivisionError
    assert LayerStore(world.cache).get(world.plan.key) is not None


def test_a_wheel_that_cannot_be_made_is_told_later(world: World, tmp_path: Path) -> None:
    world.lay_out_interpreter(tmp_path)
    world.spec.wheels[0].path.write_bytes(b"no wheel")
    with world.ahead() as ahead:
        assert ahead.made() == ()
    assert LayerStore(world.cache).get(world.plan.key) is None

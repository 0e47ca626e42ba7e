"""Locking as a whole, on channels and wheels in folders; the base image and the builder are the test's own."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from himl_container.cache import Cache
from himl_container.environment.diff import lock_diff
from himl_container.environment.export import explicit
from himl_container.environment.lock import BuildWorld, Built, check, declared_by, make_lock
from himl_container.environment.lockfile import lock_text, read_lock, write_lock
from himl_container.environment.model import (
    BasePin,
    CondaDependency,
    EnvironmentSpec,
    Lock,
    Origin,
    PipIndexes,
    PipRequirement,
)
from himl_container.errors import InputError
from himl_container.progress import SilentReporter
from himl_container.settings import Settings

from . import channels, locks, wheelhouse


@dataclass
class World:
    """A project whose channel and index are folders."""

    folder: Path
    forge: Path
    settings: Settings
    conda: tuple[str, ...] = ("python=3.11", "numpy")
    pip: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)
    built: list[str] = field(default_factory=list)

    @property
    def links(self) -> Path:
        return self.folder / "links"

    @property
    def spec(self) -> EnvironmentSpec:
        return EnvironmentSpec(
            "test",
            ("conda-forge",),
            tuple(CondaDependency(text, text.split("=")[0], Origin("environment.yml", 5)) for text in self.conda),
            tuple(PipRequirement(text, text.split("=")[0], Origin("environment.yml", 9)) for text in self.pip),
            indexes=PipIndexes(find_links=(self.links.as_uri(),)),
        )

    def lock(self, previous: Lock | None = None, upgrade: frozenset[str] | None = None) -> Lock:
        return make_lock(
            self.spec,
            self.settings,
            previous=previous,
            upgrade=upgrade,
            resolve_base=self._base,
            build_wheel=self,
            cache=Cache(self.settings.cache_dir),
            reporter=SilentReporter(),
        )

    def build(self, sdist: Path, *, name: str, version: str, sha256: str, world: BuildWorld) -> Built:
        assert sdist.is_file()
        assert world.python_version == "3.11.7"
        self.built.append(f"{name} {version}")
        return Built(wheelhouse.add_wheel(self.folder / "built", name, version))

    def _base(self, reference: str) -> BasePin:
        self.asked.append(reference)
        return BasePin(reference, digest="sha256:" + f"{len(self.asked):064x}")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "rattler"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    forge = tmp_path / "forge"
    for version in ("3.11.7", "3.12.0"):
        channels.add_package(forge, "python", version)
    for version in ("1.24.0", "1.26.0"):
        channels.add_package(forge, "numpy", version, depends=["python"])
    for version in ("1.0", "1.1"):
        channels.add_package(forge, "small", version)
    channels.index(forge)
    (tmp_path / "links").mkdir()
    for version in ("1.0", "1.1"):
        wheelhouse.add_wheel(tmp_path / "links", "tool", version, requires=["numpy>=1.20"])
    settings = Settings(
        tmp_path,
        (),
        tmp_path / "pylock.himl.toml",
        tmp_path / "cache",
        base_image="base:1",
        channel_mirrors=(("conda-forge", forge.as_uri()),),
    )
    return World(tmp_path, forge, settings)


def versions(lock: Lock) -> dict[str, str]:
    return {item.name: item.version for item in lock.conda} | {f"pip:{item.name}": item.version for item in lock.wheels}


def test_a_lock_has_everything_and_survives_its_file(world: World) -> None:
    world.pip = ("tool",)
    lock = world.lock()
    assert versions(lock) == {"python": "3.11.7", "numpy": "1.26.0", "pip:tool": "1.1"}
    assert lock.base == BasePin("base:1", digest="sha256:" + f"{1:064x}")
    assert lock.python_version == "3.11.7"
    assert lock.virtual_packages == ("__archspec=1=x86_64", "__glibc=2.28", "__linux=4.18", "__unix=0")
    write_lock(lock, world.settings.lock_file)
    assert read_lock(world.settings.lock_file) == lock
    assert check(world.spec, world.settings.lock_file, world.settings) == ()
    assert str(world.forge) not in lock_text(lock)  # a mirror leaves no trace


def test_nothing_changed_is_nothing_asked(world: World) -> None:
    world.pip = ("tool",)
    lock = world.lock()
    for gone in (world.forge, world.links):
        gone.rename(gone.with_name(gone.name + "-gone"))
    assert world.lock(lock) is lock
    assert world.asked == ["base:1"]


def test_a_stale_lock_says_why(world: World) -> None:
    assert check(world.spec, world.settings.lock_file, world.settings) == ("there is no lock",)
    write_lock(world.lock(), world.settings.lock_file)
    world.conda = ("python=3.11", "numpy=1.24.0")
    assert check(world.spec, world.settings.lock_file, world.settings) == (
        "Conda package changed: numpy -> numpy=1.24.0",
    )


def test_a_small_change_keeps_everything_else(world: World) -> None:
    world.conda, world.pip = ("python=3.11", "numpy=1.24.0", "small=1.0"), ("tool==1.0",)
    first = world.lock()
    world.conda, world.pip = ("python", "numpy", "small"), ("tool",)
    second = world.lock(first)
    assert second.conda == first.conda
    assert second.wheels == first.wheels
    assert second.declared != first.declared
    assert world.asked == ["base:1"]


def test_only_the_part_that_changed_is_solved(world: World) -> None:
    world.pip = ("tool",)
    first = world.lock()
    world.forge.rename(world.folder / "gone")  # no channel any more: asking Conda's solver would be an error
    world.pip = ("tool==1.0",)
    second = world.lock(first)
    assert versions(second) == versions(first) | {"pip:tool": "1.0"}
    world.settings = dataclasses.replace(world.settings, base_image="base:2")
    world.links.rename(world.folder / "gone-too")
    third = world.lock(second)
    assert third == dataclasses.replace(second, base=third.base, declared=third.declared)
    assert world.asked == ["base:1", "base:2"]


def test_another_conda_package_is_another_answer_of_pip(world: World) -> None:
    wheelhouse.add_wheel(world.links, "tool", "2.0", requires=["numpy<1.25"])
    world.pip = ("tool",)
    first = world.lock()
    assert versions(first)["pip:tool"] == "1.1"
    world.conda = ("python=3.11", "numpy=1.24.0")
    assert versions(world.lock(first, frozenset({"tool"})))["pip:tool"] == "2.0"


def test_upgrade_moves_what_is_named_or_all(world: World) -> None:
    world.conda, world.pip = ("python=3.11", "numpy=1.24.0", "small=1.0"), ("tool==1.0",)
    first = world.lock()
    world.conda, world.pip = ("python", "numpy", "small"), ("tool",)
    one = world.lock(first, frozenset({"Small"}))
    assert versions(one) == versions(first) | {"small": "1.1"}
    wheel = world.lock(one, frozenset({"tool"}))
    assert versions(wheel) == versions(one) | {"pip:tool": "1.1"}
    everything = world.lock(wheel, frozenset())
    assert versions(everything) == {"python": "3.12.0", "numpy": "1.26.0", "small": "1.1", "pip:tool": "1.1"}
    assert everything.base == first.base
    with pytest.raises(InputError, match="not in the lock"):
        world.lock(everything, frozenset({"nosuch"}))


def test_a_source_distribution_is_built_once(world: World) -> None:
    wheelhouse.add_sdist(world.links, "slow")
    world.pip = ("slow",)
    first = world.lock()
    assert world.built == ["slow 1.0"]
    assert first.wheels[0].sdist_url.endswith("/slow-1.0.tar.gz")
    world.conda = (*world.conda, "small")
    assert world.lock(first).wheels == first.wheels
    assert world.built == ["slow 1.0"]


def test_the_difference_names_each_package(world: World) -> None:
    world.conda, world.pip = ("python=3.11", "numpy=1.24.0", "small"), ("tool==1.0",)
    first = world.lock()
    world.conda, world.pip = ("python=3.11", "numpy"), ("tool",)
    second = world.lock(first, frozenset())
    assert [(d.kind, d.name, d.change) for d in lock_diff(first, second)] == [
        ("conda", "numpy", "changed"),
        ("conda", "small", "removed"),
        ("pip", "tool", "changed"),
    ]
    numpy = lock_diff(first, second)[0]
    assert str(numpy).startswith("~ conda numpy: 1.24.0 0 (conda-forge, sha256 ")
    assert lock_diff(second, second) == ()
    assert all(difference.change == "added" for difference in lock_diff(None, second))
    variables = dataclasses.replace(
        second, variables=(("A", "1"),), base=BasePin("base:1", rootfs="sha256:" + "1" * 64)
    )
    assert [d.kind for d in lock_diff(second, variables)] == ["base", "variable"]


def test_the_exported_list_is_read_by_conda_tools(world: World, tmp_path: Path) -> None:
    from rattler.explicit_environment import ExplicitEnvironmentSpec

    lock = world.lock()
    path = tmp_path / "list.txt"
    path.write_text(explicit(lock))
    parsed = ExplicitEnvironmentSpec.from_path(path)
    assert [entry.url for entry in parsed.packages] == [f"{record.url}#{record.sha256}" for record in lock.conda]


def fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def test_a_big_lock_is_checked_in_a_second_and_kept_in_two(world: World) -> None:
    world.conda = tuple(f"pkg{number:03}" for number in range(300))
    world.pip = tuple(f"wheel{number:03}>=1" for number in range(150))
    big = locks.lock(conda_count=300, wheel_count=150)
    big = dataclasses.replace(big, declared=declared_by(world.spec, world.settings))
    path = world.settings.lock_file
    write_lock(big, path)

    def again() -> None:
        kept = world.lock(read_lock(path))
        assert kept == big
        write_lock(kept, path)

    assert fastest(lambda: check(world.spec, path, world.settings)) < 1
    assert fastest(again) < 2

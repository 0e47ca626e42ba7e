"""Why an image was built: records, what differs, which layers that touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.model import BasePin, EnvironmentSpec, Lock
from himl_container.image.explain import builds_of, changes_between, explain, inputs_of, record_build
from himl_container.image.model import Layer, SystemPlan
from himl_container.settings import Settings
from image import plans


def project(folder: Path) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "environment.yml").write_text("dependencies: []\n")
    return Settings(root=folder, conda_files=(), lock_file=folder / "lock", cache_dir=folder / "cache")


def layer(name: str, digest: str, size: int) -> Layer:
    return Layer(name, f"key-{digest}", f"sha256:{digest}", size, 1, Path("/nowhere"))


def record(
    settings: Settings, lock: Lock, layers: list[Layer], *, now: float = 1.0, system: SystemPlan | None = None
) -> None:
    spec = EnvironmentSpec("x", (), (), files=(settings.root / "environment.yml",))
    plan = replace(plans.plan(), system=system or SystemPlan())
    record_build(settings, spec, lock, plan, layers, image_id="sha256:1", cache=Cache(settings.cache_dir), now=now)


def test_the_first_build(tmp_path: Path) -> None:
    settings = project(tmp_path)
    assert explain(settings, Cache(settings.cache_dir)) is None
    record(settings, plans.lock(), [layer("himl", "a", 10)])
    found = explain(settings, Cache(settings.cache_dir))
    assert found is not None
    assert "first build" in found.reason
    assert [(one.name, one.state, one.size) for one in found.layers] == [("himl", "made", 10)]


def test_what_changed_and_which_layers_it_touched(tmp_path: Path) -> None:
    settings = project(tmp_path)
    old = plans.lock([plans.conda("numpy", "1.26.3"), plans.conda("zlib")], [plans.wheel("mylib", private=True)])
    new = replace(
        plans.lock([plans.conda("numpy", "1.26.4"), plans.conda("zlib")], [plans.wheel("extra")]),
        base=BasePin("debian:12", "sha256:" + "ef" * 32),
    )
    record(settings, old, [layer("conda:numpy", "a", 30), layer("wheel:mylib", "b", 1), layer("himl", "c", 2)])
    (settings.root / "environment.yml").write_text("dependencies: [numpy]\n")
    record(
        settings,
        new,
        [layer("conda:numpy", "d", 31), layer("pip:bin-01", "e", 5), layer("himl", "c", 2)],
        system=SystemPlan(("libgl1",), ("RUN secret=hunter2",)),
    )
    found = explain(settings, Cache(settings.cache_dir))
    assert found is not None
    assert [(change.kind, change.name) for change in found.changes] == [
        ("file", "environment.yml"),
        ("base image", "debian:12"),
        ("conda", "numpy"),
        ("pip", "extra"),
        ("private wheel", "mylib"),
        ("apt", "libgl1"),
        ("Dockerfile lines", ""),
    ]
    texts = [str(change) for change in found.changes]
    assert texts[2].startswith("conda numpy: 1.26.3 0 (") and "-> 1.26.4 0 (" in texts[2]
    assert texts[3].startswith("pip extra added: 1.0 (")
    assert texts[4].startswith("private wheel mylib removed (was 1.0 (")
    assert found.reason == "7 inputs had changed since the build before."
    assert [(one.name, one.state) for one in found.layers] == [
        ("conda:numpy", "made"),
        ("pip:bin-01", "made"),
        ("himl", "kept"),
        ("wheel:mylib", "removed"),
    ]
    assert "hunter2" not in (settings.cache_dir / "builds").iterdir().__next__().read_text()


def test_the_same_inputs_again(tmp_path: Path) -> None:
    settings = project(tmp_path)
    for now in (1.0, 2.0):
        record(settings, plans.lock(), [layer("himl", "a", 10)], now=now)
    found = explain(settings, Cache(settings.cache_dir))
    assert found is not None
    assert "no longer had the image" in found.reason
    assert found.last.built_at == 2.0
    assert found.as_json()["reason"] == found.reason


def test_projects_have_records_of_their_own_and_the_newest_are_kept(tmp_path: Path) -> None:
    cache_dir = tmp_path / "cache"
    one, two = (replace(project(tmp_path / name), cache_dir=cache_dir) for name in ("one", "two"))
    for number in range(25):
        record(one, plans.lock(), [], now=float(number))
    assert [build.built_at for build in builds_of(one, Cache(cache_dir))] == [float(n) for n in range(5, 25)]
    assert builds_of(two, Cache(cache_dir)) == ()


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    settings = project(tmp_path)
    record(settings, plans.lock(), [])
    (file,) = (settings.cache_dir / "builds").iterdir()
    for damage in ("{", "[]", '{"builds": [{"tag": 1}]}', '{"builds": 3}'):
        file.write_text(damage)
        assert builds_of(settings, Cache(settings.cache_dir)) == ()
    record(settings, plans.lock(), [])
    assert len(builds_of(settings, Cache(settings.cache_dir))) == 1


def test_values_of_variables_are_not_recorded(tmp_path: Path) -> None:
    settings = project(tmp_path)
    before, after = (replace(plans.lock(), variables=(("TOKEN", value),)) for value in ("hunter2", "hunter3"))
    old, new = (inputs_of(settings, (), lock, SystemPlan()) for lock in (before, after))
    assert "hunter" not in str(old)
    assert [change.name for change in changes_between(old, new)] == ["TOKEN"]

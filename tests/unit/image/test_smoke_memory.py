"""Imports are remembered exactly as long as nothing changes that they can depend on."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from himl_container.cache import Cache
from himl_container.environment.model import BasePin, Lock, LockedConda, LockedWheel
from himl_container.image import smoke_inputs, smoke_memory
from himl_container.image.model import PREFIX, ImageInfo
from himl_container.image.plan import plan_layers
from himl_container.image.smoke_inputs import inputs_of_imports
from himl_container.image.smoke_memory import Memory, memory_of
from himl_container.image.store import LayerStore
from himl_container.image.tar import Entry, write_tar
from himl_container.settings import Settings
from image import plans

ONE = ("declared", "one")
PACKAGES = (
    plans.conda("libc"),
    plans.conda("python", "3.11.7", depends=["libc >=1", "__glibc >=2"]),
    plans.conda("data"),
    plans.conda("one", depends=["python", "data"]),
    plans.conda("pcre"),
    plans.conda("git", depends=["pcre"]),
    plans.conda("other"),
)
PATHS = {"git": ("bin/git", "share/git/x"), "pcre": ("lib/libpcre.so.1",)}


class Images:
    """Images of locks, without a daemon: each layer of a lock is a tar in the store that holds the layer's key."""

    def __init__(self, root: Path) -> None:
        self.cache = Cache(root)
        self.settings = Settings(root=root, conda_files=(), lock_file=root / "lock", cache_dir=root)
        self.paths: dict[str, dict[str, str]] = {}

    def memory(
        self,
        lock: Lock,
        *,
        below: Sequence[str] = ("sha256:base",),
        env: Sequence[str] = ("A=1",),
        above: Sequence[str] = (),
        paths: Mapping[str, Sequence[str]] = PATHS,
    ) -> Memory:
        self.paths = {
            one.name: dict.fromkeys((*paths.get(one.name, ()), f"share/{one.name}/own"), one.sha256)
            for one in lock.conda
        }
        layers = [self._layer(plan.key, plan.name) for plan in plan_layers(lock)]
        info = ImageInfo("sha256:1", (), (), (*below, *layers, *above), "amd64", "linux", 1, {"Env": list(env)})
        return memory_of(info, lock, self.settings, self.cache)

    def _layer(self, key: str, name: str) -> str:
        with self.cache.new_file() as temporary:
            with temporary.open("wb") as out:
                written = write_tar([Entry("key", data=key.encode())], out)
            return LayerStore(self.cache).put(key, name, written, temporary).digest


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Images]:
    made = Images(tmp_path)
    monkeypatch.setattr(smoke_inputs, "package_paths", lambda lock, **others: made.paths)
    # In truth a package's hash decides its paths; here tests decide them.
    monkeypatch.setattr(smoke_inputs, "lock_key", lambda lock: repr((lock.conda, made.paths)))
    monkeypatch.setattr(smoke_memory, "excluded_paths", lambda lock, **others: {})
    yield made


def other(lock: Lock, name: str) -> Lock:
    """Return the lock with another build of a package."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return replace(lock, conda=tuple(replace(p, sha256=sha256) if p.name == name else p for p in lock.conda))


LOCK = plans.lock(PACKAGES, [plans.wheel("wheel")])


def test_a_success_is_known_for_the_same_image_only_by_its_name(images: Images) -> None:
    memory = images.memory(LOCK)
    assert memory.known([ONE]) == set()
    memory.keep([ONE], [])
    assert images.memory(LOCK).known([ONE, ("declared", "two"), ("named", "one")]) == {ONE}


@pytest.mark.parametrize("name", ["other", "git", "pcre"])
def test_what_python_does_not_depend_on_may_change(images: Images, name: str) -> None:
    images.memory(LOCK).keep([ONE], [])
    assert images.memory(other(LOCK, name)).known([ONE]) == {ONE}


@pytest.mark.parametrize(
    "changed",
    [
        *(other(LOCK, name) for name in ("one", "data", "python", "libc")),
        replace(LOCK, conda=(*LOCK.conda, plans.conda("optional", depends=["python"]))),
        replace(LOCK, wheels=(plans.wheel("wheel", "2.0"),)),
        replace(LOCK, wheels=()),
        replace(LOCK, base=BasePin("debian:12", "sha256:" + "cd" * 32)),
        replace(LOCK, conda=tuple(package for package in LOCK.conda if package.name != "git")),
    ],
)
def test_what_an_import_can_depend_on_counts(images: Images, changed: Lock) -> None:
    images.memory(LOCK).keep([ONE], [])
    assert images.memory(changed).known([ONE]) == set()


def test_what_is_around_the_environment_counts(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    images.memory(LOCK).keep([ONE], [])
    assert images.memory(LOCK, below=("sha256:base", "sha256:system")).known([ONE]) == set()
    assert images.memory(LOCK, env=("A=2",)).known([ONE]) == set()
    assert images.memory(LOCK, above=("sha256:template",)).known([ONE]) == set()
    monkeypatch.setattr(smoke_memory, "FORMAT", "another")
    assert images.memory(LOCK).known([ONE]) == set()


def test_an_image_with_layers_of_its_own_is_remembered_as_a_whole(images: Images) -> None:
    images.memory(LOCK, above=("sha256:template",)).keep([ONE], [])
    assert images.memory(LOCK, above=("sha256:template",)).known([ONE]) == {ONE}
    assert images.memory(other(LOCK, "other"), above=("sha256:template",)).known([ONE]) == set()


@pytest.mark.parametrize("changed", ["git", "pcre"])
def test_what_an_import_used_counts_with_its_dependencies(images: Images, changed: str) -> None:
    images.memory(LOCK).keep([ONE], [f"{PREFIX}/bin/git"])
    assert images.memory(other(LOCK, "other")).known([ONE]) == {ONE}
    assert images.memory(other(LOCK, changed)).known([ONE]) == set()


def test_going_back_to_an_earlier_version_of_what_was_used(images: Images) -> None:
    images.memory(LOCK).keep([ONE], [f"{PREFIX}/bin/git"])
    images.memory(other(LOCK, "git")).keep([ONE], [f"{PREFIX}/bin/git"])
    assert images.memory(LOCK).known([ONE]) == {ONE}
    assert images.memory(other(LOCK, "git")).known([ONE]) == {ONE}


@pytest.mark.parametrize("uses", [None, ["?"], [f"{PREFIX}/conda-meta"]])
def test_what_cannot_be_seen_is_not_remembered(images: Images, uses: list[str] | None) -> None:
    images.memory(LOCK).keep([ONE], uses)
    assert images.memory(LOCK).known([ONE]) == set()


@pytest.mark.parametrize("path", ["lib/python3.11/site-packages/x.pth", "share/one/own"])
def test_a_package_among_pythons_files_counts(images: Images, path: str) -> None:
    paths = {**PATHS, "other": (path,)}
    images.memory(LOCK, paths=paths).keep([ONE], [])
    assert images.memory(LOCK, paths=paths).known([ONE]) == {ONE}
    assert images.memory(other(LOCK, "other"), paths=paths).known([ONE]) == set()


def test_nothing_is_fetched_to_know_the_paths(tmp_path: Path) -> None:
    """The addresses of the lock's packages do not exist: a request would fail."""
    settings = Settings(root=tmp_path, conda_files=(), lock_file=tmp_path / "lock", cache_dir=tmp_path)
    info = ImageInfo("sha256:1", (), (), ("sha256:base",), "amd64", "linux", 1)
    memory = memory_of(info, LOCK, settings, Cache(tmp_path))
    memory.keep([ONE], [])
    assert memory.known([ONE]) == set()
    assert list(tmp_path.iterdir()) == []


@st.composite
def changed_locks(draw: st.DrawFn) -> tuple[Lock, str]:
    """A lock of packages that depend on each other at random, and the name of one of them."""
    names = ["python", *(f"p{number}" for number in range(draw(st.integers(1, 8))))]
    packages: list[LockedConda] = []
    for name in names:
        earlier = [package.name for package in packages]
        packages.append(
            plans.conda(name, depends=draw(st.lists(st.sampled_from(earlier), max_size=2)) if earlier else ())
        )
    return plans.lock(packages), draw(st.sampled_from(names))


@examples(max_examples=60, deadline=None)
@given(changed_locks())
def test_a_package_counts_when_something_of_python_needs_it(changed: tuple[Lock, str]) -> None:
    lock, name = changed
    depends = {package.name: set(package.depends) for package in lock.conda}
    needed = {one for one in depends if one == "python" or "python" in depends[one]}
    while more := {below for one in needed for below in depends[one]} - needed:
        needed |= more
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        images = Images(Path(folder))
        patch.setattr(smoke_inputs, "package_paths", lambda lock, **others: images.paths)
        images.memory(lock).keep([ONE], [])
        assert images.memory(other(lock, name)).known([ONE]) == (set() if name in needed else {ONE})


def _private(folder: Path, files: Mapping[str, str]) -> tuple[Path, LockedWheel]:
    path = folder / "mine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {"mine-1.0.dist-info/METADATA": "Name: mine", **files}.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # always the same time: the same bytes
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path, LockedWheel("mine", "1.0", path.name, digest, 1, private=True)


@pytest.mark.parametrize(
    ("files", "known"),
    [
        ({"mine/code.py": "B = 2"}, True),
        ({"mine/code.py": "A = 1", "other/code.py": ""}, False),
        ({"mine/code.py": "A = 1", "mine.pth": "import mine"}, False),
        ({"mine/code.py": "A = 1", "mine-1.0.dist-info/entry_points.txt": "[plugins]"}, False),
        ({"mine/code.py": "A = 1", "mine-1.0.data/data/bin/tool": ""}, False),
    ],
)
def test_a_private_wheel_counts_for_a_conda_package_by_what_can_reach_it(
    images: Images, tmp_path: Path, files: Mapping[str, str], known: bool
) -> None:
    def memory(content: Mapping[str, str]) -> Memory:
        path, wheel = _private(tmp_path, content)
        images.settings = replace(images.settings, wheels=(path,))
        return images.memory(plans.lock(PACKAGES, (wheel,)))

    imports = [ONE, ("declared", "mine"), ("named", "one.part")]
    memory({"mine/code.py": "A = 1"}).keep(imports, [])
    assert memory({"mine/code.py": "A = 1"}).known(imports) == set(imports)
    assert memory(files).known(imports) == ({ONE} if known else set())


def test_what_has_modules_is_told_by_its_paths(images: Images) -> None:
    paths = {**PATHS, "one": ("lib/python3.11/site-packages/one/__init__.py",)}
    images.memory(LOCK, paths=paths)
    for _ in range(2):  # worked out, and from the record
        inputs = inputs_of_imports(LOCK, images.settings, images.cache)
        assert inputs is not None
        assert inputs.modules == {"one"}
        assert not inputs.contested

"""Source distributions become wheels in a container of the base image."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from himl_container.cache import Cache
from himl_container.environment.conda_solve import CondaRequest, solve_conda
from himl_container.environment.lock import BuildWorld, Built
from himl_container.environment.model import (
    CondaDependency,
    Declared,
    EnvironmentSpec,
    Lock,
    LockedWheel,
    Origin,
    PipIndexes,
)
from himl_container.environment.virtual_packages import virtual_packages
from himl_container.errors import ArtifactError, BuildError
from himl_container.image.base import pin_base
from himl_container.image.engine import Engine, connect
from himl_container.image.sdist import SdistBuilder, ensure_built_wheels
from himl_container.progress import SilentReporter
from himl_container.settings import Settings

pytestmark = [pytest.mark.docker, pytest.mark.network]

PYPROJECT = """
[build-system]
requires = ["setuptools>=61", "wheel"]
build-backend = "setuptools.build_meta"

[project]
name = "sample"
version = "1.0"
dependencies = ["iniconfig"]
scripts = { sample = "sample:main" }
"""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return connect()


@pytest.fixture(scope="module")
def settings(channel: Path, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("project")
    return Settings(
        folder,
        (),
        folder / "pylock.himl.toml",
        folder / "cache",
        base_image=base_image,
        channel_mirrors=(("conda-forge", channel.as_uri()),),
    )


@pytest.fixture(scope="module")
def world(settings: Settings, engine: Engine) -> BuildWorld:
    spec = EnvironmentSpec("t", ("conda-forge",), (CondaDependency("python =3.11", "python", Origin("env.yml", 1)),))
    request = CondaRequest(spec, "linux-64", virtual_packages(settings), settings.channel_mirrors)
    conda = solve_conda(request, reporter=SilentReporter())
    version = next(record.version for record in conda if record.name == "python")
    base = pin_base(settings.base_image, engine=engine)
    return BuildWorld(base, conda, version, "linux-64", settings.glibc, PipIndexes())


def sdist(folder: Path, files: dict[str, str], stem: str = "sample-1.0") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{stem}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{stem}/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def build(path: Path, settings: Settings, engine: Engine, world: BuildWorld) -> Built:
    builder = SdistBuilder(settings, lambda: engine, Cache(settings.cache_dir), SilentReporter())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return builder.build(path, name="sample", version="1.0", sha256=digest, world=world)


def test_a_wheel_is_built_kept_and_built_again_with_the_same_bytes(
    settings: Settings, engine: Engine, world: BuildWorld, tmp_path: Path
) -> None:
    path = sdist(tmp_path / "links", {"pyproject.toml": PYPROJECT, "sample.py": "def main(): pass\n", "PKG-INFO": ""})
    built = build(path, settings, engine, world)
    assert built.path.name == "sample-1.0-py3-none-any.whl"
    digest = hashlib.sha256(built.path.read_bytes()).hexdigest()
    assert built.path.parent == settings.cache_dir / "wheels" / digest
    assert any(pin.startswith("setuptools==") for pin in built.requires)
    with zipfile.ZipFile(built.path) as archive:
        assert archive.testzip() is None
        assert b"Requires-Dist: iniconfig" in archive.read("sample-1.0.dist-info/METADATA")

    def no_engine() -> Engine:
        raise AssertionError("nothing has to be built")

    again = SdistBuilder(settings, no_engine, Cache(settings.cache_dir), SilentReporter())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert again.build(path, name="sample", version="1.0", sha256=sha256, world=world) == built

    wheel = LockedWheel(
        "sample",
        "1.0",
        built.path.name,
        digest,
        built.path.stat().st_size,
        sdist_url=path.as_uri(),
        sdist_sha256=sha256,
        build_requires=built.requires,
    )
    cold = dataclasses.replace(settings, cache_dir=tmp_path / "cold")
    _ensure(wheel, cold, engine, world)
    assert (cold.cache_dir / "wheels" / digest / built.path.name).read_bytes() == built.path.read_bytes()

    other = dataclasses.replace(wheel, sha256="0" * 64)
    with pytest.raises(BuildError, match="other bytes") as caught:
        _ensure(other, cold, engine, world)
    assert "private wheel" in caught.value.hint
    with pytest.raises(ArtifactError, match="not the one"):
        _ensure(dataclasses.replace(other, sdist_sha256="1" * 64), cold, engine, world)


def _ensure(wheel: LockedWheel, settings: Settings, engine: Engine, world: BuildWorld) -> None:
    declared = Declared((), (), (), (), (), (), settings.base_image, "linux-64", ())
    lock = Lock("linux-64", world.python_version, world.base, (), (), declared, world.conda, (wheel,))
    ensure_built_wheels(
        lock, settings, engine=lambda: engine, cache=Cache(settings.cache_dir), reporter=SilentReporter()
    )


BACKEND = """
import os, socket, zipfile

def get_requires_for_build_wheel(config_settings=None):
    return {requires}

def build_wheel(directory, config_settings=None, metadata_directory=None):
    {extra}
    name = {name!r}
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        archive.writestr("sample-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: sample\\nVersion: 1.0\\n")
        archive.writestr("sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        archive.writestr("sample.py", str(os.environ.get("SOURCE_DATE_EPOCH")))
    return name
"""
IN_TREE = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"


def in_tree(
    folder: Path, extra: str = "pass", *, name: str = "sample-1.0-py3-none-any.whl", requires: str = "[]"
) -> Path:
    backend = BACKEND.format(extra=extra, name=name, requires=requires)
    files = {"pyproject.toml": IN_TREE, "backend.py": backend, "PKG-INFO": extra}
    return sdist(folder, files)


def test_a_backend_in_the_source_gets_what_it_asks_for_later(
    settings: Settings, engine: Engine, world: BuildWorld, tmp_path: Path
) -> None:
    path = in_tree(tmp_path, "import iniconfig", requires="['iniconfig']")
    built = build(path, settings, engine, world)
    assert any(pin.startswith("iniconfig==") for pin in built.requires)
    with zipfile.ZipFile(built.path) as archive:
        assert archive.read("sample.py") == b"315532800"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("raise RuntimeError('no luck')", "no luck"),
        ("socket.create_connection(('1.1.1.1', 53), 2)", "nreachable"),
        ("open('/opt/himl/x', 'w')", "ead-only"),
        ("open('/himl/source/x', 'w')", "ead-only"),
        ("os._exit(3)", "exit code 3"),
    ],
)
def test_a_build_that_fails_or_reaches_out_says_so(
    settings: Settings, engine: Engine, world: BuildWorld, tmp_path: Path, extra: str, says: str
) -> None:
    with pytest.raises(BuildError) as caught:
        build(in_tree(tmp_path, extra), settings, engine, world)
    assert says in caught.value.what
    assert caught.value.where == "sample 1.0"
    assert "private wheel" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["other-1.0-py3-none-any.whl", "sample-2.0-py3-none-any.whl", "sample-1.0-cp27-none-win32.whl", "x.zip"]
)
def test_another_wheel_than_the_wanted_one_is_refused(
    settings: Settings, engine: Engine, world: BuildWorld, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BuildError):
        build(in_tree(tmp_path, name=name), settings, engine, world)


@pytest.mark.parametrize("requires", ["['x @ file:///etc/passwd']", "['not a requirement !']", "['iniconfig<0']"])
def test_build_requirements_that_cannot_be_had(
    settings: Settings, engine: Engine, world: BuildWorld, tmp_path: Path, requires: str
) -> None:
    path = sdist(tmp_path, {"pyproject.toml": f"[build-system]\nrequires = {requires}\nbuild-backend = 'b'\n"})
    with pytest.raises(BuildError) as caught:
        build(path, settings, engine, world)
    assert caught.value.where == "sample 1.0"

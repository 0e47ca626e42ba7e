"""The wheels of this repository: what is in them, under which names, and what a job needs of them."""

from __future__ import annotations

import configparser
import importlib
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping
from email.parser import BytesParser
from pathlib import Path

import job_wheel
import kit
import pytest

import himl_container

OURS = {"himl_container", "health_azure", "health_ml"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it would be published."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(kit.ROOT)]
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel for jobs."""
    return job_wheel.write(tmp_path_factory.mktemp("job-wheel"))


def contents(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def roots(names: list[str]) -> set[str]:
    return {name.partition("/")[0] for name in names if ".dist-info/" not in name}


def metadata(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        (found,) = [one for one in archive.namelist() if one.endswith(f".dist-info/{name}")]
        return archive.read(found)


def programs(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read_string(metadata(path, "entry_points.txt").decode())
    return dict(parser["console_scripts"])


@pytest.mark.network
def test_the_wheel_has_hi_mls_packages_under_their_own_names_and_once(wheel: Path) -> None:
    names = contents(wheel)
    assert roots(names) == OURS
    assert {name: n for name, n in Counter(names).items() if n > 1} == {}
    assert [name for name in names if "compat" in name] == []
    assert {"health_azure/himl.py", "health_azure/py.typed", "health_ml/__init__.py", "health_ml/py.typed"} <= {*names}
    assert {"health_azure/examples/elevate_this.py", "health_azure/examples/environment.yml"} <= {*names}
    assert "himl_container/_templates/Dockerfile.j2" in names


@pytest.mark.network
def test_every_source_is_in_the_wheel(wheel: Path) -> None:
    found = [path for path in (kit.ROOT / "himl_container").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    names = {path.relative_to(kit.ROOT).as_posix().replace("himl_container/compat/", "") for path in found}
    assert names - {*contents(wheel)} == set()


@pytest.mark.network
def test_programs_of_the_wheel(wheel: Path) -> None:
    assert programs(wheel) == {
        "himl-container": "himl_container.cli.main:main",
        "himl-download": "himl_container.azureml.tools_download:console",
        "himl-tb": "himl_container.azureml.tools_tb:console",
    }
    for place in programs(wheel).values():
        module, _, name = place.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.network
def test_what_is_installed_from_the_wheel_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        "import himl_container, health_azure, health_ml, himl_container.image.templates as templates\n"
        "print(himl_container.__file__, health_azure.__file__, health_ml.__file__, templates.templates_folder())"
    )
    printed = run_with(tmp_path / "site", program)
    assert [Path(word).is_relative_to(tmp_path / "site") for word in printed.split()] == [True] * 4


def test_the_wheel_for_jobs_is_the_same_every_time(light: Path) -> None:
    assert light.read_bytes() == job_wheel.wheel_bytes()
    assert light.name == f"himl_container_job-{himl_container.__version__}-py3-none-any.whl"
    before = light.stat().st_mtime_ns
    assert job_wheel.write(light.parent) == light
    assert light.stat().st_mtime_ns == before


def test_the_wheel_for_jobs_brings_the_sdk_alone(light: Path) -> None:
    stated = BytesParser().parsebytes(metadata(light, "METADATA"))
    assert (stated["Name"], stated["Version"]) == ("himl-container-job", himl_container.__version__)
    assert stated.get_all("Requires-Dist") == ["azureml-core>=1.61"]
    assert roots(contents(light)) == OURS
    assert set(programs(light)) == {"himl-download", "himl-tb"}


def test_a_job_needs_nothing_that_builds_images(light: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(light) as archive:
        archive.extractall(tmp_path / "site")
    builder = ("click", "docker", "jinja2", "rattler", "rich", "starlette", "uv", "yaml", "zstandard", "isal")
    program = f"""
import sys
sys.modules.update(dict.fromkeys({builder!r}))  # importing one of these fails
import health_azure, health_azure.datasets, health_azure.himl, health_azure.utils, health_ml
for module in (health_azure, health_azure.datasets, health_azure.himl, health_azure.utils):
    for name in module.__all__:
        getattr(module, name)
run_info = health_azure.submit_to_azure_if_needed(input_datasets=["some"])
print(run_info.run, run_info.input_datasets, health_azure.__file__)
"""
    printed = run_with(tmp_path / "site", program, cwd=tmp_path)
    assert printed.splitlines()[-1] == f"None [None] {tmp_path / 'site' / 'health_azure' / '__init__.py'}"


@pytest.mark.parametrize("room", ["publish.build", "image.build", "cli.main"])
def test_whoever_builds_with_it_is_told_what_is_missing(light: Path, tmp_path: Path, room: str) -> None:
    with zipfile.ZipFile(light) as archive:
        archive.extractall(tmp_path / "site")
    program = f"""
try:
    import himl_container.{room}
except ModuleNotFoundError as error:
    print(error)
"""
    told = f"himl-container-job has no himl_container.{room.partition('.')[0]}: building images and submitting need "
    assert run_with(tmp_path / "site", program).startswith(f"{told}himl-container (pip install himl-container)")


def run_with(site: Path, program: str, cwd: Path | None = None) -> str:
    """Run a program with the packages of a folder before those of the environment, and not in the repository."""
    environ: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd or site, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

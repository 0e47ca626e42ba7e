"""The same image by a current engine: with the classic store, with containerd's, and by BuildKit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import engines
import kit
import pytest
from image_listing import listing

pytestmark = [pytest.mark.docker, pytest.mark.engine26]


@pytest.fixture(scope="module", params=[False, True], ids=["classic store", "containerd store"])
def current(
    request: pytest.FixtureRequest, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[engines.CurrentEngine]:
    if engines.available():
        kit.lacking(f"a second engine {engines.available()}")
    with engines.current_engine(containerd_store=request.param) as engine:
        archive = str(tmp_path_factory.mktemp("base") / "base.tar")
        subprocess.run(["docker", "save", "-o", archive, base_image], check=True)
        subprocess.run(["docker", "load", "-q", "-i", archive], env=engine.environ, check=True)
        yield engine


@pytest.fixture
def cache_dir(warm_cache_dir: Path) -> Path:
    return warm_cache_dir


def result_of(text: str) -> dict[str, object]:
    return next(event for line in text.splitlines() if (event := json.loads(line))["event"] == "result")


def test_image_is_the_same_as_on_the_old_engine_and_runs(
    run_cli: kit.Cli, project: kit.ProjectFolder, current: engines.CurrentEngine
) -> None:
    project.environment("python =3.11", "meta", "activation", "links")
    project.write("hello.py", "import os, tinylib\nprint('hello', tinylib.double(21))\n")
    here = result_of(run_cli("build", "--json").stdout)
    there = result_of(run_cli("build", "--json", "--locked", environ=current.environ).stdout)
    assert there["built"]
    assert there["tag"] == here["tag"]
    assert there["layers"] == here["layers"]
    assert listing(str(there["tag"]), current.environ) == listing(str(here["tag"]))
    again = result_of(run_cli("build", "--json", "--locked", environ=current.environ).stdout)
    assert (again["built"], again["id"]) == (False, there["id"])
    done = run_cli("run", "--local", "hello.py", environ=current.environ)
    assert "hello 42" in done.stdout


def test_buildkit_executes_the_rendered_dockerfile_and_the_system_part(
    run_cli: kit.Cli, project: kit.ProjectFolder, current: engines.CurrentEngine
) -> None:
    project.environment("python =3.11", "tinytool", "activation")
    lines = '["ENV FROM_SYSTEM=yes", "RUN echo built > /etc/system-part"]'
    project.write("pyproject.toml", f"[tool.himl-container]\nsystem-lines = {lines}\n")
    ours = result_of(run_cli("build", "--json", environ=current.environ).stdout)
    expected = listing(str(ours["tag"]), current.environ)
    subprocess.run(["docker", "rmi", "-f", str(ours["tag"])], env=current.environ, check=True, capture_output=True)
    theirs = result_of(run_cli("build", "--json", "--builder", "docker", environ=current.environ).stdout)
    assert theirs["built"]
    assert listing(str(theirs["tag"]), current.environ) == expected

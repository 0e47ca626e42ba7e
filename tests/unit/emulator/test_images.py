"""The images of jobs: what definitions ask for, what builds get out of the storage, and who builds."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.history_rig import Clock
from unit.emulator.memory_blobs import ACCOUNT, MemoryBlobs

from himl_container.emulator.images.bring import Bringer
from himl_container.emulator.images.build import Builder
from himl_container.emulator.images.inputs import BuildInputs
from himl_container.emulator.images.own_registry import OwnRegistry
from himl_container.emulator.images.ready import INTERPRETER, Images
from himl_container.emulator.images.spec import BaseLogin, read_spec
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.environments import Environments
from himl_container.errors import HimlError, InputError
from himl_container.image.model import ImageInfo

AZUREML = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20240101.v1"
CONDA = {"channels": ["conda-forge"], "dependencies": ["python=3.11", {"pip": ["numpy"]}]}
WHEEL = f"{ACCOUNT}/azureml/Environment/azureml-private-packages/mine-1.0-py3-none-any.whl"
BROUGHT = ImageInfo("sha256:" + "1" * 64, (), (), (), "amd64", "linux", 0)


def by_conda(base: str = "base:1", **python: Any) -> dict[str, Any]:
    return {"docker": {"baseImage": base}, "python": {"condaDependencies": CONDA, **python}}


# --- definitions ---


def test_an_image_that_the_user_manages_is_taken_as_it_is() -> None:
    python = {"userManagedDependencies": True, "interpreterPath": "/opt/python", "condaDependencies": CONDA}
    spec = read_spec({"docker": {"baseImage": "r.example/a@sha256:" + "0" * 64}, "python": python})
    assert (spec.built, spec.interpreter, spec.conda) == (False, "/opt/python", "")


def test_the_other_spelling_of_the_names_is_read_too() -> None:
    document = {"docker": {"base_image": "a:1"}, "python": {"user_managed_dependencies": True, "interpreter_path": "p"}}
    assert read_spec(document) == read_spec(
        {"docker": {"baseImage": "a:1"}, "python": {"userManagedDependencies": True, "interpreterPath": "p"}}
    )


@pytest.mark.parametrize("base", ["team/a:1", "r.example/team/a:1"])
def test_a_registry_is_put_before_the_name_once(base: str) -> None:
    registry = {"address": "https://r.example/", "username": "u", "password": "geheim"}
    spec = read_spec({"docker": {"baseImage": base, "baseImageRegistry": registry}})
    assert spec.base_image == "r.example/team/a:1"
    assert spec.login == BaseLogin("r.example", "u", "geheim")
    assert "geheim" not in repr(spec)


def test_what_an_image_is_made_of_decides_its_name() -> None:
    keys = {
        read_spec(document, replaced_base=base).key
        for base in ("", "mine:1")
        for document in (
            by_conda(),
            by_conda("base:2"),
            by_conda(AZUREML),
            {**by_conda(), "python": {"condaDependencies": {**CONDA, "dependencies": ["python=3.12"]}}},
            {"docker": {"baseDockerfile": "FROM a\n"}},
            {"docker": {"baseDockerfile": "FROM b\n"}},
            {"docker": {"baseDockerfile": "FROM a\n"}, "python": {"condaDependencies": CONDA}},
            {"docker": {"buildContext": {"locationType": "storageAccount", "location": "x"}}},
            {"docker": {"buildContext": {"locationType": "storageAccount", "location": "x", "dockerfilePath": "D"}}},
        )
    }
    # Those without a replaced base are the same both times: base:1, base:2 and Python 3.12.
    assert len(keys) == 2 * 9 - 3
    again = {**by_conda(), "environmentVariables": {"A": "1"}, "name": "e", "version": "3"}
    assert read_spec(again).key == read_spec(by_conda(interpreterPath="x")).key
    login = {"address": "", "username": "u", "password": "p"}
    assert read_spec({**by_conda(), "docker": {"baseImage": "base:1", "baseImageRegistry": login}}).key in keys


def test_azuremls_own_images_may_be_replaced() -> None:
    assert read_spec(by_conda(AZUREML), replaced_base="mine:1").base_image == "mine:1"
    assert read_spec(by_conda(AZUREML)).base_image == AZUREML
    assert read_spec(by_conda("mcr.microsoft.com/other:1"), replaced_base="mine:1").base_image != "mine:1"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"docker": {}},
        {"docker": 1},
        {"docker": {"baseImage": 1}},
        {"docker": {"baseImage": "a"}, "python": {"userManagedDependencies": "yes"}},
        {"docker": {"baseImage": "a"}, "python": {"condaDependencies": []}},
        {"docker": {"baseImage": "a"}, "python": {"condaDependenciesFile": "x.yml"}},
        {"docker": {"baseImage": "a"}, "python": {"baseCondaEnvironment": "base"}},
        {"docker": {"baseImage": "a"}, "r": {"rVersion": "4"}},
        {"docker": {"buildContext": {"locationType": "git", "location": "https://git.example"}}},
        {"docker": {"baseImage": "a\0"}},
    ],
)
def test_definitions_that_cannot_be_built(document: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        read_spec(document)


# --- what builds get out of the storage ---


def test_private_wheels_are_laid_out_beside_the_environment(tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    blobs.put("azureml", WHEEL.removeprefix(f"{ACCOUNT}/azureml/"), b"wheel")
    conda = {"dependencies": ["python", {"pip": ["numpy", WHEEL, f"{WHEEL}?sig=x"]}], "name": "e"}
    project = BuildInputs(blobs).project(json.dumps(conda), tmp_path)
    assert yaml.safe_load(project.environment.read_text()) == {
        "dependencies": ["python", {"pip": ["numpy"]}],
        "name": "e",
    }
    assert [path.read_bytes() for path in project.wheels] == [b"wheel"]
    assert project.wheels[0].name == "mine-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    "line",
    [
        f"{ACCOUNT}/azureml/ExperimentRun/dcid.other/mine-1.0-py3-none-any.whl",
        f"{ACCOUNT}/azureml/Environment/azureml-private-packages/../x.whl",
        f"{ACCOUNT}/azureml/Environment/azureml-private-packages/%2e%2e/x.whl",
        f"{ACCOUNT}/azureml-blobstore/mine-1.0-py3-none-any.whl",
        f"{ACCOUNT}/azureml/Environment/azureml-private-packages/absent-1.0-py3-none-any.whl",
        "-r /etc/passwd",
        "--constraint=/etc/passwd",
        "-e /src",
        "--extra-index-url https://${AZURE_CLIENT_SECRET}.example",
    ],
)
def test_a_definition_gets_nothing_else_of_the_storage_or_the_machine(tmp_path: Path, line: str) -> None:
    blobs = MemoryBlobs()
    blobs.put("azureml", "ExperimentRun/dcid.other/mine-1.0-py3-none-any.whl", b"secret")
    with pytest.raises(InputError):
        BuildInputs(blobs).project(json.dumps({"dependencies": [{"pip": [line]}]}), tmp_path)


def test_an_index_is_passed_on(tmp_path: Path) -> None:
    lines = ["--extra-index-url https://index.example/simple", "tool @ https://files.example/tool-1-py3-none-any.whl"]
    project = BuildInputs(MemoryBlobs()).project(json.dumps({"dependencies": [{"pip": lines}]}), tmp_path)
    assert yaml.safe_load(project.environment.read_text()) == {"dependencies": [{"pip": lines}]}


def test_a_build_context_is_laid_out(tmp_path: Path) -> None:
    blobs = MemoryBlobs()
    blobs.put("azureml", "DockerBuildContext/h/Dockerfile", b"FROM a\n")
    blobs.put("azureml", "DockerBuildContext/h/sub/file", b"x")
    blobs.put("azureml", "DockerBuildContext/h2/other", b"x")
    BuildInputs(blobs).context(f"{ACCOUNT}/azureml/DockerBuildContext/h/", tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["Dockerfile", "sub/file"]


@pytest.mark.parametrize(
    "url",
    [
        f"{ACCOUNT}/azureml/ExperimentRun/dcid.other/",
        f"{ACCOUNT}/azureml/DockerBuildContext/../ExperimentRun/dcid.other/",
        f"{ACCOUNT}/azureml/DockerBuildContext/absent/",
        "https://other.blob.core.windows.net/azureml/DockerBuildContext/h/",
        "file:///etc",
        "",
    ],
)
def test_other_places_are_no_build_context(tmp_path: Path, url: str) -> None:
    blobs = MemoryBlobs()
    blobs.put("azureml", "ExperimentRun/dcid.other/secret", b"secret")
    with pytest.raises(InputError):
        BuildInputs(blobs).context(url, tmp_path)
    assert list(tmp_path.iterdir()) == []


_NAMES = st.lists(st.sampled_from(["..", ".", "a", "", "\0", "b" * 300, "c\\d"]), min_size=1, max_size=4)


@given(parts=_NAMES)
def test_a_context_stays_in_its_folder(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    outer = tmp_path_factory.mktemp("context")
    folder = outer / "inner"
    folder.mkdir()
    blobs = MemoryBlobs()
    blobs.put("azureml", "DockerBuildContext/h/" + "/".join(parts), b"x")
    try:
        BuildInputs(blobs).context(f"{ACCOUNT}/azureml/DockerBuildContext/h/", folder)
    except InputError:
        assert not any(path.is_file() for path in outer.rglob("*"))
    assert list(outer.iterdir()) == [folder]


# --- who builds ---


class Rig:
    def __init__(self) -> None:
        self.environments = Environments(Database(":memory:"), Clock())
        self.bringer, self.builder = Mock(spec=Bringer), Mock(spec=Builder)
        self.bringer.bring.return_value = BROUGHT
        self.there: set[str] = set()
        self.builder.name.side_effect = lambda spec: f"registry/{spec.key}"
        self.builder.exists.side_effect = lambda spec: spec.key in self.there
        self.builder.build.side_effect = lambda spec, say: self.there.add(spec.key)
        self.images = Images(self.environments, self.bringer, self.builder, replaced_base="mine:1")
        self.said: list[str] = []

    def ready(self, environment: dict[str, Any]) -> tuple[str, str]:
        return self.images.ready({"environment": environment}, self.said.append)

    @property
    def brought(self) -> list[str]:
        return [call.args[0] for call in self.bringer.bring.call_args_list]


def test_dependencies_are_built_once_and_found_again() -> None:
    rig = Rig()
    assert rig.ready(by_conda(AZUREML)) == (BROUGHT.id, INTERPRETER)
    assert f"{AZUREML} is replaced by mine:1" in rig.said[0]
    assert rig.ready(by_conda(AZUREML)) == (BROUGHT.id, INTERPRETER)
    assert rig.builder.build.call_count == 1
    assert len(set(rig.brought)) == 1


def test_a_reference_to_an_environment_is_looked_up() -> None:
    rig = Rig()
    python = {"userManagedDependencies": True, "interpreterPath": "/p"}
    rig.environments.register("e", {"docker": {"baseImage": "first:1"}, "python": python})
    rig.environments.register("e", {"docker": {"baseImage": "second:1"}, "python": python})
    assert rig.ready({"name": "e", "version": "1"}) == (BROUGHT.id, "/p")
    rig.ready({"name": "e"})
    assert rig.brought == ["first:1", "second:1"]
    with pytest.raises(InputError):
        rig.ready({"name": "nobody"})


def test_a_job_that_was_shown_no_password_submits_without() -> None:
    rig = Rig()
    registry = {"address": "r.example", "username": "u", "password": "geheim"}
    docker = {"baseImage": "a:1", "baseImageRegistry": registry}
    rig.environments.register("e", {"docker": docker, "python": {"userManagedDependencies": True}})
    shown = {**docker, "baseImageRegistry": {**registry, "password": None}}
    rig.ready({"name": "e", "version": "1", "docker": shown, "python": {"userManagedDependencies": True}})
    assert rig.bringer.bring.call_args.args[1] == BaseLogin("r.example", "u", "geheim")
    other = {**docker, "baseImageRegistry": {"address": "evil.example", "username": "u", "password": None}}
    rig.ready({"name": "e", "version": "1", "docker": other, "python": {"userManagedDependencies": True}})
    assert rig.bringer.bring.call_args.args[1] is None


def test_two_jobs_of_one_environment_wait_for_one_build() -> None:
    rig = Rig()
    building, go = threading.Event(), threading.Event()

    def build(spec: Any, say: Any) -> None:
        building.set()
        assert go.wait(20)
        rig.there.add(spec.key)

    rig.builder.build.side_effect = build
    threads = [threading.Thread(target=rig.ready, args=(by_conda(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert building.wait(20)
    other = rig.ready({"docker": {"baseImage": "a:1"}})  # another image waits for nothing
    go.set()
    for thread in threads:
        thread.join(20)
    assert other == (BROUGHT.id, "python")
    assert rig.builder.build.call_count == 1
    assert len(rig.brought) == 5


def test_a_build_that_fails_is_tried_again() -> None:
    rig = Rig()
    rig.builder.build.side_effect = HimlError("no")
    for _ in range(2):
        with pytest.raises(HimlError):
            rig.ready(by_conda())
    assert rig.builder.build.call_count == 2


def test_the_emulators_registry_is_reached_directly() -> None:
    registry = OwnRegistry("himl1.azurecr.io", "http://127.0.0.1:5001")
    found = registry.connect("himl1.azurecr.io/team/a")
    assert (found.host, found.name) == ("127.0.0.1:5001", "team/a")
    assert registry.connect("other.azurecr.io/team/a").host == "other.azurecr.io"
    assert not registry.has("himl1.azurecr.io.evil.example/a")

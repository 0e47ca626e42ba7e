"""The configuration of a run: what is looked at, in which order, and what feeds the image."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from himl_container.azureml import configuration
from himl_container.azureml.configuration import create_run_configuration
from himl_container.errors import InputError
from himl_container.launch.spec import ImageRef
from himl_container.settings import Settings

FINGERPRINT = "0123456789abcdef" * 4
IMAGE = ImageRef("p:1", digest=f"reg.azurecr.io/p@sha256:{'a' * 64}", fingerprint=FINGERPRINT)


class Workspace:
    """A workspace with two clusters."""

    name = "w"

    def __init__(self) -> None:
        self.done: list[str] = []

    @property
    def compute_targets(self) -> dict[str, object]:
        self.done.append("clusters")
        return {"gpu": object(), "cpu": object()}


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workspace:
    """With an image pipeline that only says what it was asked."""
    made = Workspace()
    made.settings = []  # type: ignore[attr-defined]

    def pushed(settings: Settings, _workspace: object, _reporter: object, **_words: object) -> ImageRef:
        made.done.append("image")
        made.settings.append(settings)  # type: ignore[attr-defined]
        return IMAGE

    def environment(image: ImageRef, _workspace: object, *, by_tag: bool, cache: object) -> Any:
        from himl_container.azureml.environments import image_environment

        return image_environment(image, by_tag=by_tag)

    monkeypatch.setattr("himl_container.azureml.images.pushed_image", pushed)
    monkeypatch.setattr("himl_container.azureml.environments.environment_of", environment)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in configuration.os.environ if name.startswith("HIML_CONTAINER_")]:
        monkeypatch.delenv(name)
    (tmp_path / "environment.yml").write_text("dependencies: [python=3.11]\n")
    return made


def create(workspace: Workspace, cluster: str = "cpu", **words: Any) -> Any:
    words.setdefault("conda_environment_file", Path("environment.yml"))
    return create_run_configuration(cast("Any", workspace), cluster, **words)


def used(workspace: Workspace) -> Settings:
    (settings,) = workspace.settings  # type: ignore[attr-defined]
    return cast("Settings", settings)


def test_the_signature_is_hi_mls() -> None:
    names = list(inspect.signature(create_run_configuration).parameters)
    assert names == [
        "workspace",
        "compute_cluster_name",
        "conda_environment_file",
        "aml_environment_name",
        "environment_variables",
        "pip_extra_index_url",
        "private_pip_wheel_path",
        "docker_base_image",
        "docker_shm_size",
        "num_nodes",
        "max_run_duration",
        "input_datasets",
        "output_datasets",
    ]


def test_the_environment_is_the_image(workspace: Workspace, tmp_path: Path) -> None:
    made = create(workspace, environment_variables={"A": "1"}, docker_shm_size="512m", max_run_duration="1.5h")
    assert made.environment.docker.base_image == f"p@sha256:{'a' * 64}"
    assert made.environment_variables["A"] == "1"
    assert made.docker.shm_size == "512m"
    assert made.max_run_duration_seconds == 5400
    assert made.target == "cpu"
    assert used(workspace).conda_files == (tmp_path / "environment.yml",)


def test_arguments_feed_the_image(workspace: Workspace, tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    create(
        workspace,
        pip_extra_index_url="https://private.example/simple",
        private_pip_wheel_path=wheel,
        docker_base_image="base.example/x:1",
    )
    settings = used(workspace)
    assert settings.pip_extra_index_urls == ("https://private.example/simple",)
    assert settings.wheels == (wheel,)
    assert settings.base_image == "base.example/x:1"


def test_the_settings_choose_the_tag(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.himl-container]\nazureml-environment = "image-by-tag"\n')
    assert create(workspace).environment.docker.base_image == f"p:{FINGERPRINT[:32]}"


def test_an_unknown_cluster_is_told_before_anything_is_built(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="Could not find the compute target none in the AzureML workspace") as error:
        create(workspace, "none")
    assert "Existing clusters: ['cpu', 'gpu']" in str(error.value)
    assert workspace.done == ["clusters"]


def test_a_dataset_that_cannot_be_used_is_told_before_anything_is_built(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from himl_container.azureml.datasets import DatasetConfig

    same = [DatasetConfig("a"), DatasetConfig("a")]
    with pytest.raises(ValueError, match="already an input dataset"):
        create(workspace, input_datasets=same)
    assert "image" not in workspace.done


def test_an_environment_by_name_needs_no_conda_file(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from azureml.core import Environment

    monkeypatch.setattr(Environment, "get", lambda _workspace, name, _version: Environment(name))
    made = create(
        workspace, conda_environment_file=None, aml_environment_name="theirs", environment_variables={"A": "1"}
    )
    assert made.environment.name == "theirs"
    assert made.environment_variables["A"] == "1"
    assert workspace.done == ["clusters"]


def test_neither_a_name_nor_a_file(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="One of the two arguments 'aml_environment_name' or 'conda_environment_file'"):
        create(workspace, conda_environment_file=None)
    assert workspace.done == []


@pytest.mark.parametrize(
    "words",
    [{"docker_shm_size": "lots"}, {"max_run_duration": "5x"}, {"num_nodes": 1000}, {"environment_variables": {"": ""}}],
)
def test_values_that_cannot_be_used(workspace: Workspace, words: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        create(workspace, **words)
    assert workspace.done == []


def test_nodes_below_one_are_one(workspace: Workspace) -> None:
    assert create(workspace, num_nodes=0).node_count == 1


def test_built_by_azureml(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def register(_workspace: object, environment: Any) -> Any:
        seen.append(environment)
        return SimpleNamespace(name="registered")

    monkeypatch.setattr("himl_container.azureml.environments.register_environment", register)
    (tmp_path / "more.yml").write_text("dependencies: [tinylib, {pip: [foo]}]\n")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.himl-container]\nazureml-environment = "build"\nconda-files = ["environment.yml", "more.yml"]\n'
        'base-image = "base.example/x:1"\npip-extra-index-url = ["https://a.example/s", "https://b.example/s"]\n'
    )
    spec = configuration.description(None, "", 1, "")
    made = configuration.configure(cast("Any", workspace), "cpu", configuration.EnvironmentSource(), spec)
    assert made.environment.name == "registered"
    (environment,) = seen
    dependencies = environment.python.conda_dependencies
    assert list(dependencies.conda_packages) == ["python=3.11", "tinylib"]
    assert list(dependencies.pip_packages) == ["foo"]
    assert list(dependencies.pip_options) == [
        "--index-url https://a.example/s",
        "--extra-index-url https://b.example/s",
        "--extra-index-url https://pypi.org/simple",
    ]
    assert environment.docker.base_image == "base.example/x:1"
    assert workspace.done == ["clusters"]

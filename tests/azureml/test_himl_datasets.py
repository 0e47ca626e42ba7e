"""Datasets on the emulator: versions, folders that begin alike, and what a job finds of inputs and outputs."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from job_image import Submit, environment_of, error_of, submitter, text_of, wait

from himl_container.azureml.dataset_lookup import FOLDER_TAG
from himl_container.azureml.datasets import (
    DatasetConfig,
    convert_himl_to_azureml_datasets,
    get_datastore,
    get_or_create_dataset,
)
from himl_container.azureml.failures import WrongValue
from himl_container.azureml.transfers import download_from_datastore, upload_to_datastore

if TYPE_CHECKING:
    from azureml.core import Workspace

pytestmark = pytest.mark.emulator

STORE = "workspaceblobstore"


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The SDK writes logs below the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def name() -> str:
    return f"ds-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def put(workspace: Workspace, tmp_path: Path) -> Any:
    """Stores files in the default datastore, each with its own path as content."""

    def stored(*paths: str) -> None:
        source = tmp_path / f"source-{uuid.uuid4().hex}"
        for path in paths:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_text(path)
        upload_to_datastore(STORE, source, Path(), aml_workspace=workspace)

    return stored


def paths_of(dataset: Any) -> list[str]:
    return sorted(dataset.to_path())


def test_made_of_a_folder_and_found_again(workspace: Workspace, put: Any, name: str) -> None:
    put(f"{name}/a", f"{name}/sub/b", f"{name}_bar/c", f"{name}.txt")
    made = get_or_create_dataset(workspace, "", name)
    assert (made.name, made.version, paths_of(made)) == (name, 1, ["/a", "/sub/b"])
    for again in (name, f"{name}/", f" /{name} "):
        assert get_or_create_dataset(workspace, STORE, again).id == made.id
    with pytest.raises(WrongValue, match="no file is below"):
        get_or_create_dataset(workspace, "", name[:-1])
    assert name[:-1] not in workspace.datasets


def test_versions(workspace: Workspace, put: Any, name: str) -> None:
    from azureml.core import Dataset

    put(f"{name}/1/x", f"{name}/2/y")
    store = workspace.get_default_datastore()
    for version in ("1", "2"):
        files = Dataset.File.from_files((store, f"{name}/{version}/"), validate=False)
        files.register(workspace, name, create_new_version=True)
    assert paths_of(get_or_create_dataset(workspace, "", name)) == ["/y"]
    assert paths_of(get_or_create_dataset(workspace, "", name, 1)) == ["/x"]
    consumed = DatasetConfig(name, version=1).to_input_dataset(workspace, 3)
    assert (consumed.name, consumed.dataset.version, consumed.mode) == ("INPUT_3", 1, "download")
    with pytest.raises(WrongValue, match="has no version 3"):
        DatasetConfig(name, version=3).to_input_dataset(workspace, 0)


def test_folders_in_folders(workspace: Workspace, put: Any, name: str) -> None:
    put(f"{name}/in/x", f"{name}_in/y")
    inner = get_or_create_dataset(workspace, "", f"{name}/in")
    assert (inner.name, inner.tags, paths_of(inner)) == (f"{name}_in", {FOLDER_TAG: f"{name}/in"}, ["/x"])
    assert get_or_create_dataset(workspace, "", f"{name}/in/").id == inner.id


def test_datastores(workspace: Workspace) -> None:
    assert get_datastore(workspace, "").name == workspace.get_default_datastore().name
    assert get_datastore(workspace, STORE).account_key
    said = r"Datastore nowhere was not found in the workspace\. Existing datastores: \[.*'workspaceblobstore'"
    with pytest.raises(WrongValue, match=said):
        get_datastore(workspace, "nowhere")


def test_a_table_is_no_input(workspace: Workspace, tmp_path: Path, name: str) -> None:
    from azureml.core import Dataset

    (tmp_path / "t").mkdir()
    (tmp_path / "t/t.csv").write_text("a,b\n1,2\n")
    upload_to_datastore(STORE, tmp_path / "t", Path(name), aml_workspace=workspace)
    Dataset.Tabular.from_delimited_files((workspace.get_default_datastore(), f"{name}/t.csv")).register(workspace, name)
    with pytest.raises(WrongValue, match="is a table"):
        DatasetConfig(name).to_input_dataset(workspace, 0)


def test_names_and_modes(workspace: Workspace, put: Any, name: str) -> None:
    put(f"{name}/a", f"{name}-2/b")
    inputs, outputs = convert_himl_to_azureml_datasets(
        [DatasetConfig(name, use_mounting=True, target_folder="/data/in"), DatasetConfig(f"{name}-2")],
        [DatasetConfig(f"{name}-out/sub"), DatasetConfig(f"{name}-up", use_mounting=False)],
        workspace,
    )
    assert [(key, one.mode, one.path_on_compute) for key, one in inputs.items()] == [
        ("INPUT_0", "mount", "/data/in"),
        ("INPUT_1", "download", None),
    ]
    assert [(key, one.mode, one.destination[1]) for key, one in outputs.items()] == [
        ("OUTPUT_0", "mount", f"{name}-out/sub/"),
        ("OUTPUT_1", "upload", f"{name}-up/"),
    ]


@pytest.mark.docker
def test_what_a_job_finds(workspace: Workspace, base_image: str, tmp_path: Path, put: Any, name: str) -> None:
    """Inputs at their places, outputs back in the datastore and registered when the job has completed."""
    put(f"{name}/a", f"{name}_bar/b", f"{name}-2/c")
    inputs, outputs = convert_himl_to_azureml_datasets(
        [DatasetConfig(name, target_folder="/data/here"), DatasetConfig(f"{name}-2", use_mounting=True)],
        [DatasetConfig(f"{name}/out"), DatasetConfig(f"{name}-up", use_mounting=False)],
        workspace,
    )

    def tune(config: Any) -> None:
        config.data, config.output_data = inputs, outputs

    submit: Submit = submitter(workspace, environment_of(base_image, "shell"), tmp_path / "sources")
    command = ["find", "/data/here", "$AZURE_ML_INPUT_INPUT_1/", "-type f;"]
    command += ["echo made > $AZURE_ML_OUTPUT_OUTPUT_0/m && echo sent > $AZURE_ML_OUTPUT_OUTPUT_1/u"]
    run = submit(command=command, tune=tune)
    assert wait(run) == "Completed", error_of(run)
    lines = text_of(run).split()
    assert "/data/here/a" in lines
    assert [line for line in lines if line.endswith("/c")]
    assert not any(line.endswith("/b") for line in lines)
    made = get_or_create_dataset(workspace, "", f"{name}/out")
    assert (made.name, made.version, paths_of(made)) == (f"{name}_out", 1, ["/m"])
    assert paths_of(get_or_create_dataset(workspace, "", f"{name}-up", 1)) == ["/u"]
    download_from_datastore(STORE, f"{name}/out/m", tmp_path, aml_workspace=workspace)
    assert (tmp_path / name / "out/m").read_text() == "made\n"

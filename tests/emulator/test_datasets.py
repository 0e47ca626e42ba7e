"""Datasets through the SDK and its native engine: files and tables; names, versions and tags; download and mount."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from stored_files import names_in, upload_names

if TYPE_CHECKING:
    from azureml.core import Workspace
    from azureml.data import FileDataset
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator

FILES = ("a.txt", "sub/b.txt", "sub/deep/c.csv", "sub/.hidden", "ü m/d e.txt")


@pytest.fixture
def name() -> str:
    return f"d-{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="module")
def files(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the default datastore in which :data:`FILES` are."""
    return upload_names(workspace, tmp_path_factory.mktemp("files"), FILES)


def dataset(workspace: Workspace, folder: str, pattern: str = "") -> FileDataset:
    from azureml.core import Dataset

    return Dataset.File.from_files((workspace.get_default_datastore(), f"{folder}/{pattern}"))


def registered(workspace: Workspace) -> list[str]:
    from azureml.core import Dataset

    return [item.name for item in Dataset.get_all(workspace).registrations]


def test_versions(workspace: Workspace, files: str, name: str) -> None:
    from azureml.core import Dataset
    from azureml.exceptions import UserErrorException

    first = dataset(workspace, files, "sub").register(workspace, name, description="One.", tags={"n": "1"})
    assert (first.name, first.version, first.description, first.tags) == (name, 1, "One.", {"n": "1"})
    with pytest.raises(UserErrorException, match="There is already a dataset registered under name"):
        dataset(workspace, files, "a.txt").register(workspace, name)
    second = dataset(workspace, files, "a.txt").register(workspace, name, create_new_version=True)
    assert second.version == 2
    for version, found in ((1, "/b.txt"), (2, "/a.txt"), ("1", "/b.txt"), ("latest", "/a.txt"), (None, "/a.txt")):
        assert found in Dataset.get_by_name(workspace, name, version=version).to_path()
    for missing in (name + "x", name):
        with pytest.raises(UserErrorException, match="Cannot find dataset"):
            Dataset.get_by_name(workspace, missing, version=9)


def test_by_id(workspace: Workspace, files: str, name: str) -> None:
    from azureml.core import Dataset
    from azureml.exceptions import UserErrorException

    registered = dataset(workspace, files, "sub").register(workspace, name)
    found = Dataset.get_by_id(workspace, registered.id)
    assert (found.name, found.version, found.id) == (name, 1, registered.id)
    unregistered = dataset(workspace, files, "a.txt")
    unregistered.as_named_input("x")
    saved = unregistered._ensure_saved(workspace)
    again = Dataset.get_by_id(workspace, saved)
    assert (again.name, again.id, again.to_path()) == (None, saved, ["/a.txt"])
    assert dataset(workspace, files, "a.txt")._ensure_saved(workspace) == saved
    taken = unregistered.register(workspace, f"{name}-2")
    with pytest.raises(UserErrorException, match=f"has been registered as {name}-2:1"):
        dataset_of(workspace, saved).register(workspace, f"{name}-3")
    assert taken.id == saved
    with pytest.raises(UserErrorException, match="Cannot find dataset with id"):
        Dataset.get_by_id(workspace, str(uuid.uuid4()))


def dataset_of(workspace: Workspace, saved: str) -> Any:
    from azureml.core import Dataset

    return Dataset.get_by_id(workspace, saved)


def test_tags_and_description(workspace: Workspace, files: str, name: str) -> None:
    from azureml.core import Dataset

    made = dataset(workspace, files).register(workspace, name, tags={"a": "1"})
    made.add_tags({"b": "2"})
    made.remove_tags(["a"])
    assert Dataset.get_by_name(workspace, name).tags == {"b": "2"}
    made.update(description="New.", tags={"c": "3"})
    found = Dataset.get_by_name(workspace, name)
    assert (found.description, found.tags) == ("New.", {"c": "3"})


def test_get_all(workspace: Workspace, files: str, name: str, emulator: Emulator) -> None:
    from azureml.core import Dataset

    dataset(workspace, files).register(workspace, name)
    every = Dataset.get_all(workspace)
    assert (every[name].version, every[name].to_path()[0]) == (1, "/a.txt")
    assert {item.name: item.version for item in every.registrations}[name] == 1
    assert workspace.datasets[name].version == 1
    # More than the SDK asks for at once.
    base = f"https://eastus.api.azureml.ms/dataset/v1.0/{emulator.installation.workspace.path}/datasets"
    headers = emulator.headers()
    latest = {"dataflow": "paths:\n- file: azureml://datastores/workspaceblobstore/paths/x"}
    for number in range(101):
        body = {"name": f"{name}-{number}", "datasetType": "file", "latest": latest}
        assert requests.post(base, json=body, headers=headers, timeout=60).status_code == 200
    assert sum(item.startswith(f"{name}-") for item in registered(workspace)) == 101


def test_archived(workspace: Workspace, files: str, name: str, emulator: Emulator) -> None:
    """The SDK has no function that archives any more, and does not list what is archived."""
    from azureml.core import Dataset

    made = dataset(workspace, files).register(workspace, name)
    base = f"https://eastus.api.azureml.ms/dataset/v1.0/{emulator.installation.workspace.path}/datasets"
    options: dict[str, Any] = {"headers": emulator.headers(), "timeout": 60}
    one = f"{base}/{made._registration.registered_id}"
    assert requests.put(f"{one}/state", json={"state": "archived"}, **options).status_code == 200
    assert name not in registered(workspace)
    assert Dataset.get_by_name(workspace, name).version == 1
    assert requests.get(one, **options).json()["datasetState"]["state"] == "archived"
    assert len(requests.get(f"{one}/definitions", **options).json()["value"]) == 1
    assert requests.put(f"{one}/state", json={"state": "active"}, **options).status_code == 200
    assert name in registered(workspace)


def test_unregister(workspace: Workspace, files: str, name: str) -> None:
    from azureml.core import Dataset
    from azureml.exceptions import UserErrorException

    made = dataset(workspace, files).register(workspace, name)
    saved = made.id
    made.unregister_all_versions()
    with pytest.raises(UserErrorException, match="Cannot find dataset"):
        Dataset.get_by_name(workspace, name)
    assert Dataset.get_by_id(workspace, saved).to_path()
    assert dataset(workspace, files).register(workspace, name).version == 1


def test_download(workspace: Workspace, files: str, tmp_path: Path) -> None:
    from azureml.exceptions import UserErrorException

    every = dataset(workspace, files)
    assert sorted(every.to_path()) == sorted(f"/{item}" for item in FILES)
    target = tmp_path / "target"
    assert len(every.download(str(target))) == len(FILES)
    assert names_in(target) == sorted(FILES)
    assert (target / "ü m/d e.txt").read_text(encoding="utf-8") == "ü m/d e.txt"
    with pytest.raises(UserErrorException, match="already exists"):
        every.download(str(target), overwrite=False)
    (target / "a.txt").write_text("other")
    every.download(str(target), overwrite=True)
    assert (target / "a.txt").read_text() == "a.txt"
    dataset(workspace, files, "**/*.csv").download(str(tmp_path / "csv"))
    assert names_in(tmp_path / "csv") == ["sub/deep/c.csv"]


def test_several_datastores(workspace: Workspace, files: str, name: str, tmp_path: Path) -> None:
    from azureml.core import Dataset, Datastore

    artifacts = Datastore.get(workspace, "workspaceartifactstore")
    (tmp_path / "other.txt").write_text("other")
    artifacts.upload_files([str(tmp_path / "other.txt")], target_path=name, show_progress=False)
    both = Dataset.File.from_files([(workspace.get_default_datastore(), f"{files}/sub/*.txt"), (artifacts, name)])
    both.download(str(tmp_path / "both"))
    assert names_in(tmp_path / "both") == [
        f"workspaceartifactstore/{name}/other.txt",
        f"workspaceblobstore/{files}/sub/b.txt",
    ]


def test_upload_directory(workspace: Workspace, name: str, tmp_path: Path) -> None:
    from azureml.core import Dataset

    for item in ("x.csv", "deep/y.csv", "deep/z.txt"):
        path = tmp_path / "source" / item
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(item)
    target = (workspace.get_default_datastore(), name)
    made = Dataset.File.upload_directory(str(tmp_path / "source"), target, pattern="*.csv", show_progress=False)
    assert [path for path in made.to_path() if path.endswith(".txt")] == []
    (tmp_path / "source" / "x.csv").write_text("changed")
    for overwrite, content in ((False, "x.csv"), (True, "changed")):
        made = Dataset.File.upload_directory(str(tmp_path / "source"), target, overwrite=overwrite, show_progress=False)
        made.download(str(tmp_path / "back"), overwrite=True)
        assert (tmp_path / "back/x.csv").read_text() == content


def test_steps(workspace: Workspace, files: str) -> None:
    every = dataset(workspace, files)
    assert every.skip(1).take(2).to_path() == sorted(f"/{item}" for item in FILES)[1:3]
    left, right = every.random_split(0.5, seed=1)
    assert sorted(left.to_path() + right.to_path()) == sorted(f"/{item}" for item in FILES)
    assert every.filter(every.file_metadata("Size") > 10).to_path() == [
        "/sub/.hidden",
        "/sub/deep/c.csv",
        "/ü m/d e.txt",
    ]


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="there is no /dev/fuse to mount with")
def test_mount(workspace: Workspace, files: str) -> None:
    with dataset(workspace, files).mount() as mounted:
        folder = Path(mounted.mount_point)
        assert names_in(folder) == sorted(FILES)
        assert (folder / "sub/deep/c.csv").read_text() == "sub/deep/c.csv"
        with pytest.raises(OSError, match=r"Read-only|not permitted|Permission"):
            (folder / "new").write_text("x")


def test_large_files(workspace: Workspace, name: str, tmp_path: Path) -> None:
    """Blocks of a large file arrive in order, by the SDK's engine and by the storage's client."""
    from azureml.core import Dataset

    (tmp_path / "source").mkdir()
    content = os.urandom(1 << 20) * 40
    (tmp_path / "source/large.bin").write_bytes(content)
    target = (workspace.get_default_datastore(), name)
    Dataset.File.upload_directory(str(tmp_path / "source"), target, show_progress=False).download(str(tmp_path / "1"))
    assert (tmp_path / "1/large.bin").read_bytes() == content
    workspace.get_default_datastore().download(str(tmp_path / "2"), name, show_progress=False)
    assert (tmp_path / "2" / name / "large.bin").read_bytes() == content


# --- tables ---


@pytest.fixture(scope="module")
def tables(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of the default datastore with two CSV files."""
    source = tmp_path_factory.mktemp("tables")
    (source / "1.csv").write_text("n,x,word,day\n1,0.5,one,2024-01-02\n2,1.5,two,2024-01-03\n")
    (source / "2.csv").write_text("n,x,word,day\n3,2.5,drei ü,2024-01-04\n")
    folder = f"tables-{uuid.uuid4().hex[:10]}"
    workspace.get_default_datastore().upload(str(source), folder, show_progress=False)
    return folder


def test_tables_of_delimited_files(workspace: Workspace, tables: str, name: str) -> None:
    from azureml.core import Dataset

    made = Dataset.Tabular.from_delimited_files((workspace.get_default_datastore(), f"{tables}/*.csv"))
    made.register(workspace, name)
    found = Dataset.get_by_name(workspace, name)
    frame = found.to_pandas_dataframe()
    assert frame["n"].tolist() == [1, 2, 3]
    assert frame["x"].tolist() == [0.5, 1.5, 2.5]
    assert frame["word"].tolist() == ["one", "two", "drei ü"]
    assert str(frame["day"].dtype).startswith("datetime64")
    assert len(found.take(2).to_pandas_dataframe()) == 2
    assert list(found.keep_columns(["word", "n"]).to_pandas_dataframe().columns) == ["n", "word"]
    assert found.filter(found["n"] > 1).to_pandas_dataframe()["n"].tolist() == [2, 3]


def test_tables_of_parquet_files(workspace: Workspace, name: str) -> None:
    import pandas as pd
    from azureml.core import Dataset

    frame = pd.DataFrame({"k": [1, 2], "v": ["x", "ü"], "f": [0.5, None]})
    target = (workspace.get_default_datastore(), name)
    made = Dataset.Tabular.register_pandas_dataframe(frame, target, name, show_progress=False)
    assert (made.name, made.version) == (name, 1)
    back = Dataset.get_by_name(workspace, name).to_pandas_dataframe()
    pd.testing.assert_frame_equal(back, frame)
    again = Dataset.Tabular.from_parquet_files((workspace.get_default_datastore(), f"{name}/**/*.parquet"))
    assert again.to_pandas_dataframe()["v"].tolist() == ["x", "ü"]

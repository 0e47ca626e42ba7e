"""What a dataset's name means, and when one is made; without a workspace."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.azureml.dataset_lookup import FOLDER_TAG, folder_of, folder_tags, get_or_create_dataset
from himl_container.azureml.datasets import (
    DatasetConfig,
    convert_himl_to_azureml_datasets,
    create_dataset_configs,
)
from himl_container.azureml.failures import WrongValue


def test_fields_and_their_order() -> None:
    config = DatasetConfig(" foo\n", "store", 3, True, "/tmp/there", Path("here"))
    assert (config.name, config.datastore, config.version, config.use_mounting) == ("foo", "store", 3, True)
    assert (config.target_folder, config.local_folder) == ("/tmp/there", Path("here"))
    plain = DatasetConfig("foo")
    assert (plain.datastore, plain.version, plain.use_mounting) == ("", None, None)
    assert (plain.target_folder, plain.local_folder) == ("", None)
    assert DatasetConfig("foo", local_folder="x").local_folder == Path("x")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "  ", "\t\n"])
def test_a_name_is_needed(name: str) -> None:
    with pytest.raises(ValueError, match=r"The name of the dataset must be a non-empty string\."):
        DatasetConfig(name)


def test_names_become_configurations() -> None:
    own = DatasetConfig("b")
    made = create_dataset_configs(["a", own], "store")
    assert made == [DatasetConfig("a", datastore="store"), own]
    assert made[1] is own and own.datastore == ""
    assert create_dataset_configs(None) == []


@pytest.mark.parametrize(
    ("name", "folder"),
    [("foo", "foo/"), ("foo/", "foo/"), ("/foo", "foo/"), (" a/b ", "a/b/"), ("a b.c-d_é", "a b.c-d_é/")],
)
def test_folders(name: str, folder: str) -> None:
    assert folder_of(name) == folder


@pytest.mark.parametrize("name", ["", "/", "a//b", "../a", "a/..", ".", "a*", "**", "a\\b", "a\nb", "a\0"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(WrongValue, match="cannot be the name of a dataset"):
        folder_of(name)


@given(st.text(max_size=20))
def test_a_folder_never_begins_like_another_dataset(name: str) -> None:
    try:
        folder = folder_of(name)
    except WrongValue:
        return
    assert folder.endswith("/") and not folder.startswith("/")
    assert folder_of(folder) == folder
    assert ".." not in folder.split("/")


def test_tags_tell_a_folder_in_a_folder() -> None:
    assert folder_tags("foo/") is None
    assert folder_tags("a/b") == {FOLDER_TAG: "a/b"}
    assert DatasetConfig("a/b/").registered_name == "a_b"


class NotFoundError(Exception):
    message = 'Cannot find dataset registered with name "foo" in the workspace.'


class Service:
    """A workspace's datasets, and the files of its default datastore, in the place of the SDK."""

    def __init__(self) -> None:
        self.datasets: dict[tuple[str, Any], Any] = {}
        self.error: Exception | None = None
        self.files: list[str] = []
        self.registered: list[tuple[str, Any]] = []
        self.asked: list[tuple[str, Any]] = []
        self.conflict: Any = None

    def get_by_name(self, workspace: Any, name: str, version: Any) -> Any:
        self.asked.append((name, version))
        if self.error is not None:
            raise self.error
        if (name, version) not in self.datasets:
            raise NotFoundError
        return self.datasets[name, version]

    def from_files(self, path: Any, validate: bool) -> Any:
        return SimpleNamespace(register=self._register, path=path[0][1])

    def _register(self, workspace: Any, name: str, tags: Any) -> Any:
        if self.conflict is not None:
            self.datasets[name, "latest"], self.conflict = self.conflict, None
            raise self.user_error("There is already a dataset registered under that name")
        self.registered.append((name, tags))
        return SimpleNamespace(name=name, tags=tags)

    user_error: Any = None


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    found = Service()
    core, exceptions = ModuleType("azureml.core"), ModuleType("azureml.exceptions")
    core.Dataset = SimpleNamespace(get_by_name=found.get_by_name, File=found)  # type: ignore[attr-defined]
    exceptions.UserErrorException = type("UserErrorException", (Exception,), {})  # type: ignore[attr-defined]
    found.user_error = exceptions.UserErrorException  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "azureml", ModuleType("azureml"))
    monkeypatch.setitem(sys.modules, "azureml.core", core)
    monkeypatch.setitem(sys.modules, "azureml.exceptions", exceptions)
    container = SimpleNamespace(
        list_blobs=lambda name_starts_with, **words: [one for one in found.files if one.startswith(name_starts_with)]
    )
    store = SimpleNamespace(
        name="default",
        container_name="c",
        credential_type="Sas",
        blob_service=SimpleNamespace(get_container_client=lambda container: container_of),
    )
    container_of = container
    found.workspace = SimpleNamespace(get_default_datastore=lambda: store)  # type: ignore[attr-defined]
    return found


def get(service: Service, name: str, version: Any = None) -> Any:
    return get_or_create_dataset(service.workspace, "", name, version)  # type: ignore[attr-defined]


def test_one_that_is_there(service: Service) -> None:
    service.datasets = {("foo", "latest"): "new", ("foo", 1): "old"}
    assert get(service, "foo") == "new"
    assert get(service, "foo/") == "new"
    assert get(service, "foo", 1) == "old"
    assert service.registered == []


def test_one_that_is_made(service: Service) -> None:
    service.files = ["foo/x", "foo_bar/y"]
    assert get(service, "foo").name == "foo"
    assert service.registered == [("foo", None)]


@pytest.mark.parametrize("files", [[], ["foo_bar/x"], ["foo"]])
def test_a_folder_without_files(service: Service, files: list[str]) -> None:
    service.files = files
    with pytest.raises(WrongValue, match=r"There is no dataset 'foo', and it cannot be made: no file is below 'foo/'"):
        get(service, "foo")
    assert service.registered == []


@pytest.mark.parametrize("error", [RuntimeError("who knows"), PermissionError("403"), KeyError("foo")])
def test_no_other_answer_makes_one(service: Service, error: Exception) -> None:
    """hi-ml made a dataset after any failure of the lookup."""
    service.files, service.error = ["foo/x"], error
    with pytest.raises(type(error)):
        get(service, "foo")
    assert service.registered == []


def test_versions(service: Service) -> None:
    service.files, service.datasets = ["foo/x", "bar/x"], {("foo", "latest"): "new"}
    for name in ("foo", "bar"):
        with pytest.raises(WrongValue, match=f"The dataset '{name}' has no version 2"):
            get(service, name, 2)
    for wrong in (0, -1, "1", True, 1.5):
        with pytest.raises(WrongValue, match="is not a version"):
            get(service, "foo", wrong)
    assert service.registered == []
    with pytest.raises(ValueError, match=r"No dataset name provided\."):
        get(service, " ")


def test_a_folder_in_a_folder(service: Service) -> None:
    service.files = ["a/b/x", "a_b/y"]
    assert get(service, "a/b").name == "a_b"
    assert service.registered == [("a_b", {FOLDER_TAG: "a/b"})]
    service.datasets = {("a_b", "latest"): SimpleNamespace(tags={FOLDER_TAG: "a/b"})}
    assert get(service, "a/b") is service.datasets["a_b", "latest"]
    assert service.asked[-2:] == [("a/b", "latest"), ("a_b", "latest")]
    service.datasets = {("a_b", "latest"): SimpleNamespace(tags={})}
    with pytest.raises(WrongValue, match="The dataset 'a_b' is not that of the folder 'a/b'"):
        get(service, "a/b")


def test_somebody_else_makes_it_at_the_same_moment(service: Service) -> None:
    service.files, service.conflict = ["foo/x"], "theirs"
    assert get(service, "foo") == "theirs"


@pytest.mark.parametrize(
    ("inputs", "outputs", "kind"),
    [
        ([DatasetConfig("a"), DatasetConfig("a/")], [], "input"),
        ([DatasetConfig("a", version=1), DatasetConfig("a", version=1, use_mounting=True)], [], "input"),
        ([], [DatasetConfig("a"), DatasetConfig("b"), DatasetConfig("a")], "output"),
    ],
)
def test_one_name_twice(inputs: list[DatasetConfig], outputs: list[DatasetConfig], kind: str) -> None:
    with pytest.raises(ValueError, match=f"There is already an {kind} dataset with name 'a/?' set up"):
        convert_himl_to_azureml_datasets(inputs, outputs, SimpleNamespace())


def test_outputs_have_no_fixed_folder() -> None:
    with pytest.raises(ValueError, match=r"Output datasets can't have a target_folder set\."):
        DatasetConfig("a", target_folder="/tmp/x").to_output_dataset(SimpleNamespace(), 0)


@pytest.mark.parametrize("one", ["images", DatasetConfig("images")])
def test_one_dataset_is_no_list(one: Any) -> None:
    with pytest.raises(ValueError, match="Datasets are given as a list"):
        create_dataset_configs(one)

"""Models through the SDK: files and folders, from here and from runs; versions, tags, filters, downloads."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

if TYPE_CHECKING:
    from azureml.core import Run, Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``Model.register`` takes files of the working directory alone, and the SDK writes logs there."""
    monkeypatch.chdir(tmp_path)
    Path("weights.bin").write_bytes(bytes(range(256)) * 100)
    Path("net/layers").mkdir(parents=True)
    Path("net/config.json").write_text("{}")
    Path("net/layers/1").write_text("one")


@pytest.fixture
def name() -> str:
    return f"m-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def run(workspace: Workspace) -> Iterator[Run]:
    from azureml.core import Experiment

    run = Experiment(workspace, "models").start_logging(snapshot_directory=None, outputs="outputs")
    yield run
    run.complete()


def test_file(workspace: Workspace, name: str) -> None:
    from azureml.core import Model
    from azureml.core.resource_configuration import ResourceConfiguration

    made = Model.register(
        workspace,
        "weights.bin",
        name,
        tags={"area": "x"},
        properties={"p": "q"},
        description="What it is.",
        model_framework=Model.Framework.PYTORCH,
        model_framework_version="2.1",
        resource_configuration=ResourceConfiguration(cpu=1, memory_in_gb=0.5),
    )
    assert (made.id, made.version) == (f"{name}:1", 1)
    found = Model(workspace, name)
    assert (found.tags, found.properties, found.description) == ({"area": "x"}, {"p": "q"}, "What it is.")
    assert (found.model_framework, found.model_framework_version) == ("PyTorch", "2.1")
    assert (found.resource_configuration.cpu, found.resource_configuration.memory_in_gb) == (1, 0.5)
    assert found.created_by["userName"]
    path = Path(found.download("back"))
    assert path == Path("back/weights.bin")
    assert path.read_bytes() == Path("weights.bin").read_bytes()
    assert found.download("back", exist_ok=True) == "back/weights.bin"


def test_folder(workspace: Workspace, name: str) -> None:
    from azureml.core import Model

    made = Model.register(workspace, "net", name)
    assert made.download("back") == "back/net"
    assert Path("back/net/layers/1").read_text() == "one"
    part = Model.register(workspace, "net", name, child_paths=["layers"])
    part.download("part")
    assert not Path("part/net/config.json").exists()
    assert Path("part/net/layers/1").exists()


def test_versions(workspace: Workspace, name: str) -> None:
    from azureml.core import Model
    from azureml.exceptions import WebserviceException

    for number in range(1, 4):
        Path("weights.bin").write_text(str(number))
        assert Model.register(workspace, "weights.bin", name, tags={"n": str(number)}).version == number
    assert Model(workspace, name).version == 3
    assert Model(workspace, name, version=2).tags == Model(workspace, id=f"{name}:2").tags == {"n": "2"}
    assert Path(Model(workspace, name, version=1).download("first")).read_text() == "1"
    assert Path(Model.get_model_path(name, version=2, _workspace=workspace)).read_text() == "2"
    with pytest.raises(WebserviceException, match="ModelNotFound"):
        Model(workspace, name, version=4)
    with pytest.raises(WebserviceException, match="ModelNotFound"):
        Model(workspace, f"{name}-none")


def test_tags_and_properties(workspace: Workspace, name: str) -> None:
    from azureml.core import Model

    made = Model.register(workspace, "weights.bin", name, tags={"a": "1"}, properties={"p": "1"})
    made.add_tags({"b": "2"})
    made.remove_tags(["a"])
    made.add_properties({"q": "2"})
    found = Model(workspace, name)
    assert (found.tags, found.properties) == ({"b": "2"}, {"p": "1", "q": "2"})
    found.update(tags={"only": "this"}, description="New.")
    found = Model(workspace, name)
    assert (found.tags, found.description) == ({"only": "this"}, "New.")


def test_filters(workspace: Workspace, emulator: Emulator, name: str) -> None:
    from azureml.core import Model

    Model.register(workspace, "weights.bin", name, tags={"stage": "test"}, properties={"p": name})
    Model.register(workspace, "weights.bin", name, tags={"stage": "live", name: "x"}, model_framework="Custom")

    def versions(**options: object) -> list[int]:
        return [item.version for item in Model.list(workspace, **options)]

    assert versions(name=name) == [2, 1]
    assert versions(name=name, latest=True) == [2]
    assert versions(tags=[name]) == [2]
    assert versions(name=name, tags=[["stage", "test"]]) == [1]
    assert versions(properties=[["p", name]]) == [1]
    assert versions(name=name, model_framework="Custom") == [2]
    assert Model(workspace, name, tags=[["stage", "test"]]).version == 1
    # A page of the SDK has 20 at least; what it sends for each file would take long.
    base = f"https://eastus.api.azureml.ms/modelmanagement/v1.0/{emulator.installation.workspace.path}/models"
    headers = emulator.headers()
    for _ in range(20):
        requests.post(base, json={"name": name, "url": "https://example.com"}, headers=headers, timeout=60)
    assert versions(name=name, page_count=20) == list(range(22, 0, -1))


def test_of_a_run(workspace: Workspace, run: Run, name: str) -> None:
    from azureml._common.exceptions import AzureMLException
    from azureml.core import Model

    run.upload_folder("outputs/net", "net")
    made = run.register_model(name, "outputs/net", tags={"by": "run"})
    assert (made.run_id, made.experiment_name) == (run.id, "models")
    assert [item.id for item in Model.list(workspace, run_id=run.id)] == [made.id]
    assert Model(workspace, name).run.id == run.id
    assert made.download("back") == "back/net"
    assert Path("back/net/layers/1").read_text() == "one"
    single = run.register_model(name, "outputs/net/config.json")
    assert single.download("single") == "single/config.json"
    with pytest.raises(AzureMLException, match="Could not locate"):
        run.register_model(name, "outputs/none")


def test_with_datasets(workspace: Workspace, name: str) -> None:
    from azureml.core import Dataset, Model

    store = workspace.get_default_datastore()
    dataset = Dataset.File.upload_directory("net", (store, name), show_progress=False)
    made = Model.register(workspace, "weights.bin", name, datasets=[("train", dataset)], sample_input_dataset=dataset)
    assert [item.id for item in Model.list(workspace, dataset_id=dataset.id)] == [made.id]
    made.add_dataset_references([("test", dataset)])
    found = Model(workspace, name)
    assert {scenario: [item.id for item in items] for scenario, items in found.datasets.items()} == {
        "train": [dataset.id],
        "test": [dataset.id],
    }
    assert found.sample_input_dataset.id == dataset.id


def test_delete(workspace: Workspace, name: str) -> None:
    from azureml.core import Model
    from azureml.exceptions import WebserviceException

    made = Model.register(workspace, "weights.bin", name)
    made.delete()
    with pytest.raises(WebserviceException, match="ModelNotFound"):
        Model(workspace, id=made.id)
    assert Model.register(workspace, "weights.bin", name).version == 2


def test_assets(workspace: Workspace, emulator: Emulator, name: str) -> None:
    """What the SDK has a client for, and no function that calls it."""
    from azureml._restclient.assets_client import AssetsClient
    from azureml.core import Model

    client = AssetsClient(workspace.service_context)
    made = Model.register(workspace, "weights.bin", name)
    asset = client.get_asset_by_id(made.url.removeprefix("aml://asset/"))
    assert [item.prefix.rpartition("/")[2] for item in asset.artifacts] == ["weights.bin"]
    assert [item.id for item in client.list_assets_with_query(name=name)] == [asset.id]
    base = f"https://eastus.api.azureml.ms/modelmanagement/v1.0/{emulator.installation.workspace.path}/assets"
    change = [{"op": "add", "path": "/properties", "value": {"p": "q"}}]
    options = {"headers": emulator.headers(), "timeout": 60}
    assert requests.patch(f"{base}/{asset.id}", json=change, **options).json()["properties"] == {"p": "q"}
    assert [item.id for item in client.list_assets_with_query(properties={"p": "q"}, name=name)] == [asset.id]
    assert requests.delete(f"{base}/{asset.id}", **options).status_code == 400
    made.delete()
    assert requests.delete(f"{base}/{asset.id}", **options).status_code == 200
    assert requests.get(f"{base}/{asset.id}", **options).status_code == 404

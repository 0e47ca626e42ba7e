"""Files of runs through the SDK: uploads, downloads, listings; their bytes go to the blob storage and back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

if TYPE_CHECKING:
    from azureml.core import Run, Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator


@pytest.fixture
def run(workspace: Workspace) -> Iterator[Run]:
    from azureml.core import Experiment

    run = Experiment(workspace, "files").start_logging(snapshot_directory=None, outputs="outputs")
    yield run
    run.complete()


NAMES = [
    "plain.txt",
    "outputs/deep/er/x.bin",
    "with space.txt",
    "ümläut/ß.txt",
    "50% (a+b)&c='d'.txt",
    "empty",
    "~tilde~",
]


def test_upload_and_download(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    paths = []
    for number, name in enumerate(NAMES):
        path = source / str(number)
        path.write_bytes(b"" if name == "empty" else name.encode() * 1000)
        paths.append(str(path))
    run.upload_file(NAMES[0], paths[0])
    list(run.upload_files(NAMES[1:], paths[1:]))
    run.upload_file("stream", io.BytesIO(b"streamed"))
    assert sorted(run.get_file_names()) == sorted([*NAMES, "stream"])
    for number, name in enumerate(NAMES):
        run.download_file(name, str(tmp_path / f"back-{number}"))
        assert (tmp_path / f"back-{number}").read_bytes() == Path(paths[number]).read_bytes(), name
    run.download_file("outputs/deep/er/x.bin")
    assert Path("x.bin").read_bytes() == (source / "1").read_bytes()
    run.download_file(NAMES[0], str(tmp_path / "checked"), _validate_checksum=True)


def test_a_name_is_taken_once(run: Run) -> None:
    from azureml.exceptions import AzureMLException, UserErrorException

    run.upload_file("a.txt", io.BytesIO(b"1"))
    with pytest.raises(AzureMLException, match=r"Resource Conflict: ArtifactId .*/a.txt already exists"):
        run.upload_file("a.txt", io.BytesIO(b"2"))
    with pytest.raises(
        UserErrorException, match=r"File with path none.txt was not found,\navailable files include: a.txt"
    ):
        run.download_file("none.txt")
    run.download_file("a.txt")
    assert Path("a.txt").read_bytes() == b"1"


def test_folders(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "folder"
    for path in ("a.txt", "sub/b.txt", "sub/deeper/c.txt"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(path)
    run.upload_folder("models", str(source))
    run.upload_file("models.txt", io.BytesIO(b"beside"))
    assert set(run.get_file_names()) == {"models/a.txt", "models/sub/b.txt", "models/sub/deeper/c.txt", "models.txt"}
    run.download_files(prefix="models/sub", output_directory=str(tmp_path / "one"))
    found = {str(path.relative_to(tmp_path / "one")) for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert found == {"models/sub/b.txt", "models/sub/deeper/c.txt"}
    run.download_files(output_directory=str(tmp_path / "all"))
    assert (tmp_path / "all/models/a.txt").read_text() == "a.txt"
    assert (tmp_path / "all/models.txt").read_text() == "beside"
    run.download_files(prefix="models/", output_directory=str(tmp_path / "bare"), append_prefix=False)
    assert (tmp_path / "bare/sub/b.txt").read_text() == "sub/b.txt"


def test_outputs_are_uploaded_at_the_end(workspace: Workspace) -> None:
    from azureml.core import Experiment

    with Experiment(workspace, "files").start_logging(snapshot_directory=None) as run:
        Path("outputs/result.txt").write_text("done")
        print("printed by the run")
    assert {"outputs/result.txt", "logs/user_log.txt"} <= set(run.get_file_names())
    assert "printed by the run" in run._download_artifact_contents_to_string("logs/user_log.txt")


def test_listing_pages(run: Run) -> None:
    client = run._client.artifacts
    names = [f"many/{number:04}" for number in range(1001)]
    for start in range(0, len(names), 500):
        client.create_empty_artifacts("ExperimentRun", run._container, names[start : start + 500])
    assert run.get_file_names() == names
    assert [name for name, _ in client.get_files_by_artifact_prefix_id(f"ExperimentRun/{run._container}/many")] == names


def test_content(run: Run) -> None:
    client = run._client.artifacts
    place = ("ExperimentRun", run._container)
    client.upload_artifact_content(*place, "notes.txt", content="one")
    client.upload_artifact_content(*place, "notes.txt", content="two", append=True)
    assert b"one" in client.download_artifact_contents_to_bytes(*place, "notes.txt")
    assert b"two" in client.download_artifact_contents_to_bytes(*place, "notes.txt")
    address = client.get_writeable_artifact_sas_uri(*place, "logs/new.txt")
    headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-08-06"}
    assert requests.put(address, data=b"line", headers=headers, timeout=60).status_code == 201
    assert client.download_artifact_contents_to_string(*place, "logs/new.txt") == "line"
    # A reader's address writes nothing.
    reader = client.get_artifact_uri(*place, "logs/new.txt")
    assert requests.put(reader, data=b"line", headers=headers, timeout=60).status_code == 403


def test_deleted(run: Run, workspace: Workspace, emulator: Emulator) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        run.upload_file(name, io.BytesIO(b"1"))
    base, headers = artifacts(workspace), emulator.headers()
    address = f"{base}/metadata/ExperimentRun/{run._container}/a.txt"
    assert requests.get(address, headers=headers, timeout=60).json()["path"] == "a.txt"
    assert requests.delete(address, headers=headers, timeout=60).status_code == 200
    assert requests.get(address, headers=headers, timeout=60).status_code == 404
    assert run.get_file_names() == ["b.txt", "c.txt"]
    run.upload_file("a.txt", io.BytesIO(b"2"))
    run.download_file("a.txt")
    assert Path("a.txt").read_bytes() == b"2"
    everything = f"{base}/batch/ExperimentRun/{run._container}"
    assert requests.delete(everything, headers=headers, timeout=60).status_code == 200
    assert run.get_file_names() == []


def test_ingest(run: Run, workspace: Workspace) -> None:
    account = emulator_account(workspace)
    client = run._client.artifacts
    run.upload_file("outputs/a.txt", io.BytesIO(b"1"))
    uri = f"https://{account}.blob.core.windows.net/azureml"
    client.batch_ingest_from_sas(
        "ExperimentRun", run._container, "?sig=x", uri, f"ExperimentRun/{run._container}/outputs", "copy"
    )
    run.download_file("copy/a.txt")
    assert Path("a.txt").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a\\b", "x" * 901, "a\0b", "a//b"])
def test_names_that_lead_out(run: Run, workspace: Workspace, emulator: Emulator, name: str) -> None:
    base = f"{artifacts(workspace)}/batch/metadata/ExperimentRun/{run._container}"
    answer = requests.post(base, json={"paths": [{"path": name}]}, headers=emulator.headers(), timeout=60)
    assert answer.status_code == 400
    assert run.get_file_names() == []


def test_other_places(workspace: Workspace, emulator: Emulator) -> None:
    for place in ("ExperimentRun/dcid.none", "Other/dcid.x", "ExperimentRun/..%2F..", f"ExperimentRun/{'x' * 400}"):
        address = f"{artifacts(workspace)}/contentinfo/{place}/a.txt"
        assert requests.get(address, headers=emulator.headers(), timeout=60).status_code in (400, 404)
    assert requests.get(f"{artifacts(workspace)}/ExperimentRun/dcid.x", timeout=60).status_code == 401


def artifacts(workspace: Workspace) -> str:
    context = workspace.service_context
    return f"{context._get_artifacts_url()}/artifact/v2.0{context._get_workspace_scope()}/artifacts"


def emulator_account(workspace: Workspace) -> str:
    return str(workspace.get_details()["storageAccount"]).rpartition("/")[2]

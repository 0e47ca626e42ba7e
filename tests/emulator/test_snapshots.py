"""Snapshots of source folders through the SDK."""

from __future__ import annotations

import os
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from azureml.core import Experiment, Run, Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The SDK writes logs below the working directory."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture
def experiment(workspace: Workspace) -> Experiment:
    from azureml.core import Experiment

    return Experiment(workspace, "snapshots")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files that the SDK uploads."""
    from azureml._restclient import snapshots_client

    names: list[str] = []
    upload = snapshots_client.SnapshotsClient._upload_files_batch

    def watched(self: Any, nodes: Any, *arguments: Any) -> Any:
        names.extend(node["fullName"] for node in nodes)
        return upload(self, nodes, *arguments)

    monkeypatch.setattr(snapshots_client.SnapshotsClient, "_upload_files_batch", watched)
    yield names


def take(experiment: Experiment, folder: Path) -> Run:
    run = experiment.start_logging(snapshot_directory=str(folder))
    run.complete()
    return run


def restored(run: Run, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    path = run.restore_snapshot(path=str(folder))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def test_incremental_upload(
    experiment: Experiment, emulator: Emulator, sent: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    (source / "pkg").mkdir(parents=True)
    files = {"train.py": b"print(1)", "pkg/a ä.py": b"a", "pkg/50%.py": b"%", ".amlignore": b"*.log\n"}
    for name, data in files.items():
        (source / name).write_bytes(data)
    (source / "left.log").write_bytes(b"not sent")
    first = take(experiment, source)
    assert set(sent) == set(files)
    assert restored(first, tmp_path / "one") == files

    sent.clear()
    again = take(experiment, source)
    assert sent == []
    assert again.get_snapshot_id() == first.get_snapshot_id()

    (source / "train.py").write_bytes(b"print(2)")
    (source / "pkg/a ä.py").unlink()
    changed = take(experiment, source)
    assert sent == ["train.py"]
    assert changed.get_snapshot_id() != first.get_snapshot_id()
    del files["pkg/a ä.py"]
    assert restored(changed, tmp_path / "two") == {**files, "train.py": b"print(2)"}

    # A client that knows nothing begins with the newest snapshot.
    sent.clear()
    cache = Path(os.environ["HOME"]) / ".azureml/.projectcontent"
    shutil.rmtree(cache)
    assert take(experiment, source).get_snapshot_id() == changed.get_snapshot_id()
    assert sent == []


def test_restore(experiment: Experiment, workspace: Workspace, emulator: Emulator, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / f"{uuid.uuid4().hex}.py").write_bytes(b"1")
    run = take(experiment, source)
    snapshot = run.get_snapshot_id()
    base, headers = content(workspace), emulator.headers()
    tree = requests.get(
        f"{base}/content/v1.0{scope(workspace)}/snapshots/{snapshot}/metadata", headers=headers, timeout=60
    )
    assert set(tree.json()["root"]["children"]) == {path.name for path in source.iterdir()}
    address = requests.get(
        f"{base}/content/v1.0{scope(workspace)}/snapshots/{snapshot}", headers=headers, timeout=60
    ).json()
    assert requests.get(address, timeout=60).content[:2] == b"PK"
    # The address is of this file, and for reading.
    assert requests.put(address, data=b"x", headers={"x-ms-blob-type": "BlockBlob"}, timeout=60).status_code == 403


def test_two_thousand_files(experiment: Experiment, workspace: Workspace, emulator: Emulator, tmp_path: Path) -> None:
    """Uploaded over connections that are kept: the SDK makes two for each file, which is a minute of its own time."""
    base = f"{content(workspace)}/content/v2.0{scope(workspace)}/snapshots"
    files = {f"d{number % 20}/{number}.txt": os.urandom(64) for number in range(2000)}
    headers = emulator.headers()
    nodes = requests.post(f"{base}/getblob", json={"FileNames": list(files)}, headers=headers, timeout=60).json()[
        "fileNodes"
    ]

    def put(some: list[dict[str, str]]) -> set[int]:
        with requests.Session() as session:
            session.headers["x-ms-blob-type"] = "BlockBlob"
            return {session.put(one["blobUri"], data=files[one["fullName"]], timeout=60).status_code for one in some}

    with ThreadPoolExecutor(2) as pool:
        assert set().union(*pool.map(put, (nodes[::2], nodes[1::2]))) == {201}
    folders: dict[str, Any] = {
        f"d{number}": {"name": f"d{number}", "type": "Directory", "children": {}, "hash": "", "timestamp": None}
        for number in range(20)
    }
    for path in files:
        folder, _, name = path.partition("/")
        folders[folder]["children"][name] = {"name": name, "type": "File", "hash": name, "children": {}}
    tree = {"name": "", "type": "Directory", "children": folders, "hash": "", "timestamp": None}
    revisions = [{"FullName": one["fullName"], "BlobUri": one["blobUri"], "FileSize": 64} for one in nodes]
    snapshot = str(uuid.uuid4())
    body = {"ParentSnapshotId": "", "DirTreeNode": tree, "FileRevisionList": {"FileNodes": revisions}}
    assert requests.post(f"{base}/{snapshot}", json=body, headers=headers, timeout=60).status_code == 200
    run = experiment.start_logging(snapshot_directory=None)
    (tmp_path / "back").mkdir()
    path = run.restore_snapshot(snapshot_id=snapshot, path=str(tmp_path / "back"))
    run.complete()
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")} == files


def test_bad_snapshots(workspace: Workspace, emulator: Emulator) -> None:
    headers = emulator.headers()
    base = f"{content(workspace)}/content/v2.0{scope(workspace)}/snapshots"

    def post(path: str, body: Any) -> int:
        return requests.post(f"{base}/{path}", json=body, headers=headers, timeout=60).status_code

    def tree(*names: str, kind: str = "File") -> dict[str, Any]:
        return {"name": "", "type": "Directory", "children": {name: {"name": name, "type": kind} for name in names}}

    def new(node: Any, *nodes: Any) -> int:
        return post(str(uuid.uuid4()), {"DirTreeNode": node, "FileRevisionList": {"FileNodes": list(nodes)}})

    for name in ("../x", "/etc/x", "..", "a\0b", "a\\b", "x" * 2000):
        assert post("getblob", {"FileNames": [name]}) == 400
        assert new(tree(name)) == 400
    place = requests.post(f"{base}/getblob", json={"FileNames": ["x"]}, headers=headers, timeout=60).json()
    uri = place["fileNodes"][0]["blobUri"]
    assert new(tree("x"), {"FullName": "x", "BlobUri": uri}) == 400  # nothing was put there
    assert new(tree("x"), {"FullName": "x", "BlobUri": "file:///etc/passwd"}) == 400
    assert new(tree("x", kind="SymbolicLink")) == 400
    assert new(None) == 400
    assert post("not-a-guid", {"DirTreeNode": tree()}) == 400
    assert post(f"{uuid.uuid4()}/zip", {}) == 404
    assert requests.post(f"{base}/getblob", json={"FileNames": ["x"]}, timeout=60).status_code == 401


def content(workspace: Workspace) -> str:
    return str(workspace.service_context._get_project_content_url())


def scope(workspace: Workspace) -> str:
    return str(workspace.service_context._get_workspace_scope())

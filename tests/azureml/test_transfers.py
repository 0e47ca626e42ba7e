"""Files of runs and folders of datastores, on the emulator: every byte there and back, through its real signatures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from himl_container.azureml.failures import FailedAssertion, MissingKey, MissingRun, WrongValue
from himl_container.azureml.transfers import (
    download_checkpoints_from_run_id,
    download_files_from_run_id,
    download_from_datastore,
    download_run_files,
    get_run_file_names,
    upload_to_datastore,
)

if TYPE_CHECKING:
    from azureml.core import Run, Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator

STORE = "workspaceblobstore"
FILES = {
    "outputs/checkpoints/last.ckpt": os.urandom(9 << 20),
    "outputs/checkpoints/ä ö%20+&.txt": b"names",
    "outputs/empty": b"",
    "logs/x.txt": b"log",
    "outputs_of_others/y": b"y",
}


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The SDK writes logs below the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Run:
    from azureml.core import Experiment

    folder = tmp_path_factory.mktemp("run")
    made = Experiment(workspace, "transfers").start_logging(snapshot_directory=None)
    for index, data in enumerate(FILES.values()):
        (folder / str(index)).write_bytes(data)
    made.upload_files(list(FILES), [str(folder / str(index)) for index in range(len(FILES))])
    made.complete()
    return made


@pytest.fixture
def remote() -> str:
    return f"transfers-{uuid.uuid4().hex[:10]}"


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("prefix", ["", "outputs", "outputs/", "outputs/check", "logs/x.txt"])
def test_files_of_a_run(workspace: Workspace, run: Run, tmp_path: Path, prefix: str, check: bool) -> None:
    wanted = {name: data for name, data in FILES.items() if name.startswith(prefix)}
    assert sorted(get_run_file_names(run, prefix)) == sorted(wanted)
    download_files_from_run_id(run.id, tmp_path / "out", prefix, workspace=workspace, validate_checksum=check)
    assert tree(tmp_path / "out") == wanted


def test_checkpoints_with_a_configuration_file(run: Run, emulator: Emulator, tmp_path: Path) -> None:
    shutil.copy(emulator.config, tmp_path / "config.json")
    for words in ({"workspace_config_path": tmp_path / "config.json"}, {}):  # named, and found in this folder
        out = tmp_path / f"out{len(words)}"
        download_checkpoints_from_run_id(run.id, "outputs/checkpoints", out, **words)  # type: ignore[arg-type]
        assert tree(out) == {name: data for name, data in FILES.items() if "checkpoints" in name}


def test_what_a_run_does_not_have(workspace: Workspace, run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No such files were found for this Run\.") as error:
        download_files_from_run_id(run.id, tmp_path / "out", "models", workspace=workspace)
    assert "outputs/empty" in str(error.value)
    with pytest.raises(MissingRun):
        download_files_from_run_id("absent", tmp_path / "out", workspace=workspace)
    assert not (tmp_path / "out").exists()


def test_a_second_download_sends_nothing(run: Run, tmp_path: Path) -> None:
    first = download_run_files(run, tmp_path / "out")
    again = download_run_files(run, tmp_path / "out")
    assert first is not None and again is not None
    assert (first.files, first.kept, first.size) == (len(FILES), 0, sum(map(len, FILES.values())))
    # The storage tells nothing about empty files, so they are made again.
    assert (again.files, again.kept, again.size) == (1, len(FILES) - 1, 0)


@pytest.mark.parametrize("library", ["azure.storage.blob", "the SDK's copy"])
def test_there_and_back(
    workspace: Workspace, tmp_path: Path, remote: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Azure's library, and in an image that has none but the copy in azureml-core."""
    if library != "azure.storage.blob":
        monkeypatch.setitem(sys.modules, "azure.storage.blob", None)
    data = {"a.txt": b"a", "sub__b": os.urandom(17 << 20), "sub__deep__ü +%.bin": b"c", "empty": b""}
    source = write(tmp_path / "source", **data)
    upload_to_datastore(STORE, source, Path(remote) / "x", aml_workspace=workspace, show_progress=True)
    download_from_datastore(STORE, f"{remote}/x", tmp_path / "out", aml_workspace=workspace, show_progress=True)
    assert tree(tmp_path / "out" / remote / "x") == tree(source)
    download_from_datastore(STORE, f"{remote}/x/sub/d", tmp_path / "part", aml_workspace=workspace)
    assert list(tree(tmp_path / "part")) == [f"{remote}/x/sub/deep/ü +%.bin"]


def test_overwriting(workspace: Workspace, tmp_path: Path, remote: str) -> None:
    first, second = write(tmp_path / "1", a=b"1", b=b"1"), write(tmp_path / "2", a=b"22", c=b"22")
    words: dict[str, Any] = {"aml_workspace": workspace}
    upload_to_datastore(STORE, first, Path(remote), **words)
    upload_to_datastore(STORE, second, Path(remote), **words)
    out = tmp_path / "out"
    download_from_datastore(STORE, remote, out, **words)
    assert tree(out / remote) == {"a": b"1", "b": b"1", "c": b"22"}
    upload_to_datastore(STORE, second, Path(remote), overwrite=True, **words)
    download_from_datastore(STORE, remote, out, **words)
    assert tree(out / remote)["a"] == b"1"
    download_from_datastore(STORE, remote, out, overwrite=True, **words)
    assert tree(out / remote) == {"a": b"22", "b": b"1", "c": b"22"}


def test_a_large_file_is_uploaded_again_where_it_was_cut(workspace: Workspace, tmp_path: Path, remote: str) -> None:
    """A process is killed in the midst of an upload; the next one sends the blocks that are missing."""
    source = write(tmp_path / "source", large=os.urandom(40 << 20))
    program = (
        "import os, sys, threading\n"
        "from pathlib import Path\n"
        "from azure.storage.blob import BlobClient\n"
        "from himl_container.azureml import uploads\n"
        "from himl_container.azureml.transfers import upload_to_datastore\n"
        "stage = BlobClient.stage_block\n"
        "def staged(self, block, *words, **names):\n"
        "    if block.startswith('000003'):\n"
        "        os._exit(9)\n"
        "    return stage(self, block, *words, **names)\n"
        "BlobClient.stage_block = staged\n"
        "uploads.WORKERS = 1\n"
        "uploads.upload_all.__kwdefaults__['workers'] = 1\n"
        f"upload_to_datastore({STORE!r}, Path('source'), Path({remote!r}))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=tmp_path, capture_output=True, timeout=120
    )
    assert killed.returncode == 9, killed.stderr.decode()
    from azure.storage.blob import BlobClient

    staged: list[str] = []
    stage = BlobClient.stage_block

    def counted(self: Any, block: str, *words: Any, **names: Any) -> Any:
        staged.append(block)
        return stage(self, block, *words, **names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlobClient, "stage_block", counted)
        upload_to_datastore(STORE, source, Path(remote), aml_workspace=workspace)
    assert sorted(block[:6] for block in staged) == ["000003", "000004"]
    download_from_datastore(STORE, remote, tmp_path / "out", aml_workspace=workspace)
    assert tree(tmp_path / "out" / remote) == tree(source)


def test_a_killed_download_goes_on(workspace: Workspace, tmp_path: Path, remote: str) -> None:
    source = write(tmp_path / "source", large=os.urandom(40 << 20))
    upload_to_datastore(STORE, source, Path(remote), aml_workspace=workspace)
    program = (
        "import os, threading\n"
        "from pathlib import Path\n"
        "from himl_container.azureml import downloads, partial_file\n"
        "from himl_container.azureml.transfers import download_from_datastore\n"
        "arrived, count, one = partial_file.PartialFile.arrived, [], threading.Lock()\n"
        "def told(self, index):\n"
        "    with one:  # a fourth part must not be noted before the third is counted\n"
        "        arrived(self, index)\n"
        "        count.append(index)\n"
        "        if len(count) == 3:\n"
        "            os._exit(9)\n"
        "partial_file.PartialFile.arrived = told\n"
        f"download_from_datastore({STORE!r}, {remote!r}, Path('out'))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=tmp_path, capture_output=True, timeout=120
    )
    assert killed.returncode == 9, killed.stderr.decode()
    assert not (tmp_path / "out" / remote / "large").exists()
    from himl_container.azureml.partial_file import PartialFile

    parts: list[int] = []
    arrived = PartialFile.arrived

    def counted(self: Any, index: int) -> None:
        parts.append(index)
        arrived(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartialFile, "arrived", counted)
        download_from_datastore(STORE, remote, tmp_path / "out", aml_workspace=workspace)
    assert len(parts) == 2
    assert tree(tmp_path / "out") == {f"{remote}/large": (source / "large").read_bytes()}


def test_datastores_that_cannot_be_used(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "source", a=b"a")
    words: dict[str, Any] = {"aml_workspace": workspace}
    with pytest.raises(MissingKey, match="absent") as unknown:
        download_from_datastore("absent", "x", tmp_path / "out", **words)
    assert isinstance(unknown.value, KeyError)
    with pytest.raises(FailedAssertion, match=r"Invalid datastore type\. Can only download from AzureBlobDatastore"):
        download_from_datastore("workspacefilestore", "x", tmp_path / "out", **words)
    with pytest.raises(AssertionError, match=r"Invalid datastore type\. Can only upload to AzureBlobDatastore"):
        upload_to_datastore("workspacefilestore", tmp_path / "source", Path("x"), **words)


def test_names_in_a_container(workspace: Workspace, tmp_path: Path, remote: str) -> None:
    """Blobs that stand for folders are passed over; a name that leads out of the folder is refused."""
    store = workspace.get_default_datastore()
    container = store.blob_service.get_container_client(container=store.container_name)
    for name in ("d/", "d", "d/file"):
        container.get_blob_client(f"{remote}/{name}").upload_blob(b"" if name != "d/file" else b"x")
    download_from_datastore(STORE, f"{remote}/", tmp_path / "out", aml_workspace=workspace)
    assert tree(tmp_path / "out") == {f"{remote}/d/file": b"x"}
    container.get_blob_client(f"{remote}/a//b").upload_blob(b"x")
    with pytest.raises(WrongValue, match="not a path below a folder"):
        download_from_datastore(STORE, f"{remote}/", tmp_path / "other", aml_workspace=workspace)
    assert not (tmp_path / "other").exists()


DISTRIBUTED = """
import os, sys
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
from himl_container.azureml import downloads
from himl_container.azureml.transfers import download_run_files
from himl_container.azureml.workspace import get_workspace

rank = int(os.environ["LOCAL_RANK"])
dist.init_process_group(
    "gloo", init_method="file://" + os.path.abspath("meet"), rank=rank, world_size=2, timeout=timedelta(seconds=120)
)
run = get_workspace().get_run(sys.argv[1])
fetch = downloads.download_all

def counted(*words):
    Path(f"fetched-{rank}").touch()
    return fetch(*words)

def failing(*words):
    raise OSError("the disk is gone")

downloads.download_all = counted
download_run_files(run, Path("out"), "outputs/")
print(sorted(path.name for path in Path("out").rglob("*") if path.is_file()))
downloads.download_all = failing
try:
    download_run_files(run, Path("other"), "outputs/")
except OSError as error:
    print(error)
"""


def test_two_processes_of_a_machine(run: Run, tmp_path: Path) -> None:
    """Each process of a distributed job returns when the files are there; one of them has fetched them.

    Where that one fails, the other neither waits for ever nor goes on as if nothing had happened.
    """
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text(DISTRIBUTED)
    started = [
        subprocess.Popen(
            [sys.executable, "train.py", run.id],
            env={**os.environ, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    ends = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0, 0], ends
    first, second = [out.splitlines() for out, _ in ends]
    assert first[0] == second[0] == str(sorted(Path(name).name for name in FILES if name.startswith("outputs/")))
    assert sorted(path.name for path in tmp_path.glob("fetched-*")) == ["fetched-0"]
    assert "the disk is gone" in first[1]
    assert "3 of 3 files are not there after the download" in second[1]

"""The data of jobs through the SDK: datasets that come in, outputs that go out, and the lineage of both."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from job_image import Submit, environment_of, error_of, submitter, text_of, wait
from stored_files import names_in, upload_names
from unit.emulator.data_rig import PATTERNS, TREE

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace
    from emulator_fixtures import Emulator

pytestmark = [pytest.mark.emulator, pytest.mark.docker]


@pytest.fixture
def shell(workspace: Workspace, base_image: str, tmp_path: Path) -> Submit:
    """Submits commands in an image without Python, which start more quickly."""
    return submitter(workspace, environment_of(base_image, "shell"), tmp_path / "sources")


@pytest.fixture
def submit(workspace: Workspace, job_environment: Environment, tmp_path: Path) -> Submit:
    return submitter(workspace, job_environment, tmp_path / "sources")


@pytest.fixture
def name() -> str:
    return f"jd-{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="module")
def folder(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the default datastore in which the files of the table of patterns are."""
    return upload_names(workspace, tmp_path_factory.mktemp("tree"), TREE)


def files(workspace: Workspace, *paths: str) -> Any:
    from azureml.core import Dataset

    return Dataset.File.from_files([(workspace.get_default_datastore(), path) for path in paths], validate=False)


def test_the_engine_finds_what_jobs_find(workspace: Workspace, folder: str) -> None:
    """The table that the emulator's own reading of paths is tested with, shown to the SDK's native engine."""
    for pattern, found in PATTERNS:
        paths = files(workspace, f"{folder}/{pattern}").to_path()
        assert sorted(path.removeprefix("/") for path in paths) == sorted(found), pattern
    several = files(workspace, f"{folder}/p/a/c", f"{folder}/p/a/b.txt").to_path()
    assert several == [f"/workspaceblobstore/{folder}/p/a/{item}" for item in ("c/d.csv", "c/e.txt", "b.txt")]


def test_ways_to_bring_a_dataset(workspace: Workspace, folder: str, shell: Submit, name: str) -> None:
    every = files(workspace, f"{folder}/p/a").register(workspace, name)
    single = files(workspace, f"{folder}/p/a.txt").register(workspace, f"{name}-single")
    several = files(workspace, f"{folder}/p/a/c", f"{folder}/p/ab")
    command = [
        "cd", every.as_named_input("mounted").as_mount(),
        "&& find . -type f | sort && touch new 2> /dev/null || echo read-only;",
        "find", every.as_named_input("fixed").as_download("/data/here"), "-type f | sort;",
        "cat", single.as_named_input("one").as_mount(), "&& echo;",
        "echo", every.as_named_input("direct"), "$AZURE_ML_INPUT_mounted $mounted $AZUREML_DATAREFERENCE_fixed;",
        "find", several.as_named_input("two").as_mount(), "-type f | wc -l",
    ]  # fmt: skip
    run = shell(command=command)
    assert wait(run) == "Completed", error_of(run)
    lines = text_of(run).splitlines()
    mounted = next(line.split()[1] for line in lines if line.startswith(every.id))
    assert lines[:4] == ["./.h/x", "./b.txt", "./c/d.csv", "./c/e.txt"]
    assert "read-only" in lines
    assert [line for line in lines if line.startswith("/data/here/")] == [
        f"/data/here/{item}" for item in (".h/x", "b.txt", "c/d.csv", "c/e.txt")
    ]
    assert "p/a.txt" in lines
    assert f"{every.id} {mounted} {mounted} /data/here" in lines
    assert lines[-1].strip() == "3"
    inputs = {item["consumptionDetails"]["inputName"]: item for item in run.get_details()["inputDatasets"]}
    assert {key: item["dataset"].id for key, item in inputs.items() if key in {"mounted", "one"}} == {
        "mounted": every.id,
        "one": single.id,
    }
    assert inputs["mounted"]["consumptionDetails"]["mechanism"] == "Mount"
    assert inputs["fixed"]["consumptionDetails"]["pathOnCompute"] == "/data/here"


INSIDE = """
import json, os, sys
from azureml.core import Dataset, Model, Run
run = Run.get_context(allow_offline=False)
workspace = run.experiment.workspace
open("outputs/weights", "w").write("weights")
run.upload_file("models/weights", "outputs/weights")
made = run.register_model(sys.argv[1], "models/weights")
other = Model.register(workspace, "outputs/weights", sys.argv[1] + "-local")
print(json.dumps({
    "mounted": sorted(os.listdir(run.input_datasets["mounted"])),
    "direct": run.input_datasets["direct"].id,
    "version": made.version,
    "back": open(other.download("other")).read(),
    "theirs": open(Model(workspace, sys.argv[2]).download("theirs")).read(),
    "key": workspace.get_default_datastore().account_key,
}))
"""


def test_data_and_models_inside_a_job(workspace: Workspace, folder: str, submit: Submit, name: str) -> None:
    from azureml.core import Model

    Path("theirs.txt").write_text("theirs")
    Model.register(workspace, "theirs.txt", f"{name}-theirs")
    every = files(workspace, f"{folder}/p/a").register(workspace, name)
    run = submit(
        INSIDE,
        arguments=[
            name,
            f"{name}-theirs",
            every.as_named_input("mounted").as_mount(),
            every.as_named_input("direct"),
        ],
    )
    assert wait(run) == "Completed", text_of(run)
    found = json.loads(next(line for line in text_of(run).splitlines() if line.startswith("{")))
    assert (found["mounted"], found["direct"]) == ([".h", "b.txt", "c"], every.id)
    assert (found["version"], found["back"], found["theirs"], found["key"]) == (1, "weights", "theirs", None)
    assert Model(workspace, name).run_id == run.id


def test_outputs(workspace: Workspace, shell: Submit, name: str, tmp_path: Path) -> None:
    from azureml.core import Dataset
    from azureml.data import OutputFileDatasetConfig

    store = workspace.get_default_datastore()
    kept = OutputFileDatasetConfig("kept", (store, f"{name}/{{run-id}}/{{output-name}}"))
    table = OutputFileDatasetConfig("table", (store, f"{name}/table")).as_upload(source_globs=["*.csv"])
    table = table.register_on_complete(f"{name}-table", tags={"t": "1"}).read_delimited_files()
    plain = OutputFileDatasetConfig("plain", source="/fixed/place").as_mount()
    write = 'mkdir -p $0/sub; echo kept > $0/sub/x; printf "a,b\\n1,2\\n" > $1/t.csv; echo no > $1/t.txt; echo p > $2/p'
    named = kept.register_on_complete(name, description="What it is.")
    run = shell(command=["sh -c", f"'{write}'", named, table, plain])
    assert wait(run) == "Completed", error_of(run)
    made = Dataset.get_by_name(workspace, name)
    assert (made.version, made.description, made.to_path()) == (1, "What it is.", ["/sub/x"])
    store.download(str(tmp_path / "back"), name, show_progress=False)
    assert names_in(tmp_path / "back" / name) == [f"{run.id}/kept/sub/x", "table/t.csv"]
    read = Dataset.get_by_name(workspace, f"{name}-table")
    assert (type(read).__name__, read.tags) == ("TabularDataset", {"t": "1"})
    assert read.to_pandas_dataframe().to_dict("records") == [{"a": "1", "b": "2"}]
    outputs = {item["outputDetails"]["outputName"]: item for item in run.get_details()["outputDatasets"]}
    assert set(outputs) == {"kept", "table", "plain"}
    assert (outputs["kept"]["dataset"].name, outputs["kept"]["outputType"]) == (name, "RunOutput")
    assert (outputs["table"]["outputDetails"]["mechanism"], outputs["plain"]["dataset"].name) == ("Upload", None)
    outputs["plain"]["dataset"].download(str(tmp_path / "plain"))
    assert (tmp_path / "plain/p").read_text() == "p\n"


def test_an_output_is_the_next_jobs_input(workspace: Workspace, shell: Submit, name: str) -> None:
    from azureml.data import OutputFileDatasetConfig

    for number in (1, 2):
        made = OutputFileDatasetConfig("out").register_on_complete(name)
        assert wait(shell(command=["sh -c", f"'echo {number} > $0/n'", made])) == "Completed"
    from azureml.core import Dataset

    newest = Dataset.get_by_name(workspace, name)
    assert newest.version == 2
    run = shell(command=["cat", newest.as_named_input("n").as_download(), "|| true; cat $n/n"])
    assert wait(run) == "Completed"
    assert "2" in text_of(run).splitlines()


def test_the_output_of_a_job_that_failed(workspace: Workspace, shell: Submit, name: str) -> None:
    from azureml.core import Dataset
    from azureml.data import OutputFileDatasetConfig
    from azureml.exceptions import UserErrorException

    mounted = OutputFileDatasetConfig("m").as_mount().register_on_complete(f"{name}-m")
    uploaded = OutputFileDatasetConfig("u").as_upload().register_on_complete(f"{name}-u")
    run = shell(command=["sh -c", "'echo 1 > $0/x; echo 2 > $1/x; exit 3'", mounted, uploaded])
    assert wait(run) == "Failed"
    assert Dataset.get_by_name(workspace, f"{name}-m").to_path() == ["/x"]
    with pytest.raises(UserErrorException):
        Dataset.get_by_name(workspace, f"{name}-u")


def test_data_references(workspace: Workspace, folder: str, shell: Submit, name: str, tmp_path: Path) -> None:
    store = workspace.get_default_datastore()

    def tune(config: Any) -> None:
        references = {
            "inside": store.path(f"{folder}/p/a").as_download(),
            "back": store.path(f"{name}/up").as_upload(path_on_compute="/to/go"),
        }
        config.data_references = {key: reference.to_config() for key, reference in references.items()}

    run = shell(command="ls $AZUREML_DATAREFERENCE_inside && echo up > $AZUREML_DATAREFERENCE_back/x", tune=tune)
    assert wait(run) == "Completed", error_of(run)
    assert text_of(run).splitlines()[:2] == ["b.txt", "c"]
    store.download(str(tmp_path / "back"), name, show_progress=False)
    assert names_in(tmp_path / "back" / name) == ["up/x"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("gone", "has no files there"),
        ("trick", "cannot be a file's"),
        ("sample", "jobs of the emulator do not follow"),
    ],
)
def test_a_dataset_that_cannot_be_laid_out(
    workspace: Workspace, emulator: Emulator, shell: Submit, name: str, change: str, why: str
) -> None:
    store = workspace.get_default_datastore()
    # The storage takes any name; a client that is not the SDK's may have chosen it.
    blob = store.blob_service.get_blob_client(
        "azureml-blobstore", f"{name}/a\\..\\..\\x" if change == "trick" else f"{name}/x"
    )
    blob.upload_blob(b"x")
    found = files(workspace, f"{name}/none" if change == "gone" else name)
    if change == "sample":
        found = found.take_sample(0.5, seed=1)
    run = shell(command=["ls", found.as_named_input("x").as_mount()])
    assert wait(run) == "Failed"
    assert why in error_of(run)


def test_a_large_dataset_streams(workspace: Workspace, emulator: Emulator, shell: Submit, name: str) -> None:
    """200 MB pass through a job and back; the emulator does not grow by as much."""
    from azureml.data import OutputFileDatasetConfig

    made = OutputFileDatasetConfig("large", (workspace.get_default_datastore(), name)).register_on_complete(name)
    before = peak_memory(emulator)
    run = shell(
        command=["sh -c", "'for n in 1 2 3 4; do head -c 50m /dev/urandom > $0/$n; done; cat $0/* | sha256sum'", made]
    )
    assert wait(run, seconds=300) == "Completed", error_of(run)
    digest = text_of(run).split()[0]
    back = shell(command=["sh -c", "'cat $0/* | sha256sum'", files(workspace, name).as_named_input("x").as_mount()])
    assert wait(back, seconds=300) == "Completed", error_of(back)
    assert text_of(back).split()[0] == digest
    assert peak_memory(emulator) - before < 150 << 20


def peak_memory(emulator: Emulator) -> int:
    """The most memory that the emulator's own process has had, in bytes (``VmHWM``)."""
    pid = json.loads((emulator.folder / "running.json").read_text())["pid"]
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) << 10

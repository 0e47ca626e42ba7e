"""What a job gets through a run that it submits: files of its own run, and none of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.data_rig import DataRig, files_of
from unit.emulator.history_rig import Rig, job

from himl_container.emulator.blobs import RUNS_CONTAINER, SNAPSHOTS_CONTAINER
from himl_container.emulator.data.dataflow import parse_dataflow
from himl_container.emulator.data.reach import Reach
from himl_container.emulator.http import Refusal
from himl_container.errors import InputError

FILES = "workspaceartifactstore"
OWN, BELOW, OTHER = (f"ExperimentRun/dcid.{name}" for name in ("own", "own_1", "other"))


@pytest.fixture
def rig() -> DataRig:
    made = DataRig()
    made.run("own")
    made.run("own_1", parent_id="own")
    made.run("other")
    made.put(
        *(f"{place}/outputs/w.txt" for place in (OWN, BELOW, OTHER)), "LocalUpload/x/w.txt", container=RUNS_CONTAINER
    )
    return made


def reference(path: str, store: str = FILES, mode: str = "download") -> dict[str, Any]:
    return {"dataReferences": {"x": {"dataStoreName": store, "pathOnDataStore": path, "mode": mode}}}


def of_dataset(saved_id: str, mode: str = "download") -> dict[str, Any]:
    return {"data": {"x": {"dataLocation": {"dataset": {"id": saved_id}}, "mechanism": mode}}}


def of_uri(path: str) -> dict[str, Any]:
    address = f"azureml://datastores/{FILES}/paths/{path}"
    return {"data": {"x": {"dataLocation": {"uri": {"path": address}}, "mechanism": "mount"}}}


def output(path: str) -> dict[str, Any]:
    place = {"dataPath": {"datastoreName": FILES, "relativePath": path}}
    return {"outputData": {"x": {"mechanism": "mount", "outputLocation": place}}}


def fetched(rig: DataRig, definition: dict[str, Any], folder: Path, submitter: str) -> list[str]:
    """Lay the inputs out, as the job does, which asks nobody beforehand."""
    folder.mkdir()
    for item in rig.data.inputs(definition, submitter):
        rig.data.fetch(item, folder)
    return list(files_of(folder).values())


@pytest.mark.parametrize(
    "path",
    [
        OTHER,
        f"{OTHER}/outputs/w.txt",
        "",
        "ExperimentRun",
        "ExperimentRun/*/outputs/w.txt",
        "ExperimentRun/dcid.o*/outputs/w.txt",
        "ExperimentRun/dcid.own*/../dcid.other",
        f"{OWN}/../dcid.other/outputs/w.txt",
        f"{OWN}/./../dcid.other/outputs/w.txt",
        f"/{OTHER}/outputs/w.txt",
        "ExperimentRun/dcid.nobody/x",
        "LocalUpload/x/w.txt",
    ],
)
def test_files_of_others_are_refused_at_submission_and_when_laid_out(rig: DataRig, tmp_path: Path, path: str) -> None:
    for number, definition in enumerate(
        (reference(path), reference(path, mode="mount"), of_uri(path), of_dataset(rig.save(path, store=FILES)))
    ):
        with pytest.raises(Refusal) as caught:
            rig.data.check("child", definition, "own")
        assert caught.value.status == 403, definition
        with pytest.raises(Refusal) as caught:
            fetched(rig, definition, tmp_path / str(number), "own")
        assert caught.value.status == 403, definition
        assert files_of(tmp_path / str(number)) == {}


@pytest.mark.parametrize("path", [OWN, f"{OWN}/outputs/w.txt", f"{OWN}/**/*.txt", f"{BELOW}/outputs/"])
def test_files_of_its_own_run_a_job_may_pass_on(rig: DataRig, tmp_path: Path, path: str) -> None:
    definition = of_dataset(rig.save(path, store=FILES))
    rig.data.check("child", definition, "own")
    (found,) = fetched(rig, definition, tmp_path / "in", "own")
    assert found.startswith((OWN, BELOW))


def test_a_user_may_name_every_file(rig: DataRig, tmp_path: Path) -> None:
    assert fetched(rig, reference(OTHER), tmp_path / "in", "") == [f"{OTHER}/outputs/w.txt"]


def test_a_dataset_that_changes_after_the_submission_is_checked_again(rig: DataRig, tmp_path: Path) -> None:
    definition = {"data": {"x": {"dataLocation": {"dataset": {"name": "d"}}, "mechanism": "download"}}}
    rig.put("fine.txt")
    fine, bad = rig.save("fine.txt"), rig.save(OTHER, store=FILES)
    rig.datasets.register("d", "file", rig.datasets.find_saved(fine).dataflow, new_version=True)
    rig.data.check("child", definition, "own")
    rig.datasets.register("d", "file", rig.datasets.find_saved(bad).dataflow, new_version=True)
    with pytest.raises(Refusal) as caught:
        fetched(rig, definition, tmp_path / "in", "own")
    assert caught.value.status == 403


def test_nothing_is_written_into_the_files_of_others(rig: DataRig) -> None:
    for definition in (output(f"{OTHER}/outputs"), output(""), reference(f"{OTHER}/outputs", mode="upload")):
        for ask in (
            lambda definition=definition: rig.data.check("child", definition, "own"),
            lambda definition=definition: rig.data.outputs("child", definition, "own"),
        ):
            with pytest.raises(Refusal) as caught:
                ask()
            assert caught.value.status == 403, definition
    rig.data.check("child", output(f"{OWN}/outputs/of-child"), "own")
    assert rig.data.outputs("child", output(f"{OTHER}/outputs"))  # a user's


def test_what_is_wrong_for_another_reason_is_told_by_the_run(rig: DataRig, tmp_path: Path) -> None:
    for definition in (
        {"data": {"x": 3}},
        of_dataset("none"),
        of_dataset(rig.save("p", kind="tabular")),
        reference("x", store="none"),
        output("../x"),
        of_dataset(rig.save(OTHER, store=FILES), mode="direct"),  # in the script the SDK has no key for it
    ):
        rig.data.check("child", definition, "own")
    with pytest.raises(InputError, match="no such datastore"):
        fetched(rig, reference("x", store="none"), tmp_path / "in", "own")


def test_a_datastore_over_the_snapshots_is_closed_too(rig: DataRig) -> None:
    for container in (RUNS_CONTAINER, SNAPSHOTS_CONTAINER):
        with pytest.raises(Refusal):
            Reach(rig.runs).check("own", container, "uploads/x")
        Reach(rig.runs).check("", container, "uploads/x")


@given(
    st.lists(st.sampled_from(["ExperimentRun", "dcid.own", "dcid.other", "..", ".", "", "*", "**", "x"]), max_size=8)
)
def test_whatever_path_is_given_nothing_of_others_is_found(parts: list[str]) -> None:
    made = DataRig()
    made.run("own")
    made.run("other")
    made.put(f"{OWN}/x", f"{OTHER}/x", "x", container=RUNS_CONTAINER)
    source = made.datasets.find_saved(made.save("/".join(parts), store=FILES)).dataflow
    try:
        found = made.data._resolver.resolve(parse_dataflow(source), "mount", "own")
    except (Refusal, InputError):
        return
    assert {file.blob.name for file in found.files} == {f"{OWN}/x"}


def test_the_definition_of_a_run_with_a_job_stays(rig: DataRig) -> None:
    rig.run("submitted", definition={"script": "train.py"}, target="cpu")
    path = "history/v1.0:/runs/submitted"
    history = Rig(rig.clock, rig.blobs, rig.database)
    for change in ({"runDefinition": reference(OTHER)}, {"target": "low"}):
        assert history.status("PATCH", path, {"runId": "submitted", **change}, job("submitted")) == 400
    assert (
        history.status("PATCH", path, {"runId": "submitted", "target": "cpu", "tags": {"a": "b"}}, job("submitted"))
        == 200
    )
    assert rig.runs.get("submitted").definition == {"script": "train.py"}

from __future__ import annotations

from pathlib import Path

import pytest

from himl_container.errors import InputError
from himl_container.launch.layout import job_variables, lay_out, mpi_variables
from himl_container.launch.script import resolve_command
from himl_container.launch.snapshot import scan
from himl_container.launch.spec import Dataset, ImageRef, LaunchSpec

ROOT = "/mnt/azureml/cr/j/0abc"


def test_places_and_variables_are_azuremls() -> None:
    spec = LaunchSpec(
        "train",
        ImageRef("i"),
        ("true",),
        environment=(("A", "b"),),
        datasets=(Dataset("iris-data"), Dataset("fixed", "/data/fixed")),
        outputs=(Dataset("res"),),
    )
    layout = lay_out(spec, "0abc")
    data = f"{ROOT}/cap/data-capability/wd"
    assert layout.working_dir == f"{ROOT}/exe/wd"
    assert job_variables(spec, layout, "train_1_2") == {
        "A": "b",
        "AZUREML_RUN_ID": "train_1_2",
        "AZUREML_DATASET_ENVIRONMENT_VARS": "INPUT_0:mount,INPUT_1:mount",
        "AZUREML_DATASET_FILE_OUTPUTS": "OUTPUT_0",
        "INPUT_0": f"{data}/INPUT_0",
        "AZURE_ML_INPUT_INPUT_0": f"{data}/INPUT_0",
        "AZUREML_DATAREFERENCE_INPUT_0": f"{data}/INPUT_0",
        "INPUT_1": "/data/fixed",
        "AZURE_ML_INPUT_INPUT_1": "/data/fixed",
        "AZUREML_DATAREFERENCE_INPUT_1": "/data/fixed",
        "OUTPUT_0": f"{data}/OUTPUT_0",
        "AZURE_ML_OUTPUT_OUTPUT_0": f"{data}/OUTPUT_0",
        "AZUREML_DATAREFERENCE_OUTPUT_0": f"{data}/OUTPUT_0",
    }


def test_the_users_variables_win() -> None:
    spec = LaunchSpec("t", ImageRef("i"), ("true",), environment=(("AZUREML_RUN_ID", "mine"),))
    assert job_variables(spec, lay_out(spec, "0"), "id")["AZUREML_RUN_ID"] == "mine"


def test_nothing_that_makes_the_sdk_look_for_a_service() -> None:
    spec = LaunchSpec("t", ImageRef("i"), ("true",), nodes=2, datasets=(Dataset("a"),))
    names = {*job_variables(spec, lay_out(spec, "0"), "id"), *mpi_variables(0, 2)}
    assert not [name for name in names if name.startswith(("AZUREML_ARM", "AZUREML_SERVICE", "AZUREML_RUN_TOKEN"))]


def test_mpi_variables() -> None:
    assert mpi_variables(0, 1) == {}
    first, last = mpi_variables(0, 3), mpi_variables(2, 3)
    assert last["OMPI_COMM_WORLD_RANK"] == "2"
    assert last["OMPI_COMM_WORLD_SIZE"] == "3"
    assert last["AZ_BATCH_MASTER_NODE"] == "node-0:6000"
    assert last["AZ_BATCHAI_MPI_MASTER_NODE"] == first["AZ_BATCHAI_MPI_MASTER_NODE"] == "node-0"
    assert {name for name in first if first[name] != last[name]} == {"OMPI_COMM_WORLD_RANK", "AZ_BATCHAI_TASK_INDEX"}


def test_mpi_variables_of_several_processes_a_node() -> None:
    third = mpi_variables(2, 2, 2)
    assert (third["OMPI_COMM_WORLD_RANK"], third["OMPI_COMM_WORLD_SIZE"]) == ("2", "4")
    assert (third["OMPI_COMM_WORLD_LOCAL_RANK"], third["OMPI_COMM_WORLD_LOCAL_SIZE"]) == ("0", "2")
    assert third["AZ_BATCHAI_TASK_INDEX"] == "1"
    assert third["AZ_BATCH_HOST_LIST"] == "node-0,node-1"
    assert mpi_variables(1, 1, 2)["OMPI_COMM_WORLD_LOCAL_RANK"] == "1"


def test_datasets_with_names_of_their_own_as_the_sdk_gives_them() -> None:
    datasets = (Dataset("iris", variable="iris"), Dataset("cold", "/data/cold", variable="cold", mode="download"))
    spec = LaunchSpec("t", ImageRef("i"), ("true",), datasets=datasets)
    values = job_variables(spec, lay_out(spec, "0abc"), "id")
    assert values["AZUREML_DATASET_ENVIRONMENT_VARS"] == "iris:mount,cold:download"
    assert values["iris"] == values["AZURE_ML_INPUT_iris"] == f"{ROOT}/cap/data-capability/wd/iris"
    assert values["cold"] == "/data/cold"
    assert "INPUT_0" not in values


def test_a_python_script_runs_by_python(source: Path) -> None:
    snapshot = scan(source)
    assert resolve_command("train.py", snapshot) == ("python", "train.py")
    assert resolve_command("./train.py", snapshot) == ("python", "train.py")
    assert resolve_command(str(source / "train.py"), snapshot) == ("python", "train.py")
    assert resolve_command("-m", snapshot) == ("python", "-m")


def test_an_executable_of_the_snapshot_runs_as_it_is(source: Path) -> None:
    (source / "go.sh").write_text("#!/bin/sh\n")
    with pytest.raises(InputError, match="not executable"):
        resolve_command("go.sh", scan(source))
    (source / "go.sh").chmod(0o755)
    assert resolve_command("go.sh", scan(source)) == ("./go.sh",)


def test_another_word_is_a_command_of_the_image(source: Path) -> None:
    assert resolve_command("true", scan(source)) == ("true",)


def test_a_script_that_does_not_exist_names_a_near_one(source: Path) -> None:
    (source / "src").mkdir()
    (source / "src" / "eval.py").touch()
    with pytest.raises(InputError) as caught:
        resolve_command("eval.py", scan(source))
    assert "src/eval.py" in caught.value.hint
    with pytest.raises(InputError, match="no such script"):
        resolve_command("bin/go", scan(source))


def test_a_script_that_is_left_out_names_the_rule(source: Path) -> None:
    (source / ".amlignore").write_text("\ntrain.*\n")
    with pytest.raises(InputError, match=r"\.amlignore:2 \(train\.\*\)"):
        resolve_command("train.py", scan(source))


def test_a_script_outside_of_the_source_folder(source: Path) -> None:
    for script in ("../x.py", "/x.py"):
        with pytest.raises(InputError, match="inside of the source folder"):
            resolve_command(script, scan(source))


def test_a_source_folder_with_two_names(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    assert resolve_command(str(source / "train.py"), scan(tmp_path / "link")) == ("python", "train.py")


def test_a_folder_is_no_script(source: Path) -> None:
    (source / "pkg.py").mkdir()
    with pytest.raises(InputError, match="a folder"):
        resolve_command("pkg.py", scan(source))

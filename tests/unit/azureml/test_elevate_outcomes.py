"""The three outcomes of ``submit_to_azure_if_needed``."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from himl_container.azureml import elevate
from himl_container.azureml.datasets import DatasetConfig
from himl_container.azureml.elevate import submit_to_azure_if_needed

NAMES = (
    "compute_cluster_name entry_script aml_workspace workspace_config_file snapshot_root_directory script_params "
    "conda_environment_file aml_environment_name experiment_name environment_variables pip_extra_index_url "
    "private_pip_wheel_path docker_base_image docker_shm_size ignored_folders default_datastore input_datasets "
    "output_datasets num_nodes wait_for_completion wait_for_completion_show_output max_run_duration "
    "submit_to_azureml tags after_submission hyperdrive_config"
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    for name in ("LOCAL_RANK", "RANK", "NODE_RANK", "AZUREML_RUN_ID"):
        os.environ.pop(name, None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    (tmp_path / "train.py").write_text("")
    (tmp_path / "environment.yml").write_text("dependencies: [python=3.11]\n")
    os.environ["HIML_CONTAINER_CACHE_DIR"] = str(tmp_path / ".cache")
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a submission does, with everything that talks to AzureML replaced."""
    done: list[Any] = []
    run = SimpleNamespace(id="train_1_a")

    def configure(_workspace: object, compute: str, source: Any, spec: Any, **data: Any) -> Any:
        from azureml.core import RunConfiguration

        done.append(("configure", compute, source, spec, data))
        return RunConfiguration()

    def queue(_workspace: object, experiment: str, config: Any, tags: Any) -> Any:
        ignore = Path(".amlignore")
        done.append(("queue", experiment, config, tags, ignore.read_text() if ignore.exists() else None))
        return run

    def wait(found: Any, *, show_output: bool) -> None:
        done.append(("wait", found, show_output, Path(".amlignore").exists()))

    monkeypatch.setattr("himl_container.azureml.workspace.get_workspace", lambda *_: "workspace")
    monkeypatch.setattr("himl_container.azureml.configuration.configure", configure)
    monkeypatch.setattr("himl_container.azureml.submission.queue_run", queue)
    monkeypatch.setattr("himl_container.azureml.submission.wait_for_run", wait)
    return done


def submit(**words: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        submit_to_azure_if_needed("cpu", submit_to_azureml=True, **words)
    assert ended.value.code == 0


def test_the_signature_is_hi_mls() -> None:
    parameters = inspect.signature(submit_to_azure_if_needed).parameters
    assert " ".join(parameters) == NAMES
    assert [item.default for item in parameters.values() if item.default is not None] == [
        *[""] * 6, 1, False, False, ""
    ]  # fmt: skip


# --- local ---


@pytest.mark.parametrize(("argv", "flag"), [([], None), (["--azureml"], False), (["--azureml=1"], None), ([], False)])
def test_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], flag: bool | None) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", *argv])
    info = submit_to_azure_if_needed(
        "no such cluster",
        conda_environment_file="missing.yml",
        environment_variables={"HIML_TEST_VALUE": "1"},
        submit_to_azureml=flag,
        input_datasets=["a", DatasetConfig("b", local_folder=Path("/data/b"))],
        output_datasets=[DatasetConfig("c", local_folder=Path("c"))],
    )
    assert (info.run, info.is_running_in_azure_ml) == (None, False)
    assert info.input_datasets == [None, Path("/data/b")]
    assert info.output_datasets == [Path("c")]
    assert (info.output_folder, info.logs_folder) == (tmp_path / "outputs", tmp_path / "logs")
    assert info.output_folder.is_dir()
    assert info.logs_folder.is_dir()
    assert os.environ["HIML_TEST_VALUE"] == "1"


def test_a_local_run_in_a_container_finds_its_mounts() -> None:
    os.environ.update({"AZURE_ML_INPUT_INPUT_0": "/mnt/a", "AZURE_ML_OUTPUT_OUTPUT_0": "/mnt/o"})
    info = submit_to_azure_if_needed(
        input_datasets=[DatasetConfig("a", local_folder=Path("/host")), "b"], output_datasets=["o"]
    )
    assert info.input_datasets == [Path("/mnt/a"), None]
    assert info.output_datasets == [Path("/mnt/o")]


def test_bad_names_are_told_locally_too() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        submit_to_azure_if_needed(input_datasets=[" "])


def test_a_local_run_loads_neither_the_sdk_nor_docker_nor_torch() -> None:
    script = (
        "import sys\nfrom himl_container.azureml.elevate import submit_to_azure_if_needed\n"
        "submit_to_azure_if_needed()\n"
        "heavy = {'azureml.core', 'torch', 'docker', 'rattler', 'yaml', 'click', 'rich', 'urllib3', 'requests'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not [name for name in sys.modules if name.startswith('himl_container.image')]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


# --- in AzureML ---


def test_inside_azureml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(
        experiment="e", input_datasets={"INPUT_0": "/in/0", "INPUT_1": "/in/1"}, output_datasets={"OUTPUT_0": "/out/0"}
    )
    monkeypatch.setattr(elevate, "RUN_CONTEXT", run)
    info = submit_to_azure_if_needed(
        "cpu", input_datasets=["a", "b"], output_datasets=["c"], submit_to_azureml=True, environment_variables={"": ""}
    )
    assert info.input_datasets == [Path("/in/0"), Path("/in/1")]
    assert info.output_datasets == [Path("/out/0")]
    assert cast("Any", info.run) is run
    assert info.is_running_in_azure_ml
    assert info.output_folder == tmp_path / "outputs"
    assert not info.output_folder.exists()


# --- submission ---


def test_the_flag_submits(monkeypatch: pytest.MonkeyPatch, log: list[Any]) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--a", "1", "--azureml"])
    with pytest.raises(SystemExit):
        submit_to_azure_if_needed("cpu")
    (_, experiment, config, tags, _) = log[-1]
    assert (experiment, config.script, config.arguments, tags) == ("train", "train.py", ["--a", "1"], None)


def test_arguments_are_handed_on(tmp_path: Path, log: list[Any]) -> None:
    submit(
        experiment_name="mine",
        environment_variables={"A": "1"},
        conda_environment_file="other.yml",
        pip_extra_index_url="https://i.example/s",
        private_pip_wheel_path="a.whl",
        docker_base_image="base:1",
        docker_shm_size="1g",
        num_nodes=2,
        max_run_duration="1h",
        default_datastore="store",
        input_datasets=["a"],
        output_datasets=["b"],
        tags={"x": "y"},
    )
    (_, compute, source, spec, data), (_, experiment, _config, tags, _) = log
    assert (compute, experiment, tags) == ("cpu", "mine", {"x": "y"})
    assert (source.conda_file, source.wheel) == (Path("other.yml"), Path("a.whl"))
    assert (source.pip_extra_index_url, source.base_image) == ("https://i.example/s", "base:1")
    assert (spec.nodes, spec.shm_size, spec.max_duration, dict(spec.environment)["A"]) == (2, 1 << 30, 3600, "1")
    assert data == {"inputs": [DatasetConfig("a", "store")], "outputs": [DatasetConfig("b", "store")]}


def test_the_order_of_what_happens(log: list[Any]) -> None:
    submit(
        wait_for_completion=True,
        wait_for_completion_show_output=True,
        ignored_folders=["big"],
        after_submission=lambda run: log.append(("after", run.id, Path(".amlignore").exists())),
    )
    assert [item[0] for item in log] == ["configure", "queue", "after", "wait"]
    assert "big" in log[1][4].splitlines()
    assert log[2] == ("after", "train_1_a", False)  # directly after submitting, with .amlignore as it was
    assert log[3][2:] == (True, False)


def test_no_waiting_unless_wanted(log: list[Any]) -> None:
    submit(wait_for_completion_show_output=True)
    assert [item[0] for item in log] == ["configure", "queue"]


@pytest.mark.parametrize("error", [RuntimeError("refused"), KeyboardInterrupt()])
def test_amlignore_is_put_back_when_a_submission_fails(
    tmp_path: Path, log: list[Any], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (tmp_path / ".amlignore").write_text("old\n")

    def fail(*_words: Any) -> None:
        assert "big" in (tmp_path / ".amlignore").read_text()
        raise error

    monkeypatch.setattr("himl_container.azureml.submission.queue_run", fail)
    with pytest.raises(type(error)):
        submit_to_azure_if_needed("cpu", submit_to_azureml=True, ignored_folders=["big"])
    assert (tmp_path / ".amlignore").read_text() == "old\n"


def test_a_search_is_what_is_submitted(log: list[Any]) -> None:
    search = SimpleNamespace(_run_config="placeholder")
    submit(hyperdrive_config=search)
    config = log[-1][2]
    assert config is search
    assert cast("Any", config)._run_config.script == "train.py"


@pytest.mark.parametrize("ranks", [{"LOCAL_RANK": "1"}, {"NODE_RANK": "1", "LOCAL_RANK": "0"}, {"RANK": "3"}])
def test_only_the_first_process_submits(log: list[Any], ranks: dict[str, str]) -> None:
    os.environ.update(ranks)
    submit()
    assert log == []


def test_the_first_process_of_several_submits(log: list[Any]) -> None:
    os.environ.update({"LOCAL_RANK": "0", "RANK": "0"})
    submit()
    assert [item[0] for item in log] == ["configure", "queue"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"entry_script": "/elsewhere/x.py"}, "The entry script must be inside of the snapshot root directory"),
        ({"entry_script": "missing.py"}, "there is no such script"),
        ({"ignored_folders": ["train.py"]}, "left out of the snapshot"),
    ],
)
def test_a_script_that_the_run_would_not_have(log: list[Any], words: dict[str, Any], text: str) -> None:
    with pytest.raises(Exception, match=text):
        submit_to_azure_if_needed("cpu", submit_to_azureml=True, **words)
    assert log == []


def test_a_snapshot_over_the_limits_is_told_before_anything_is_sent(tmp_path: Path, log: list[Any]) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate((300 << 20) + 1)
    with pytest.raises(Exception, match="AzureML takes at most 300"):
        submit_to_azure_if_needed("cpu", submit_to_azureml=True)
    assert log == []
    submit(ignored_folders=["big"])


def test_the_conda_file_is_that_of_the_project(tmp_path: Path, log: list[Any]) -> None:
    submit()
    assert log[0][2].conda_file is None  # the settings' own search finds it
    (tmp_path / "environment.yml").unlink()
    submit(aml_environment_name="theirs")
    assert log[2][2].name == "theirs"


def test_ignored_folders_are_several(log: list[Any]) -> None:
    with pytest.raises(ValueError, match="ignored_folders is a list, and not 'data'"):
        submit_to_azure_if_needed("cpu", submit_to_azureml=True, ignored_folders=cast("Any", "data"))
    assert log == []


def test_libraries_are_quiet() -> None:
    import logging

    logging.getLogger("azure").setLevel(logging.DEBUG)
    submit_to_azure_if_needed()
    assert logging.getLogger("azure").level == logging.WARNING
    assert logging.getLogger("azureml").level == logging.INFO

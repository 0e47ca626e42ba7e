"""hi-ml's ``health_azure``: every public name, with arguments, their order and their defaults; and what it loads."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

import health_azure
import health_azure.examples
import health_azure.himl

MODULES = (
    "health_azure",
    "health_azure.datasets",
    "health_azure.himl",
    "health_azure.himl_download",
    "health_azure.himl_tensorboard",
    "health_azure.utils",
)

TOP_LEVEL = {
    "AzureRunInfo",
    "DatasetConfig",
    "RUN_CONTEXT",
    "create_run_configuration",
    "create_script_run",
    "download_checkpoints_from_run_id",
    "download_files_from_run_id",
    "download_from_datastore",
    "fetch_run",
    "get_most_recent_run",
    "get_workspace",
    "is_running_in_azure_ml",
    "set_environment_variables_for_multi_node",
    "split_recovery_id",
    "submit_run",
    "submit_to_azure_if_needed",
    "torch_barrier",
    "upload_to_datastore",
}

# As the documentation of hi-ml 0.1.9 states them, or its behaviour where it does not. Both arguments of get_workspace
# may be left out since the next pull request.
SIGNATURES = {
    "himl": """
        submit_to_azure_if_needed(compute_cluster_name="", entry_script=None, aml_workspace=None,
            workspace_config_file=None, snapshot_root_directory=None, script_params=None, conda_environment_file=None,
            aml_environment_name="", experiment_name=None, environment_variables=None, pip_extra_index_url="",
            private_pip_wheel_path=None, docker_base_image="", docker_shm_size="", ignored_folders=None,
            default_datastore="", input_datasets=None, output_datasets=None, num_nodes=1, wait_for_completion=False,
            wait_for_completion_show_output=False, max_run_duration="", submit_to_azureml=None, tags=None,
            after_submission=None, hyperdrive_config=None)
        create_run_configuration(workspace, compute_cluster_name, conda_environment_file=None, aml_environment_name="",
            environment_variables=None, pip_extra_index_url="", private_pip_wheel_path=None, docker_base_image="",
            docker_shm_size="", num_nodes=1, max_run_duration="", input_datasets=None, output_datasets=None)
        create_script_run(snapshot_root_directory=None, entry_script=None, script_params=None)
        submit_run(workspace, experiment_name, script_run_config, tags=None, wait_for_completion=False,
            wait_for_completion_show_output=False)
        append_to_amlignore(lines_to_append, amlignore=None)
        AzureRunInfo(input_datasets, output_datasets, run, is_running_in_azure_ml, output_folder, logs_folder)
        convert_himl_to_azureml_datasets(cleaned_input_datasets, cleaned_output_datasets, workspace)
        main()
    """,
    "datasets": """
        DatasetConfig(name, datastore="", version=None, use_mounting=None, target_folder="", local_folder=None)
        get_datastore(workspace, datastore_name)
        get_or_create_dataset(workspace, datastore_name, dataset_name)
    """,
    "utils": """
        create_python_environment(conda_environment_file, pip_extra_index_url="", workspace=None,
            private_pip_wheel_path=None, docker_base_image="", environment_variables=None)
        register_environment(workspace, environment)
        merge_conda_files(files, result_file)
        get_workspace(aml_workspace=None, workspace_config_path=None)
        get_authentication()
        get_secret_from_environment(name, allow_missing=False)
        set_environment_variables_for_multi_node()
        is_local_rank_zero()
        is_global_rank_zero()
        torch_barrier()
        to_azure_friendly_string(x)
        run_duration_string_to_seconds(s)
        create_run_recovery_id(run)
        split_recovery_id(id)
        fetch_run(workspace, run_recovery_id)
        fetch_run_for_experiment(experiment, run_id)
        get_most_recent_run_id(run_recovery_file)
        get_most_recent_run(run_recovery_file, workspace)
        is_run_and_child_runs_completed(run)
        download_files_from_run_id(run_id, output_folder, prefix="", workspace=None, workspace_config_path=None,
            validate_checksum=False)
        download_checkpoints_from_run_id(run_id, checkpoint_dir, output_folder, aml_workspace=None,
            workspace_config_path=None)
        download_from_datastore(datastore_name, file_prefix, output_folder, aml_workspace=None,
            workspace_config_path=None, overwrite=False, show_progress=False)
        upload_to_datastore(datastore_name, local_data_folder, remote_path, aml_workspace=None,
            workspace_config_path=None, overwrite=False, show_progress=False)
        get_run_file_names(run, prefix="")
        determine_run_id_source(args)
        get_aml_runs(args, workspace, run_id_source)
        get_aml_run_from_latest_run_file(args, workspace)
        get_latest_aml_runs_from_experiment(args, workspace)
        get_aml_run_from_recovery_id(args, workspace)
        get_aml_runs_from_recovery_ids(args, workspace)
        get_aml_run_from_run_id_args(args, workspace)
        get_aml_runs_from_run_ids(args, workspace)
        get_aml_run_from_run_id(run_id, aml_workspace=None, workspace_config_path=None)
    """,
    "himl_download": """
        main()
        determine_output_dir_name(args, run_id_source, output_path)
    """,
    "himl_tensorboard": "main()",
}

CONSTANTS = {
    "himl": {
        "AML_IGNORE_FILE": ".amlignore",
        "AZUREML_COMMANDLINE_FLAG": "--azureml",
        "CONDA_ENVIRONMENT_FILE": "environment.yml",
        "LOGS_FOLDER": "logs",
        "OUTPUT_FOLDER": "outputs",
        "RUN_RECOVERY_FILE": "most_recent_run.txt",
        "SDK_NAME": "innereye",
        "SDK_VERSION": "2.0",
    },
    "utils": {
        "EXPERIMENT_RUN_SEPARATOR": ":",
        "WORKSPACE_CONFIG_JSON": "config.json",
        "ENVIRONMENT_VERSION": "1",
        "DEFAULT_UPLOAD_TIMEOUT_SECONDS": 36000,
        **{
            f"ENV_{name}": f"HIML_{name}"
            for name in (
                "SERVICE_PRINCIPAL_ID",
                "SERVICE_PRINCIPAL_PASSWORD",
                "TENANT_ID",
                "RESOURCE_GROUP",
                "SUBSCRIPTION_ID",
                "WORKSPACE_NAME",
            )
        },
        **{
            f"ENV_{name}": name
            for name in (
                "AZ_BATCHAI_MPI_MASTER_NODE",
                "MASTER_ADDR",
                "MASTER_IP",
                "MASTER_PORT",
                "OMPI_COMM_WORLD_RANK",
                "NODE_RANK",
                "GLOBAL_RANK",
                "LOCAL_RANK",
            )
        },
    },
    "himl_tensorboard": {
        "ROOT_DIR": Path.cwd(),
        "OUTPUT_DIR": Path.cwd() / "outputs",
        "TENSORBOARD_DIR": Path.cwd() / "tensorboard_logs",
    },
}


def promised(text: str) -> dict[str, list[tuple[str, Any]]]:
    """Return name -> (argument, default) in order, of calls as the documentation has them; ``...`` for no default."""
    result: dict[str, list[tuple[str, Any]]] = {}
    for call in text.replace("\n" + " " * 12, " ").splitlines():
        if call.strip():
            name, _, arguments = call.strip().partition("(")
            definition = ast.parse(f"def {name}({arguments}: pass").body[0]
            assert isinstance(definition, ast.FunctionDef)
            given, defaults = definition.args.args, [ast.literal_eval(one) for one in definition.args.defaults]
            values = [...] * (len(given) - len(defaults)) + defaults
            result[name] = [(one.arg, value) for one, value in zip(given, values, strict=True)]
    return result


def module(name: str) -> ModuleType:
    return importlib.import_module(f"health_azure.{name}")


def test_the_package_exports_what_hi_ml_exported() -> None:
    assert set(health_azure.__all__) == TOP_LEVEL
    assert all(hasattr(health_azure, name) for name in TOP_LEVEL)
    assert set(dir(health_azure)) >= TOP_LEVEL


@pytest.mark.parametrize(
    ("place", "name", "arguments"),
    [(place, name, arguments) for place, text in SIGNATURES.items() for name, arguments in promised(text).items()],
)
def test_every_function_takes_what_hi_mls_took(place: str, name: str, arguments: list[tuple[str, Any]]) -> None:
    found = getattr(module(place), name)
    taken = list(inspect.signature(found).parameters.values())
    found_arguments = [(one.name, ... if one.default is one.empty else one.default) for one in taken]
    assert found_arguments[: len(arguments)] == arguments
    # What is new comes last, and need not be given.
    assert all(default is not ... for _, default in found_arguments[len(arguments) :])
    if name in TOP_LEVEL:
        assert getattr(health_azure, name) is found


@pytest.mark.parametrize(("place", "values"), CONSTANTS.items())
def test_constants(place: str, values: dict[str, object]) -> None:
    # ROOT_DIR is the folder in which the module was first imported; that of the tests.
    assert {name: getattr(module(place), name) for name in values} == values


def test_the_sources_of_a_run_have_hi_mls_numbers() -> None:
    from health_azure.utils import AzureRunIdSource

    names = ("LATEST_RUN_FILE", "EXPERIMENT_LATEST", "RUN_ID", "RUN_IDS", "RUN_RECOVERY_ID", "RUN_RECOVERY_IDS")
    assert {one.name: one.value for one in AzureRunIdSource} == {name: n for n, name in enumerate(names, 1)}


def test_the_default_run_is_the_one_that_is_exported() -> None:
    from health_azure.utils import RUN_CONTEXT, is_running_in_azure_ml

    (run,) = inspect.signature(is_running_in_azure_ml).parameters.values()
    assert (run.name, run.default) == ("aml_run", RUN_CONTEXT)
    assert health_azure.RUN_CONTEXT is RUN_CONTEXT
    assert not is_running_in_azure_ml()


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_lists_it_has_and_type_checkers_are_told(name: str) -> None:
    it = importlib.import_module(name)
    missing = [one for one in it.__all__ if not hasattr(it, one)]
    assert missing == []
    assert it.__file__ is not None
    tree = ast.parse(Path(it.__file__).read_text(encoding="utf-8"))
    guarded = {
        (statement.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert {(place, one) for place, names in it._PLACES.items() for one in names} == guarded
    assert {one for _, one in guarded} == set(it.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'health_azure' has no attribute 'submit'"):
        health_azure.submit  # noqa: B018
    with pytest.raises(ImportError):
        from health_azure.himl import nothing_of_that_kind  # noqa: F401


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has after a statement."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = ("azureml", "azure", "msrest", "torch", "pytorch_lightning", "numpy", "pandas", "docker", "rattler", "requests")


@pytest.mark.parametrize(
    "statement",
    [
        "import himl_container",
        "import health_azure, health_azure.himl, health_azure.utils, health_azure.datasets",
        "import health_azure.himl_tensorboard, health_azure.himl_download",
        "from health_azure import submit_to_azure_if_needed, RUN_CONTEXT, DatasetConfig, is_running_in_azure_ml",
        "from health_azure import submit_to_azure_if_needed; submit_to_azure_if_needed(input_datasets=['some'])",
    ],
)
def test_whoever_runs_here_loads_neither_the_sdk_nor_torch(
    statement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    roots = {name.partition(".")[0] for name in loaded_by(statement)}
    assert roots.isdisjoint(HEAVY), sorted(roots.intersection(HEAVY))


def submitted(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """Return what ``health_azure.himl.main`` asks for."""
    asked = Mock()
    monkeypatch.setattr("health_azure.himl.submit_to_azure_if_needed", asked)
    monkeypatch.setattr(sys, "argv", ["himl", *arguments])
    health_azure.himl.main()
    ((), keywords) = asked.call_args
    return dict(keywords)


def test_the_program_passes_on_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["-p", "w.json", "-c", "cluster", "-y", "root", "-t", "root/train.py", "-d", "env.yml", "--azureml"]
    expected = {
        "workspace_config_file": Path("w.json"),
        "compute_cluster_name": "cluster",
        "snapshot_root_directory": Path("root"),
        "entry_script": Path("root/train.py"),
        "conda_environment_file": Path("env.yml"),
        "submit_to_azureml": True,
        "script_params": [],
    }
    assert submitted(monkeypatch, *flags) == expected
    # What follows "--" is the script's, its own flags included.
    assert submitted(monkeypatch, *flags, "--", "--epochs", "3", "-c", "x") == {
        **expected,
        "script_params": ["--epochs", "3", "-c", "x"],
    }


def test_the_program_needs_no_workspace_file(monkeypatch: pytest.MonkeyPatch) -> None:
    keywords = submitted(monkeypatch, "--compute_cluster_name=cluster", "--entry_script=train.py")
    assert keywords["workspace_config_file"] is None
    assert keywords["submit_to_azureml"] is False


def test_the_program_says_in_a_line_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('not here')\n")
    done = subprocess.run(
        [sys.executable, "-m", "health_azure.himl", "-p", "missing.json", "-c", "c", "-t", "train.py", "--azureml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 65
    assert "error: missing.json: Workspace config file does not exist or cannot be read." in done.stderr
    assert "Traceback" not in done.stderr
    assert "not here" not in done.stdout


def test_the_example_that_comes_along(tmp_path: Path) -> None:
    folder = Path(str(health_azure.examples.__file__)).parent
    done = subprocess.run(
        [sys.executable, folder / "elevate_this.py", "--message=hello there"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "hello there"
    done = subprocess.run(
        [sys.executable, folder / "elevate_this.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "-m/--message" in done.stderr) == (2, True)
    assert yaml.safe_load((folder / "environment.yml").read_text())["name"] == "elevate"

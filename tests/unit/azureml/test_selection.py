"""Which runs a command line names, and the arguments of himl-tb and himl-download."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from himl_container.azureml import selection, tools_download, tools_tb
from himl_container.azureml.failures import FailedAssertion, LoginFailed, MissingRun, WrongValue
from himl_container.azureml.runs import fetch_run, get_most_recent_run_id, get_run_by_id
from himl_container.azureml.selection import AzureRunIdSource, determine_run_id_source, get_aml_runs
from himl_container.azureml.tool_arguments import told
from himl_container.azureml.tools_download import determine_output_dir_name

Source = AzureRunIdSource


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every run is told by its id, without a workspace."""
    monkeypatch.setattr("himl_container.azureml.runs.get_run_by_id", lambda workspace, run_id: run_id)
    monkeypatch.setattr("himl_container.azureml.runs.fetch_run", lambda workspace, run_id: f"fetched {run_id}")
    return SimpleNamespace(name="ws")


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({"latest_run_file": Path("f"), "experiment": "e", "run_id": "r"}, Source.LATEST_RUN_FILE),
        ({"experiment": "e", "run_recovery_ids": ["a"]}, Source.EXPERIMENT_LATEST),
        ({"run_recovery_ids": ["a"], "run_recovery_id": "b", "run_id": "r"}, Source.RUN_RECOVERY_IDS),
        ({"run_recovery_id": "b", "run_id": "r", "run_recovery_ids": []}, Source.RUN_RECOVERY_ID),
        ({"run_id": "r", "run_ids": ["a"]}, Source.RUN_ID),
        ({"run_ids": ["a"], "run_id": None, "experiment": ""}, Source.RUN_IDS),
    ],
)
def test_sources(given: dict[str, Any], source: AzureRunIdSource) -> None:
    assert determine_run_id_source(Namespace(**given)) is source


@pytest.mark.parametrize("given", [{}, {"run_ids": [], "experiment": None, "run_id": ""}])
def test_no_source(given: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"One of latest_run_file, experiment, run_recovery_id\(s\) or run_id\(s\) must"
    ):
        determine_run_id_source(Namespace(**given))


def test_numbers_of_the_enum() -> None:
    assert [(source.name, source.value) for source in Source] == [
        ("LATEST_RUN_FILE", 1),
        ("EXPERIMENT_LATEST", 2),
        ("RUN_ID", 3),
        ("RUN_IDS", 4),
        ("RUN_RECOVERY_ID", 5),
        ("RUN_RECOVERY_IDS", 6),
    ]


def test_runs_by_id(runs: Any, tmp_path: Path) -> None:
    assert get_aml_runs(Namespace(run_id="r"), runs, Source.RUN_ID) == ["r"]
    assert get_aml_runs(Namespace(run_ids=["r", "s,t"]), runs, Source.RUN_IDS) == ["r", "s", "t"]
    assert get_aml_runs(Namespace(run_recovery_id="e:r"), runs, Source.RUN_RECOVERY_ID) == ["fetched e:r"]
    both = get_aml_runs(Namespace(run_recovery_ids=["e:r", "e:s"]), runs, Source.RUN_RECOVERY_IDS)
    assert both == ["fetched e:r", "fetched e:s"]
    (tmp_path / "latest").write_text("e:r\n")
    file = Namespace(latest_run_file=tmp_path / "latest")
    assert get_aml_runs(file, runs, Source.LATEST_RUN_FILE) == ["fetched e:r"]
    with pytest.raises(FailedAssertion):
        get_aml_runs(Namespace(latest_run_file=tmp_path / "none"), runs, Source.LATEST_RUN_FILE)


@pytest.mark.parametrize("source", list(Source))
def test_missing_arguments(runs: Any, source: AzureRunIdSource) -> None:
    with pytest.raises(ValueError, match="Expected to have"):
        get_aml_runs(Namespace(), runs, source)


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An experiment ``e`` with three runs, the latest first; the questions that it was asked."""
    asked: list[Any] = []
    every = [("3", {"a": "1"}), ("2", {"a": "2", "b": "1"}), ("1", {"b": ""})]

    def get_runs(tags: Any) -> Any:
        asked.append(tags)
        wanted = (tags or {}).items()
        return (SimpleNamespace(id=one, tags=its) for one, its in every if wanted <= its.items())

    found = [SimpleNamespace(name="e", get_runs=get_runs)]
    monkeypatch.setattr(selection, "_experiments", lambda workspace, name: [one for one in found if one.name == name])
    return asked


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ({}, "3"),
        ({"num_runs": 2}, "32"),
        ({"num_runs": 9, "tags": None}, "321"),
        ({"num_runs": 9, "tags": ["b"]}, "21"),
        ({"num_runs": 9, "tags": ["a", "b"]}, "2"),
        ({"num_runs": 9, "tags": ["a=1"]}, "3"),
        ({"num_runs": 9, "tags": {"b": "1"}}, "2"),
        ({"num_runs": 9, "tags": ["absent"]}, ""),
    ],
)
def test_runs_of_an_experiment(experiment: list[Any], words: dict[str, Any], ids: str) -> None:
    found = selection.get_latest_aml_runs_from_experiment(Namespace(experiment="e", **words), SimpleNamespace())
    assert "".join(run.id for run in found) == ids
    assert len(experiment) == 1


def test_experiments_that_are_wrong(experiment: list[Any]) -> None:
    with pytest.raises(ValueError, match="No such experiment x in workspace"):
        selection.get_latest_aml_runs_from_experiment(Namespace(experiment="x"), SimpleNamespace(name="ws"))
    with pytest.raises(ValueError, match="0 is not a number of runs"):
        selection.get_latest_aml_runs_from_experiment(Namespace(experiment="e", num_runs=0), SimpleNamespace())


@pytest.mark.parametrize(
    ("source", "given", "index", "name"),
    [
        (Source.EXPERIMENT_LATEST, {"experiment": "e"}, 0, "e"),
        (Source.LATEST_RUN_FILE, {"latest_run_file": Path("a/most_recent_run.txt")}, 0, "most_recent_run"),
        (Source.RUN_RECOVERY_ID, {"run_recovery_id": "e:r"}, 0, "er"),
        (Source.RUN_RECOVERY_IDS, {"run_recovery_ids": ["e:r", "e:s"]}, 1, "es"),
        (Source.RUN_ID, {"run_id": "r"}, 0, "r"),
        (Source.RUN_IDS, {"run_ids": ["r,s", "t"]}, 2, "t"),
    ],
)
def test_folders_of_downloads(source: AzureRunIdSource, given: dict[str, Any], index: int, name: str) -> None:
    assert determine_output_dir_name(Namespace(**given), source, Path("out"), index) == Path("out") / name


@pytest.mark.parametrize("name", ["..", "a/b", "/etc", "a\\b"])
def test_folders_stay_below_the_output(name: str) -> None:
    with pytest.raises(WrongValue):
        determine_output_dir_name(Namespace(run_id=name), Source.RUN_ID, Path("out"))


def test_flags_of_the_documentation() -> None:
    words = "--config_file c --latest_run_file f --experiment e --tags a b --tags c=d --run_recovery_ids p q"
    words += " --run_recovery_id r --run_ids s t --run_id u"
    common = {
        "config_file": Path("c"),
        "latest_run_file": Path("f"),
        "experiment": "e",
        "tags": ["a", "b", "c=d"],
        "run_recovery_ids": ["p", "q"],
        "run_recovery_id": "r",
        "run_ids": ["s", "t"],
        "run_id": "u",
    }
    board = tools_tb._parser().parse_args(f"{words} --num_runs 3 --port 1 --log_dir l".split())
    assert vars(board) == {**common, "num_runs": 3, "port": 1, "log_dir": Path("l")}
    download = tools_download._parser().parse_args(f"{words} --output_dir o --prefix p".split())
    assert vars(download) == {**common, "output_dir": Path("o"), "prefix": "p"}
    assert tools_tb._parser().parse_args([]).port == 6006
    assert tools_tb._parser().parse_args([]).log_dir == Path("logs")
    assert tools_download._parser().parse_args([]).output_dir == Path("outputs")


@pytest.mark.parametrize(
    ("log_dir", "remote", "local"),
    [
        ("logs", "logs", "logs"),
        ("outputs/logs/", "outputs/logs", "outputs/logs"),
        ("./a/../logs", "logs", "logs"),
        (".", "", "."),
        ("../logs", "logs", "../logs"),
        ("/elsewhere/tb", "tb", "/elsewhere/tb"),
    ],
)
def test_log_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_dir: str, remote: str, local: str) -> None:
    monkeypatch.chdir(tmp_path)
    expected = Path(os.path.normpath(tmp_path / local))
    assert tools_tb.log_folders(Path(log_dir)) == (remote, expected)
    assert tools_tb.log_folders(expected) == (remote, expected)


def test_the_root_is_no_folder_of_logs() -> None:
    with pytest.raises(WrongValue, match="cannot be a folder of runs"):
        tools_tb.log_folders(Path("/"))


def test_mistakes_are_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> None:
        raise WrongValue("No runs were found", hint="Look elsewhere.")

    with pytest.raises(SystemExit) as ended:
        told(wrong)
    assert ended.value.code == WrongValue.exit_code
    assert capsys.readouterr().err == "Error: No runs were found\n  Look elsewhere.\n"
    with pytest.raises(SystemExit) as ended:
        told(lambda: None)
    assert ended.value.code == 0


@pytest.mark.parametrize("main", [tools_tb.main, tools_download.main])
def test_a_run_must_be_named(main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="One of latest_run_file"):
        main([])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "/x/logs"), 74, "Error: /x/logs: Permission denied\n"),
        (ModuleNotFoundError("No module named 'azureml.core'", name="azureml.core"), 65, "himl-container[azure]"),
    ],
)
def test_what_the_disk_and_the_installation_lack_is_told_in_words(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        told(wrong)
    assert ended.value.code == code
    assert said in capsys.readouterr().err


def test_a_file_without_an_id(tmp_path: Path) -> None:
    file = tmp_path / "most_recent_run.txt"
    for content in (b"", b" \n", b"\xff\xfe\x00"):
        file.write_bytes(content)
        with pytest.raises(WrongValue, match="id of a run") as caught:
            get_most_recent_run_id(file)
        assert str(file) in str(caught.value)


def _refused(status: int) -> Any:
    """A workspace whose service answers with a status."""

    def get_run(run_id: str) -> None:
        error = RuntimeError(f"status {status}")
        error.status_code = status  # type: ignore[attr-defined]
        raise error

    return SimpleNamespace(name="ws", get_run=get_run)


def test_a_login_that_ended_is_not_a_run_that_is_missing() -> None:
    with pytest.raises(MissingRun, match="Unable to retrieve run a in workspace ws"):
        get_run_by_id(_refused(404), "a")
    with pytest.raises(RuntimeError, match="status 401"):
        get_run_by_id(_refused(401), "a")

    def get_run(run_id: str) -> None:
        raise LoginFailed("the Azure CLI: expired", hint="az login")

    workspace: Any = SimpleNamespace(name="ws", get_run=get_run)
    with pytest.raises(LoginFailed, match="expired"):
        get_run_by_id(workspace, "a")


def test_an_empty_name_finds_no_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azureml.core.Experiment.list", lambda *_, **__: [SimpleNamespace(name="any")])
    workspace: Any = SimpleNamespace(name="ws")
    with pytest.raises(MissingRun, match="no such experiment"):
        fetch_run(workspace, ":a_1")

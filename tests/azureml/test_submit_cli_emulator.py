"""submit, status, logs, cancel, download, runs and verify on a real emulator; the image is ours."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
import pytest
from submit_project import Cloud, cloud, result_of  # noqa: F401  # a fixture

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = [pytest.mark.emulator, pytest.mark.docker]

TRAIN = """
import os, sys, time
from pathlib import Path

print("rank", os.environ.get("OMPI_COMM_WORLD_RANK", "-"), sys.argv[1:], os.environ.get("MINE"), flush=True)
Path("outputs/model.txt").write_text("model")
for _ in range(int(sys.argv[1])):
    time.sleep(0.2)
sys.exit(int(sys.argv[2]))
"""
GRID = """
sampling: grid
parameters:
  --alpha: [1, 2]
metric: none
goal: maximize
max_total_runs: 2
max_concurrent_runs: 1
"""


@pytest.fixture(scope="module")
def cli(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> kit.Cli:  # noqa: F811
    """The command line in a project whose image was pushed."""
    folder = tmp_path_factory.mktemp("cli") / "project"
    found = cloud.project(folder, train=TRAIN)
    (folder / "search.yml").write_text(GRID)
    return found


def submit(cli: kit.Cli, *words: str, **options: Any) -> Any:
    return cli("submit", "--json", "--azureml", "--emulator", *words, **options)


def error_of(done: Any) -> dict[str, Any]:
    """Return the error of a command that was asked for JSON."""
    event: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert event["event"] == "error", done.stdout
    return event


def test_from_submission_to_files(cli: kit.Cli, workspace: Workspace) -> None:
    words = ("--experiment", "cli-first", "--tag", "who=me", "--env", "MINE=1", "--max-duration", "1h")
    done = result_of(submit(cli, *words, "train.py", "0", "0"))
    run = workspace.get_run(done["run"])
    assert (cli.cwd / "most_recent_run.txt").read_text() == f"cli_first:{run.id}"
    assert run.tags["who"] == "me"
    definition = run.get_details()["runDefinition"]
    assert definition["maxRunDurationSeconds"] == 3600
    assert done["environment"] == f"{definition['environment']['name']}:{definition['environment']['version']}"
    assert done["image"].endswith(definition["environment"]["docker"]["baseImage"].rpartition("@")[2])

    shown = cli("logs", "--follow")
    assert shown.stdout == "rank - ['0', '0'] 1\n"
    assert f"run {run.id} completed" in shown.stderr
    assert result_of(cli("status", "--json"))["status"] == "Completed"
    assert result_of(cli("download", "--json", "--prefix", "outputs/"))["files"] == ["outputs/model.txt"]
    assert (cli.cwd / "outputs" / run.id / "outputs" / "model.txt").read_text() == "model"
    listed = result_of(cli("runs", "--json"))["runs"]
    assert (listed[0]["run"], listed[0]["status"]) == (run.id, "Completed")
    listed = result_of(cli("runs", "--json", "--emulator", "--experiment", "cli_first"))["runs"]
    assert [(row["run"], row["status"]) for row in listed] == [(run.id, "Completed")]
    assert datetime.fromisoformat(listed[0]["submitted"]).tzinfo is not None
    verified = result_of(cli("verify", "--json", run.id))
    assert verified["agree"]
    assert {part["part"] for part in verified["parts"] if part["state"] == "found"} == {
        *("run", "registry", "daemon", "lock"),
    }


def test_a_run_that_fails_while_we_wait(cli: kit.Cli) -> None:
    done = cli("submit", "--azureml", "--emulator", "--show-output", "train.py", "0", "3", expect=78)
    assert "rank - ['0', '3'] None" in done.stdout
    assert "failed: The script ended with exit code 3." in done.stderr
    assert "himl-container logs train_" in done.stderr


def test_a_run_that_runs_out_of_time(cli: kit.Cli) -> None:
    done = submit(cli, "--wait", "--max-duration", "2s", "train.py", "600", "0", expect=78)
    assert "was cancelled: The run was canceled: " in error_of(done)["what"]
    assert "maximum duration" in error_of(done)["what"]


def test_who_stops_waiting_can_still_cancel(cli: kit.Cli, workspace: Workspace) -> None:
    waiting = started(cli, "submit", "--azureml", "--emulator", "--wait", "train.py", "3000", "0")
    told = read_until(waiting, lambda text: ": Running" in text)
    waiting.send_signal(signal.SIGINT)
    told += waiting.communicate(timeout=60)[0]
    assert waiting.returncode == 130
    run = (cli.cwd / "most_recent_run.txt").read_text().partition(":")[2]
    assert f"the run goes on. 'himl-container cancel {run}' ends it" in told
    assert workspace.get_run(run).get_status() == "Running"

    following = started(cli, "logs", "--follow", run)
    read_until(following, lambda text: "rank - " in text)
    assert result_of(cli("cancel", "--json", "--wait", run))["status"] == "Canceled"
    assert f"error: run {run} was cancelled" in following.communicate(timeout=60)[0]
    assert following.returncode == 78
    assert result_of(cli("cancel", "--json", run)) == {
        **{"event": "result", "run": run},
        **{"cancelled": False, "status": "Canceled"},
    }


def test_the_logs_of_all_nodes(cli: kit.Cli) -> None:
    done = cli("submit", "--azureml", "--emulator", "--nodes", "2", "--show-output", "train.py", "0", "0")
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert sorted(lines) == ["[0] rank 0 ['0', '0'] None", "[1] rank 1 ['0', '0'] None"]


def test_a_search(cli: kit.Cli, workspace: Workspace) -> None:
    done = result_of(submit(cli, "--search", "search.yml", "train.py", "3000", "0"))
    run = workspace.get_run(done["run"])
    assert run.type == "hyperdrive"
    assert json.loads(run.tags["generator_config"])["parameter_space"] == {"--alpha": ["choice", [[1, 2]]]}
    result_of(cli("cancel", "--json", "--wait", run.id))
    assert workspace.get_run(run.id).get_status() == "Canceled"


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("--cluster", "nowhere", "train.py"), 65, "Could not find the compute target nowhere"),
        (("--datastore", "nostore", "--dataset", "new", "train.py"), 65, "Datastore nostore was not found"),
        (("--dataset", "new=version=7", "train.py"), 65, "no version 7"),
        (("--dataset", "nothing-is-there", "train.py"), 65, "nothing-is-there"),
    ],
)
def test_what_the_workspace_does_not_have(
    cli: kit.Cli, inside: Callable[..., tuple[int, str, str]], words: tuple[str, ...], code: int, what: str
) -> None:
    found, _, told = inside("submit", "--azureml", *words)
    assert (found, what in told) == (code, True), told
    assert "Traceback" not in told


def test_an_unknown_run(inside: Callable[..., tuple[int, str, str]]) -> None:
    for command in ("status", "logs", "cancel", "download"):
        code, _, told = inside(command, "--emulator", "nobody_1_2")
        assert code == 65
        assert "nobody_1_2" in told
        assert "himl-container runs lists what was submitted" in told


def test_an_unknown_experiment(inside: Callable[..., tuple[int, str, str]]) -> None:
    code, _, told = inside("runs", "--emulator", "--experiment", "nobody")
    assert (code, "has no experiment 'nobody'" in told) == (65, True)


def test_a_login_that_is_refused(
    inside: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, emulator: Emulator
) -> None:
    monkeypatch.setenv("AZUREML_SERVICE_PRINCIPAL_PASSWORD", "expired")
    code, _, told = inside("runs", "--workspace-config", str(emulator.config), "--experiment", "any")
    assert code == 77
    assert "refused the login" in told
    assert "az login" in told


def test_an_emulator_is_started_where_none_runs(cloud: Cloud, tmp_path: Path) -> None:  # noqa: F811
    own = tmp_path / "own"
    cli = kit.Cli(tmp_path, {**cloud.environ, "HIML_CONTAINER_EMULATOR_DIR": str(own), "HOME": str(tmp_path)})
    try:
        done = cli("runs", "--emulator", "--experiment", "none", expect=65)
        assert f"An emulator was started in {own}" in done.stderr
        assert "has no experiment 'none'" in done.stderr
        again = cli("runs", "--emulator", "--experiment", "none", expect=65)
        assert "was started" not in again.stderr
    finally:
        cli("emulator", "stop")


@pytest.fixture
def inside(
    cli: kit.Cli, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process, which has the SDK already."""
    from himl_container.cli import main

    for name, value in cli.environ.items():
        if name.startswith("HIML_CONTAINER_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(cli.cwd)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main.run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def started(cli: kit.Cli, *words: str) -> subprocess.Popen[str]:
    """Start a command whose output comes in one stream."""
    return subprocess.Popen(
        [kit.COMMAND, *words],
        cwd=cli.cwd,
        env=dict(cli.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], enough: Callable[[str], bool]) -> str:
    """Read lines of a process until there is what is waited for."""
    assert process.stdout is not None
    text = ""
    while not enough(text):
        line = process.stdout.readline()
        assert line, f"it ended: {text}"
        text += line
    return text

"""Searches through the unmodified SDK, whose children are jobs in containers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from azureml.core import ScriptRunConfig, Workspace
    from azureml.train.hyperdrive import HyperDriveRun

pytestmark = [pytest.mark.emulator, pytest.mark.docker]

# What ``run.log`` of the SDK sends, by an image that has no SDK in it: it would be most of the test's time.
SCRIPT = """
import argparse, json, os, shutil, ssl, time, urllib.request, uuid

def log(name, value):
    scope, run = os.environ["AZUREML_WORKSPACE_SCOPE"], os.environ["AZUREML_RUN_ID"]
    row = {"metricId": str(uuid.uuid4()), "data": {name: value}}
    kind = {"columns": {name: "double"}, "properties": {"uxMetricType": "azureml.v1.scalar"}}
    metric = {"name": name, **kind, "value": [row]}
    address = os.environ["AZUREML_SERVICE_ENDPOINT"] + "/metric/v2.0" + scope + "/runs/" + run + "/batch"
    headers = {"Authorization": "Bearer " + os.environ["AZUREML_RUN_TOKEN"], "Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(address, json.dumps({"values": [metric]}).encode(), headers))

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--mode", default="")
parser.add_argument("--fixed", type=int)
args = parser.parse_args()
os.makedirs("outputs", exist_ok=True)
found = {"lr": args.lr, "fixed": args.fixed, "level": os.environ.get("LEVEL")}
found["shm"] = shutil.disk_usage("/dev/shm").total
with open("outputs/found.json", "w") as file:
    json.dump(found, file)
if args.mode == "wait":
    print("waiting", flush=True)
    time.sleep(300)
if args.mode == "fail" and args.lr == 0.2:
    raise SystemExit("this one fails")
for epoch in range(3):
    log("loss", args.lr + 1 / (epoch + 1))
print("lr", args.lr)
"""


@pytest.fixture(scope="module")
def job(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> ScriptRunConfig:
    """A script in an image that the emulator builds once, out of a Conda file."""
    from azureml.core import Environment, ScriptRunConfig
    from azureml.core.runconfig import DockerConfiguration

    folder = tmp_path_factory.mktemp("search")
    (folder / "train.py").write_text(SCRIPT)
    file = folder / "environment.yml"
    file.write_text("name: search\nchannels: [conda-forge]\ndependencies: [python=3.11]\n")
    environment = Environment.from_conda_specification("search", str(file))
    environment.environment_variables = {"LEVEL": "high"}
    docker = DockerConfiguration(use_docker=True, shm_size="123m")
    target = next(iter(workspace.compute_targets))
    return ScriptRunConfig(
        str(folder),
        script="train.py",
        arguments=["--fixed", 7],
        compute_target=target,
        environment=environment,
        docker_runtime_config=docker,
    )


@pytest.fixture
def searches() -> Iterator[list[Any]]:
    """Searches of a test, which end with it."""
    found: list[Any] = []
    yield found
    for run in found:
        if run.get_status() not in ("Completed", "Failed", "Canceled"):
            run.cancel()


def submit(workspace: Workspace, job: ScriptRunConfig, space: dict[str, Any], **options: Any) -> HyperDriveRun:
    from azureml.core import Experiment
    from azureml.train.hyperdrive import GridParameterSampling, HyperDriveConfig, PrimaryMetricGoal

    config = HyperDriveConfig(
        run_config=job,
        hyperparameter_sampling=GridParameterSampling(space),
        primary_metric_name="loss",
        primary_metric_goal=PrimaryMetricGoal.MINIMIZE,
        **{"max_total_runs": 10, "max_concurrent_runs": 2, **options},
    )
    return Experiment(workspace, "search").submit(config)


def wait(run: Any, *statuses: str, seconds: float = 240) -> str:
    """Wait for a status; the SDK's own waiting looks less and less often."""
    until = time.monotonic() + seconds
    while (found := run.get_status()) not in statuses:
        assert time.monotonic() < until, f"{run.id} is {found}"
        assert found not in ("Completed", "Failed", "Canceled"), (
            f"{run.id} is {found}: {run.get_details().get('error')}"
        )
        time.sleep(0.2)
    return str(found)


def test_a_grid_search_finds_the_best_child(
    workspace: Workspace, job: ScriptRunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from azureml.core import Run
    from azureml.train.hyperdrive import HyperDriveRun, choice

    run = submit(workspace, job, {"lr": choice(0.3, 0.2, 0.1), "mode": choice("fail")})
    run.wait_for_completion(show_output=True)
    assert run.get_status() == "Completed"
    shown = capsys.readouterr().out
    assert "Grid sampling of a space of 3 points" in shown, "the log is streamed"
    assert "The search is Completed." in shown

    # The object remembers the tags that it saw last, and the parameters of children are there.
    run = Run.get(workspace, run.id)
    assert isinstance(run, HyperDriveRun)
    assert run.hyperdrive_config._primary_metric_config == {"name": "loss", "goal": "minimize"}
    names = [f"{run.id}_{number}" for number in range(3)]
    values = {name: {"lr": lr, "mode": "fail"} for name, lr in zip(names, (0.3, 0.2, 0.1), strict=True)}
    assert {name: json.loads(text) for name, text in run.get_hyperparameters().items()} == values
    metrics = run.get_metrics()
    assert {name: min(row["loss"]) for name, row in metrics.items() if row} == {
        names[0]: pytest.approx(0.3 + 1 / 3),
        names[2]: pytest.approx(0.1 + 1 / 3),
    }
    best = run.get_best_run_by_primary_metric()
    assert best is not None
    assert best.id == names[2]
    children = run.get_children_sorted_by_primary_metric()
    assert [child["run_id"] for child in children] == [names[2], names[0], names[1]]
    assert [child["status"] for child in children] == ["Completed", "Completed", "Failed"]
    assert json.loads(children[0]["hyperparameters"]) == values[names[2]]

    # What was set for the search reached its children.
    best.download_file("outputs/found.json", str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["lr"], found["fixed"], found["level"]) == (0.1, 7, "high")
    assert found["shm"] == 123 * 2**20
    assert best.parent.id == run.id
    assert "lr 0.1" in b"".join(_logs(best)).decode()


def _logs(run: Any) -> Iterator[bytes]:
    import requests

    for name, address in run.get_details()["logFiles"].items():
        if name.startswith("user_logs/"):
            yield requests.get(address, timeout=60).content


def test_cancelling_a_search_cancels_its_children(
    workspace: Workspace, job: ScriptRunConfig, searches: list[Any]
) -> None:
    from azureml.train.hyperdrive import choice

    run = submit(workspace, job, {"lr": choice(1.0, 2.0), "mode": choice("wait")}, max_concurrent_runs=1)
    searches.append(run)
    wait(run, "Running")
    until = time.monotonic() + 60
    while not (children := list(run.get_children())):
        assert time.monotonic() < until
        time.sleep(0.2)
    wait(children[0], "Running")
    run.cancel()
    assert wait(run, "Canceled") == "Canceled"
    assert [child.get_status() for child in run.get_children()] == ["Canceled"]


def test_a_policy_ends_children_that_are_behind(
    workspace: Workspace, job: ScriptRunConfig, searches: list[Any]
) -> None:
    from azureml.train.hyperdrive import BanditPolicy, choice

    run = submit(
        workspace, job, {"lr": choice(0.1, 50.0), "mode": choice("wait")}, policy=BanditPolicy(slack_factor=0.1)
    )
    searches.append(run)
    wait(run, "Running")
    until = time.monotonic() + 60
    while len(children := sorted(run.get_children(), key=lambda child: str(child.id))) < 2:
        assert time.monotonic() < until
        time.sleep(0.2)
    for child in children:
        wait(child, "Running")
    # Metrics may be logged from outside too, and so at a known moment.
    children[0].log("loss", 1.0)
    children[0].flush()
    children[1].log("loss", 2.0)
    children[1].flush()
    assert wait(children[1], "Canceled") == "Canceled"
    assert children[0].get_status() == "Running"


def test_a_search_that_cannot_be_is_refused_with_a_reason(workspace: Workspace, job: ScriptRunConfig) -> None:
    from azureml.train.hyperdrive import choice

    with pytest.raises(Exception, match="parameter lr: choice has no options"):
        submit(workspace, job, {"lr": ["choice", [[]]], "mode": choice("wait")})

"""A script that submits itself, from the shell to the end of its job in Docker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
import pytest
from job_image import docker_cli, text_of

from himl_container.azureml.elevate import submit_to_azure_if_needed
from himl_container.azureml.failures import UnfinishedRun

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace
    from emulator_fixtures import Emulator

pytestmark = [pytest.mark.emulator, pytest.mark.docker]

TRAIN = """\
import json, os, sys
found = {name: os.environ.get(name) for name in ("GREETING", "MKL_SERVICE_FORCE_INTEL", "MISSING")}
if "--azureml" in sys.argv:
    from himl_container.azureml.elevate import submit_to_azure_if_needed
    submit_to_azure_if_needed(
        "cpu-cluster",
        wait_for_completion="--no-wait" not in sys.argv,
        environment_variables={"GREETING": "hello $you"},
        ignored_folders=["big"],
        after_submission=lambda run: print(f"submitted {run.id}, then {os.path.exists('.amlignore')}"),
    )
files = sorted(os.path.join(folder, name)[2:] for folder, _, names in os.walk(".") for name in names)
shm = os.statvfs("/dev/shm")
print(json.dumps({
    "argv": sys.argv, "found": found, "files": files, "executable": sys.executable,
    "shm": shm.f_blocks * shm.f_frsize, "user": os.getuid(),
}))
"""

COUNT = """\
import os, urllib3.connectionpool as pools
_send = pools.HTTPConnectionPool.urlopen
def counted(self, method, url, *words, **more):
    with open(os.environ["COUNTED_IN"], "a") as file:
        print(method, self.host, url.partition("?")[0], file=file)
    return _send(self, method, url, *words, **more)
pools.HTTPConnectionPool.urlopen = counted
"""

PLAIN = """\
import sys
from azureml.core import Environment, Experiment, ScriptRunConfig
from himl_container.azureml.workspace import get_workspace
environment = Environment("plain")
environment.docker.base_image = sys.argv[1]
environment.python.user_managed_dependencies = True
config = ScriptRunConfig(".", "train.py", ["--a"], compute_target="cpu-cluster", environment=environment)
Experiment(get_workspace(), "train").submit(config)
"""


@dataclass(frozen=True)
class Project:
    """A folder with a script, an environment file and the workspace's ``config.json``."""

    folder: Path
    environ: Mapping[str, str]

    def python(self, *words: str, code: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *words],
            cwd=self.folder,
            env={**os.environ, **self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def requests(self, *words: str, at: Path) -> list[str]:
        """The requests that a script makes."""
        hook = at / uuid.uuid4().hex
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(COUNT)
        self.python(*words, PYTHONPATH=str(hook), COUNTED_IN=str(hook / "requests"))
        return (hook / "requests").read_text().splitlines()


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, emulator: Emulator, package_sources: Mapping[str, str]
) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("elevate") / "project"
    folder.mkdir()
    made = kit.ProjectFolder(folder)
    made.environment("python=3.11", "tinylib")
    made.write("train.py", TRAIN)
    made.write("config.json", emulator.config.read_text())
    made.write("big/file", "x")
    made.write(".git/config", "x")
    made.write("outputs/old", "x")
    name = f"himl-elevate-{uuid.uuid4().hex[:8]}"
    # The nearest config.json, and no variable, says which workspace is meant.
    yield Project(folder, {**package_sources, "HIML_CONTAINER_IMAGE_NAME": name, "HIML_EMULATOR_CONFIG": ""})
    for image in docker_cli("images", "--format", "{{.Repository}}:{{.Tag}}", name).stdout.decode().split():
        docker_cli("rmi", "--force", image, check=False)


@pytest.fixture(scope="module")
def submitted(project: Project, workspace: Workspace) -> tuple[Any, str]:
    """The run of a script that was called with ``--azureml``, and what the script printed."""
    done = project.python("train.py", "--azureml", "--a", "b c", "")
    recovery = (project.folder / "most_recent_run.txt").read_text()
    experiment, _, run_id = recovery.partition(":")
    assert experiment == "train"
    return workspace.get_run(run_id), done.stdout


def test_the_job_is_what_was_asked_for(project: Project, submitted: tuple[Any, str]) -> None:
    run, printed = submitted
    assert run.get_status() == "Completed"
    seen = json.loads(text_of(run).splitlines()[-1])
    assert seen["argv"] == ["train.py", "--a", "b c", ""]
    assert seen["found"] == {"GREETING": "hello $you", "MKL_SERVICE_FORCE_INTEL": "1", "MISSING": None}
    assert seen["files"] == ["config.json", "environment.yml", "pylock.himl.toml", "train.py"]
    assert seen["executable"].startswith("/opt/himl/bin/python")
    assert (seen["shm"], seen["user"]) == (2 << 30, 0)
    lines = printed.splitlines()
    assert f"Successfully queued run number {run.number} (ID {run.id}) in experiment train" in lines
    assert f"submitted {run.id}, then False" in lines
    assert lines[-1] == "AzureML completed."
    assert run.get_tags()["commandline_args"] == "--a b c "
    assert not (project.folder / ".amlignore").exists()


def test_the_environment_is_the_image_by_digest(
    project: Project, submitted: tuple[Any, str], workspace: Workspace, emulator: Emulator
) -> None:
    from azureml.core import Environment

    run, _ = submitted
    environment = run.get_details()["runDefinition"]["environment"]
    docker, python = environment["docker"], environment["python"]
    name = project.environ["HIML_CONTAINER_IMAGE_NAME"]
    assert docker["baseImage"].startswith(f"{name}@sha256:")
    assert docker["baseImageRegistry"]["address"] == emulator.installation.workspace.registry_host
    assert (python["userManagedDependencies"], python["interpreterPath"]) == (True, "/opt/himl/bin/python")
    registered = Environment.get(workspace, environment["name"], environment["version"])
    assert registered.docker.base_image == docker["baseImage"]


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (("train.py", "--azureml", "--no-wait"), ["GET computes", "PATCH runs"]),
        (("-m", "himl_container", "submit", "--azureml", "--cluster", "cpu-cluster", "train.py"), ["GET computes"]),
    ],
    ids=["script", "command line"],
)
def test_a_rerun_asks_little_more_than_the_sdk_alone(
    project: Project, submitted: tuple[Any, str], tmp_path: Path, words: tuple[str, ...], more: list[str]
) -> None:
    """The image is pushed, its environment registered, the source sent: both only have to start a run."""
    run, _ = submitted
    image = run.get_details()["runDefinition"]["environment"]["docker"]["baseImage"]
    plain = tmp_path / "plain.py"
    plain.write_text(PLAIN)
    project.python(*words)  # the command line and the script send other files of the folder
    ours = project.requests(*words, at=tmp_path)
    # The SDK alone takes more files, and sends them now.
    sdk = [item for item in project.requests(str(plain), image, at=tmp_path) if not _is_of_a_snapshot(item)]
    extra = list(ours)
    for request in sdk:
        kind = _kind(request)
        found = next((item for item in extra if _kind(item) == kind), None)
        assert found is not None, f"{request} is not among {ours}"
        extra.remove(found)
    assert [_kind(item) for item in extra] == more


def _is_of_a_snapshot(request: str) -> bool:
    return "/snapshots/" in request


def _kind(request: str) -> str:
    """What a request is for, without ids."""
    method, host, path = request.split()
    parts = [part for part in path.split("/") if part]
    known = (
        "computes",
        "runs",
        "snapshotrun",
        "experiments",
        "snapshots",
        "workspaces",
        "subscriptions",
        "environments",
    )
    named = [part for part in parts if part in known]
    # The list of clusters and one cluster are two things.
    last = named[-1] if named else host
    return f"{method} {last}{' one' if last == 'computes' and parts[-1] != 'computes' else ''}"


def test_a_cluster_that_is_not_there(project: Project, tmp_path: Path) -> None:
    script = tmp_path / "wrong.py"
    script.write_text(
        "from himl_container.azureml.elevate import submit_to_azure_if_needed\n"
        "submit_to_azure_if_needed('none', entry_script='train.py', submit_to_azureml=True)\n"
    )
    before = project.folder.joinpath("environment.yml").read_text()
    project.folder.joinpath("environment.yml").write_text("dependencies: [no-such-package]\n")
    try:
        done = project.python(str(script), code=1)
    finally:
        project.folder.joinpath("environment.yml").write_text(before)
    assert "Could not find the compute target none in the AzureML workspace" in done.stderr
    assert "Existing clusters: ['cpu-cluster', 'low-priority']" in done.stderr


@pytest.fixture
def environment(submitted: tuple[Any, str], workspace: Workspace) -> Environment:
    from azureml.core import Environment

    described = submitted[0].get_details()["runDefinition"]["environment"]
    return Environment.get(workspace, described["name"], described["version"])


@pytest.mark.parametrize(
    ("script", "words", "told"),
    [
        ("raise SystemExit(3)", {}, "Failed: The script ended with exit code 3"),
        (
            "import time; time.sleep(600)",
            {"max_run_duration": "2s"},
            "Canceled: The run was canceled: the maximum duration",
        ),
        ("import time; time.sleep(600)", {"after_submission": lambda run: run.cancel()}, "Canceled"),
    ],
    ids=["fails", "out-of-time", "cancelled"],
)
def test_a_run_that_does_not_complete_while_we_wait(
    workspace: Workspace,
    environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    words: dict[str, Any],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("azureml.core.run.Run._wait_before_polling", lambda _seconds: 0.2)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "end.py").write_text(script)
    (tmp_path / ".amlignore").write_text("x")
    with pytest.raises(ValueError, match=r"Run end_\w+ in experiment end or one of its child runs failed") as raised:
        submit_to_azure_if_needed(
            "cpu-cluster",
            "sub/end.py",
            workspace,
            script_params=["x"],
            aml_environment_name=environment.name,
            ignored_folders=["y"],
            submit_to_azureml=True,
            wait_for_completion=True,
            **words,
        )
    assert isinstance(raised.value, UnfinishedRun)
    assert told in str(raised.value)
    assert (tmp_path / ".amlignore").read_text() == "x"
    assert (tmp_path / "most_recent_run.txt").read_text().startswith("end:end_")


def test_several_nodes_and_a_command(workspace: Workspace, environment: Environment, tmp_path: Path) -> None:
    """A description of a run, translated: quoting, nodes, shared memory."""
    from azureml.core import Experiment
    from job_image import wait

    from himl_container.azureml.translate import AzureTarget, run_configuration, script_run
    from himl_container.launch.spec import ImageRef, LaunchSpec

    (tmp_path / "say.sh").write_text('#!/bin/sh\nprintf "<%s>" "$@"; df -B1 --output=size /dev/shm | tail -1\n')
    (tmp_path / "say.sh").chmod(0o755)
    spec = LaunchSpec("run", ImageRef(""), ("sh", "say.sh"), ("a b", "$HOME", "'", ""), nodes=2, shm_size=128 << 20)
    configuration = run_configuration(spec, AzureTarget("cpu-cluster"), environment, workspace)
    run = Experiment(workspace, "translated").submit(script_run(configuration, str(tmp_path)))
    assert wait(run) == "Completed"
    for rank in (0, 1):
        words, _, size = text_of(run, f"user_logs/std_log_process_0{rank}.txt").rpartition(">")
        assert words == "<a b><$HOME><'><"
        assert int(size) == 128 << 20

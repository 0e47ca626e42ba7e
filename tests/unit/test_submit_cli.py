"""submit and its sister commands without a workspace: what they refuse, what a dry run prints, what they import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from himl_container.azureml import quick_import
from himl_container.azureml.emulated import emulator_folder, use_emulator
from himl_container.azureml.images import for_emulator
from himl_container.azureml.reach import chosen_workspace
from himl_container.azureml.staging import git_facts, staged
from himl_container.cli import following, main
from himl_container.cli.azure import asker
from himl_container.cli.output import Output, make_output, print_error
from himl_container.errors import RunFailedError
from himl_container.launch.defaults import RunDefaults
from himl_container.launch.snapshot import scan
from himl_container.progress import SilentReporter
from himl_container.settings import Settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and no workspace anywhere."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print()\n")
    (folder / "pyproject.toml").write_text('[tool.himl-container.run]\ncluster = "cpu"\n')
    for name in list(os.environ):
        if name.startswith(("HIML_", "AZUREML_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("himl_container.azureml.workspace._folder_of_script", lambda: None)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(project: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main.run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_where_to_run_has_to_be_said(run: Run) -> None:
    code, _, told = run("submit", "train.py")
    assert code == 2
    assert "--azureml" in told


def test_without_a_workspace(run: Run) -> None:
    code, _, told = run("submit", "--azureml", "train.py")
    assert code == 65
    assert "No workspace config file given" in told
    for word in ("--emulator", "config.json", "--workspace-config"):
        assert word in told


@pytest.mark.parametrize("command", ["status", "logs", "cancel", "download"])
def test_nothing_was_submitted_yet(run: Run, command: str) -> None:
    code, _, told = run(command)
    assert code == 65
    assert "nothing was submitted from this machine yet" in told


def test_no_runs_yet(run: Run) -> None:
    assert run("runs") == (0, "Nothing was submitted from this machine yet.\n", "")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((), "there is nothing to run"),
        (("../x.py",), "inside of the source folder"),
        (("--dataset", "a", "--dataset", "a", "train.py"), "given twice"),
        (("--emulator", "--workspace-config", "x.json", "train.py"), "name two workspaces"),
        (("--workspace-config", "x.json", "train.py"), "Workspace config file does not exist or cannot be read."),
    ],
)
def test_what_is_refused(run: Run, words: tuple[str, ...], what: str) -> None:
    code, _, told = run("submit", "--azureml", *words)
    assert (code, what in told) == (65, True), told


@pytest.mark.parametrize(
    ("table", "flags", "expected"),
    [
        ({}, (False, None), (False, None)),
        ({"emulator": True}, (False, None), (True, None)),
        ({"workspace-config": "w.json"}, (False, None), (False, "w.json")),
        ({"workspace-config": "w.json"}, (True, None), (True, None)),
        ({"emulator": True}, (False, "flag.json"), (False, "flag.json")),
        ({"emulator": True, "workspace-config": "w.json"}, (False, None), (True, "w.json")),
    ],
)
def test_flags_name_the_workspace_before_the_settings_do(
    project: Path, table: dict[str, object], flags: tuple[bool, str | None], expected: tuple[bool, str | None]
) -> None:
    def path(name: str | None) -> Path | None:
        return project / name if name else None

    settings = Settings(project, (), project / "lock", project, run=table)
    found = chosen_workspace(RunDefaults(settings), emulator=flags[0], workspace_config=path(flags[1]))
    assert found == (expected[0], path(expected[1]))


@pytest.mark.parametrize("command", ["status", "logs", "cancel", "download"])
def test_the_settings_name_the_workspace_of_a_run_from_elsewhere(run: Run, project: Path, command: str) -> None:
    (project / "pyproject.toml").write_text('[tool.himl-container.run]\nworkspace-config = "theirs.json"\n')
    code, _, told = run(command, "some_run")
    assert (code, "theirs.json" in told) == (65, True), told


def test_what_others_wrote_does_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(RunFailedError("the script ended\x1b[2J\rfine \x9b31m", hint="its log:\n\x07beep\tü"))
    told = capsys.readouterr().err
    assert told.splitlines() == [
        "error: the script ended\\x1b[2J\\x0dfine \\x9b31m",
        "  its log:",
        "  \\x07beep\tü",
    ]


def test_a_mistake_in_a_search_has_its_line(run: Run, project: Path) -> None:
    (project / "s.yml").write_text("parameters:\n  a: [1]\nmetric: m\ngoal: up\nmax_total_runs: 1\n")
    code, _, told = run("submit", "--azureml", "--search", "s.yml", "train.py")
    assert code == 65
    assert f"{project / 's.yml'}:4: goal cannot be 'up'" in told


def test_a_dry_run_asks_nobody(run: Run) -> None:
    code, printed, _ = run("submit", "--azureml", "--dry-run", "--json", "--env", "MY_TOKEN=x1y2", "train.py", "--a")
    assert code == 0
    assert "x1y2" not in printed
    value = json.loads(printed)
    assert (value["cluster"], value["configuration"]["arguments"]) == ("cpu", ["--a"])


def test_only_who_sits_at_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(click, "confirm", lambda text, **_: asked.append(text) or True)
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(sys, stream, SimpleNamespace(isatty=lambda: True))
    assert asker(Output(SilentReporter(), as_json=True)) is None
    assert asker(Output(SilentReporter(), quiet=True)) is None
    ask = asker(Output(SilentReporter()))
    assert ask is not None
    assert ask("Really?")
    assert asked == ["Really?"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    assert asker(Output(SilentReporter())) is None


class _Told(SilentReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)


def run_with(*statuses: str, error: str = "") -> Any:
    """A run that stands so at one look after the other."""
    left = list(statuses)

    def get_details() -> dict[str, Any]:
        status = left.pop(0)
        if status == "Ctrl-C":
            raise KeyboardInterrupt
        return {"status": status, "error": {"message": error} if error else None}

    return SimpleNamespace(id="run_1", get_details=get_details)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("himl_container.azureml.following.SHORTEST", 0.0)
    yield


@pytest.mark.usefixtures("quick")
def test_a_run_that_completes_while_we_wait() -> None:
    told = _Told()
    assert following.wait_for(run_with("Running", "Completed"), Output(told), show=False, value={}) == 0
    assert told.lines == ["run run_1: Running", "run run_1 completed"]


@pytest.mark.parametrize(("status", "word"), [("Failed", "failed: why"), ("Canceled", "was cancelled: why")])
def test_a_run_that_does_not_complete(status: str, word: str) -> None:
    with pytest.raises(RunFailedError, match=f"run run_1 {word}") as caught:
        following.wait_for(run_with(status, error="why"), Output(_Told()), show=False, value={})
    assert caught.value.exit_code == 78
    assert "himl-container logs run_1" in caught.value.hint


def test_who_presses_ctrl_c_is_told_that_the_run_goes_on() -> None:
    told = _Told()
    assert following.wait_for(run_with("Ctrl-C"), Output(told), show=False, value={}) == 130
    assert "the run goes on. 'himl-container cancel run_1' ends it" in told.lines[0]


def test_the_end_is_told_to_programs_too(capsys: pytest.CaptureFixture[str]) -> None:
    following.wait_for(run_with("Completed"), Output(_Told(), as_json=True), show=True, value={"experiment": "e"})
    result = {"event": "result", "experiment": "e", "run": "run_1", "status": "Completed", "reason": ""}
    assert json.loads(capsys.readouterr().out) == result


def test_the_result_is_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    following.wait_for(run_with("Completed"), make_output(as_json=True), show=False, value={})
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert (events[-1], events.count("result")) == ("result", 1)


def test_the_emulator_takes_images_from_its_own_registry_alone(tmp_path: Path) -> None:
    settings = Settings(tmp_path, (), tmp_path / "lock", tmp_path, registry="team.azurecr.io", image_name="team/x")
    assert for_emulator(settings).remote_name == ""
    named = Settings(tmp_path, (), tmp_path / "lock", tmp_path, image_name="team.azurecr.io/team/x")
    assert (for_emulator(named).image_name, for_emulator(named).remote_name) == ("team/x", "")


def test_an_emulator_that_runs_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"HTTPS_PROXY": "http://127.0.0.1:77", "REQUESTS_CA_BUNDLE": "bundle.pem", "HIML_EMULATOR_CONFIG": "c"}
    monkeypatch.setattr("himl_container.azureml.emulated.running_emulator", lambda folder: 77)
    monkeypatch.setattr("himl_container.emulator.folder.existing", lambda folder: folder)
    monkeypatch.setattr("himl_container.emulator.folder.client_variables", lambda made, port, environ: variables)
    environ = {"HIML_CONTAINER_EMULATOR_DIR": str(tmp_path)}
    told = _Told()
    assert use_emulator(environ, told) == Path("c")
    assert environ["HTTPS_PROXY"] == "http://127.0.0.1:77"
    assert environ["REQUESTS_CA_BUNDLE"] == str(tmp_path / "ca.pem")
    assert told.lines == []
    (tmp_path / "emulator.toml").write_text("")  # it may let other hosts through, which the usual roots are for
    use_emulator(environ, told)
    assert environ["REQUESTS_CA_BUNDLE"] == "bundle.pem"


def test_two_submissions_start_one_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second finds none either, waits for the first, and takes the one that has been started meanwhile."""
    started: list[int] = []
    looks: list[int | None] = []
    both_have_looked = threading.Barrier(2, timeout=30)

    def look(folder: Path) -> int | None:
        with order:
            found = started[0] if started else None
            looks.append(found)
            first = len(looks) <= 2
        if first:
            both_have_looked.wait()
        return found

    def start(folder: Path, reporter: object) -> int:
        started.append(77)
        return 77

    order = threading.Lock()
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("himl_container.azureml.emulated.running_emulator", look)
    monkeypatch.setattr("himl_container.azureml.emulated._start", start)
    monkeypatch.setattr("himl_container.emulator.folder.existing", lambda folder: folder)
    monkeypatch.setattr(
        "himl_container.emulator.folder.client_variables", lambda *_: {"HIML_EMULATOR_CONFIG": str(tmp_path / "c")}
    )
    places = [{"HIML_CONTAINER_EMULATOR_DIR": str(tmp_path)} for _ in range(2)]
    threads = [threading.Thread(target=use_emulator, args=(environ, _Told())) for environ in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert started == [77]
    assert [environ["HIML_EMULATOR_CONFIG"] for environ in places] == [str(tmp_path / "c")] * 2


def test_which_folder_the_emulator_has(tmp_path: Path) -> None:
    assert emulator_folder({"HIML_CONTAINER_EMULATOR_DIR": "/a"}, tmp_path) == tmp_path
    assert emulator_folder({"HIML_CONTAINER_EMULATOR_DIR": "/a"}) == Path("/a")
    assert emulator_folder({}).parts[-2:] == ("himl-container", "emulator")


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def test_exactly_the_snapshot_is_staged_with_what_git_says(project: Path) -> None:
    git(project, "init", "-q", "-b", "work")
    git(project, "remote", "add", "origin", "https://user:secret@example.com/x.git")
    git(project, "add", "train.py")
    git(project, "commit", "-q", "-m", "x")
    (project / "empty").mkdir()
    (project / ".amlignore").write_text("left\n")
    (project / "left").write_text("")
    environ = dict(os.environ)
    with staged(scan(project), environ) as found:
        files = {str(path.relative_to(found.folder)) for path in found.folder.rglob("*")}
        assert files == {".amlignore", "train.py", "pyproject.toml"}
        assert found.reference.files == 3
        before = dict(environ)
        with found.described(environ):
            told = {name: value for name, value in environ.items() if name.startswith("AZUREML_GIT_")}
            assert git_facts(found.folder, environ) == {}
        assert environ == before
    assert not found.folder.exists()
    assert told.pop("AZUREML_GIT_COMMIT")
    assert told == {
        "AZUREML_GIT_REPOSITORY_URI": "https://example.com/x.git",
        "AZUREML_GIT_BRANCH": "work",
        "AZUREML_GIT_DIRTY": "true",
    }


def test_what_a_user_says_of_git_counts(project: Path) -> None:
    environ = {**os.environ, "AZUREML_GIT_COMMIT": "mine"}
    git(project, "init", "-q")
    with staged(scan(project), environ) as found, found.described(environ):
        assert environ["AZUREML_GIT_COMMIT"] == "mine"


class _OfOneThread(UserDict[str, str]):
    """Variables that the main thread may change at any moment."""

    def __getitem__(self, name: str) -> str:
        assert threading.current_thread() is threading.main_thread()
        return super().__getitem__(name)


def test_git_is_asked_with_the_variables_of_the_beginning(project: Path) -> None:
    git(project, "init", "-q", "-b", "work")
    environ = _OfOneThread(os.environ)
    with staged(scan(project), environ) as found, found.described(environ):
        assert environ["AZUREML_GIT_BRANCH"] == "work"


def test_the_sdk_is_whole_in_any_process_but_our_own() -> None:
    assert not quick_import.is_our_command()


def test_in_our_own_process_the_sdk_leaves_out_what_is_not_used() -> None:
    code = (
        "import sys; sys.modules['__main__'].__file__ = '/any/himl-container'\n"
        "from himl_container.azureml.quick_import import import_sdk\n"
        "import_sdk()\n"
        "left_out = ('aiohttp', 'numpy', 'paramiko', 'azure.mgmt.storage', 'azureml._vendor.azure_storage.fileshare')\n"
        "print([name for name in left_out if name in sys.modules])\n"
        "import docker, numpy\n"
        "print(docker.DockerClient.__name__, numpy.int64(1) + 1)\n"
        "from azureml._vendor.azure_storage.blob import BlobServiceClient\n"
        "from azureml._vendor.azure_storage.fileshare import FileProperties\n"
        "from azureml.data import azure_storage_datastore as used\n"
        "client = used.BlobServiceClient('https://account.blob.core.windows.net')\n"
        "print(type(client) is BlobServiceClient, client.account_name)\n"
        "print(isinstance(FileProperties(), used.FileProperties), isinstance(1, used.FileProperties))\n"
        "from azure.mgmt.resource import FeatureClient, SubscriptionClient\n"
        "print(isinstance(FeatureClient, type), isinstance(SubscriptionClient, type))\n"
        "from azure.mgmt.resource.features import FeatureClient\n"
        "print(isinstance(FeatureClient, type))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "DockerClient 2", "True account", "True False", "False True", "True"], (
        done.stderr
    )


@pytest.mark.parametrize("command", ["submit", "status", "logs", "cancel", "download", "runs", "verify"])
def test_help_needs_no_sdk(command: str) -> None:
    code = (
        "import sys\nfrom himl_container.cli import main\n"
        f"main.run([{command!r}, '--help'])\n"
        "print([name for name in ('azureml.core', 'requests', 'yaml', 'docker') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("statuses", "failed"),
    [(["Completed", "Canceled"], ""), (["Completed", "Failed"], "1 of its runs failed: child_1")],
)
def test_a_search_whose_runs_fail(statuses: list[str], failed: str) -> None:
    run = run_with("Completed")
    run.type = "hyperdrive"
    run.get_children = lambda: [
        SimpleNamespace(id=f"child_{number}", get_status=lambda status=status: status)
        for number, status in enumerate(statuses)
    ]
    if not failed:
        assert following.wait_for(run, Output(_Told()), show=False, value={}) == 0
        return
    with pytest.raises(RunFailedError, match=failed):
        following.wait_for(run, Output(_Told()), show=False, value={})

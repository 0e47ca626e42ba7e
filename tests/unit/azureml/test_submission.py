"""Submitting once, saying what was submitted, and waiting."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from himl_container.azureml import submission
from himl_container.azureml.failures import UnfinishedRun
from himl_container.azureml.submission import default_tags, submit_run


class Run:
    """A run as the SDK has it."""

    def __init__(self, status: str = "Completed", error: Any = None, identifier: str = "exp_1_a") -> None:
        self.id, self.number, self.status, self.error = identifier, 7, status, error
        self.experiment = SimpleNamespace(name="my_exp")
        self.children: list[Run] = []
        self.tags: list[Any] = []
        self.waited: list[dict[str, Any]] = []
        self.failures: list[Exception] = []

    def get_portal_url(self) -> str:
        return f"https://portal/{self.id}"

    def set_tags(self, tags: Any) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.tags.append(tags)

    def wait_for_completion(self, **words: Any) -> None:
        self.waited.append(words)

    def get_status(self) -> str:
        return self.status

    def get_children(self) -> list[Run]:
        return self.children

    def get_details(self) -> dict[str, Any]:
        return {"error": self.error}


class Service:
    """Takes submissions, through the SDK's own class."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, self.experiments, self.submitted = Run(), list[str](), list[Any]()
        self.failures: list[Exception] = []
        monkeypatch.setattr("azureml.core.Experiment", self.experiment)

    def experiment(self, *, workspace: object, name: str) -> Any:
        self.experiments.append(name)
        return SimpleNamespace(name=name, submit=self.submit, get_portal_url=lambda: "https://portal/experiment")

    def submit(self, config: Any) -> Run:
        self.submitted.append(config)
        if self.failures:
            raise self.failures.pop(0)
        return self.run


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Service:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("himl_container.azureml.retry.time.sleep", lambda _seconds: None)
    return Service(monkeypatch)


CONFIG = SimpleNamespace(arguments=["--a", 1, "b c"])


def submit(config: Any = CONFIG, **words: Any) -> Run:
    return cast("Run", submit_run(cast("Any", None), "my exp-1", config, **words))


def test_it_is_submitted_and_said(service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = submit()
    assert run is service.run
    assert service.experiments == ["my_exp_1"]
    assert service.submitted == [CONFIG]
    assert run.tags == [{"commandline_args": "--a 1 b c"}]
    assert [path.name for path in tmp_path.iterdir()] == ["most_recent_run.txt"]
    assert (tmp_path / "most_recent_run.txt").read_text() == "my_exp:exp_1_a"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "=" * len(lines[0])
    assert "Successfully queued run number 7 (ID exp_1_a) in experiment my_exp" in lines
    assert "Experiment name and run ID are available in file most_recent_run.txt" in lines
    assert "Experiment URL: https://portal/experiment" in lines
    assert "Run URL: https://portal/exp_1_a" in lines


def test_given_tags_replace_the_default_ones(service: Service) -> None:
    assert submit(tags={"a": "b"}).tags == [{"a": "b"}]


@pytest.mark.parametrize(
    ("config", "tags"),
    [
        (SimpleNamespace(arguments=None), None),
        (SimpleNamespace(arguments=[]), None),
        (SimpleNamespace(run_config=SimpleNamespace(arguments=["--x"])), {"commandline_args": "--x"}),
        (SimpleNamespace(arguments=["https://u:secret@h.example/p"]), {"commandline_args": "https://***@h.example/p"}),
    ],
)
def test_default_tags(config: Any, tags: Any) -> None:
    found = default_tags(config)
    assert "secret" not in str(found)
    assert (found is None) == (tags is None)
    assert found is None or list(found) == list(tags)


def test_a_submission_is_never_repeated(service: Service) -> None:
    service.failures = [ConnectionError("reset")]
    with pytest.raises(ConnectionError):
        submit()
    assert len(service.submitted) == 1


def test_what_fails_afterwards_does_not_hide_the_run(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service.run.failures = [PermissionError("no")]
    (tmp_path / "most_recent_run.txt").mkdir()
    assert submit() is service.run
    assert "tags cannot be set" in caplog.text
    assert "most_recent_run.txt: Is a directory" in caplog.text


def test_the_user_agent_is_extended_once(service: Service) -> None:
    from azureml._base_sdk_common.user_agent import get_user_agent

    submit()
    submit()
    assert get_user_agent().count("innereye/2.0") == 1


def test_without_waiting_nothing_is_asked(service: Service) -> None:
    assert submit().waited == []


def test_waiting(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    run = submit(wait_for_completion=True, wait_for_completion_show_output=True)
    assert [(item["show_output"], item["wait_post_processing"]) for item in run.waited] == [(True, True)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["Waiting for the completion of the AzureML run.", "AzureML completed."]


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        ("Failed", {"error": {"message": "the script broke"}}, "exp_1_a: Failed: the script broke"),
        ("Failed", {"message": "max run duration"}, "exp_1_a: Failed: max run duration"),
        ("Canceled", None, "exp_1_a: Canceled"),
    ],
)
def test_a_run_that_does_not_complete(service: Service, status: str, error: Any, told: str) -> None:
    service.run = Run(status, error)
    with pytest.raises(ValueError, match="Run exp_1_a in experiment my_exp or one of its child runs failed") as raised:
        submit(wait_for_completion=True)
    assert isinstance(raised.value, UnfinishedRun)
    assert told in str(raised.value)
    assert "https://portal/exp_1_a" in str(raised.value)


def test_a_child_that_fails(service: Service) -> None:
    service.run.children = [Run(), Run("Failed", {"error": {"message": "child broke"}}, "child_2")]
    with pytest.raises(UnfinishedRun, match="child_2: Failed: child broke"):
        submit(wait_for_completion=True)


def test_a_reason_that_cannot_be_had_does_not_hide_the_failure(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.run = Run("Failed")

    def lost() -> None:
        raise ConnectionError("reset")

    monkeypatch.setattr(service.run, "get_details", lost)
    with pytest.raises(UnfinishedRun, match="Run exp_1_a in experiment my_exp"):
        submit(wait_for_completion=True)


def test_the_sdk_says_nothing_about_numbers(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    class Warns(Run):
        @property
        def number(self) -> int:  # type: ignore[override]
            logging.getLogger("azureml.run").warning("semantics")
            return 8

        @number.setter
        def number(self, _value: int) -> None: ...

    assert submission._number(cast("Any", Warns())) == 8
    assert "semantics" not in caplog.text
    logging.getLogger("azureml.run").warning("afterwards")
    assert "afterwards" in caplog.text

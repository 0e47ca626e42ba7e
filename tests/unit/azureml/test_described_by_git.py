"""What AzureML is told of the repository that a run comes from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from himl_container.azureml import submission
from himl_container.azureml.staging import described_by_git

REMOTE = "https://me:secret@git.example/x.git"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which nothing is changed, of a remote repository whose address has a login."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "train.py").write_text("")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    for words in (
        ("init", "-q", "-b", "work"),
        ("remote", "add", "origin", REMOTE),
        ("add", "."),
        (*identity, "commit", "-qm", "x"),
    ):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("AZUREML_GIT_")]:
        monkeypatch.delenv(name)
    return folder


def sdk_says() -> dict[str, Any]:
    """What the SDK makes of it."""
    from azureml._base_sdk_common.tracking import GitTrackingInfoProvider

    found: dict[str, Any] = GitTrackingInfoProvider().gather()
    return found


def test_no_login_and_no_change_that_a_submission_makes(repository: Path) -> None:
    before = dict(os.environ)
    with described_by_git(repository, os.environ):
        (repository / ".amlignore").write_text("data")
        said = sdk_says()
    assert said["azureml.git.repository_uri"] == "https://git.example/x.git"
    assert said["azureml.git.dirty"] == "False"
    assert "secret" not in str(said)
    assert dict(os.environ) == before
    with described_by_git(repository, os.environ):  # now it is the user's own file
        assert sdk_says()["azureml.git.dirty"] == "True"


def test_submit_run_tells_it_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(submission, "queue_run", lambda *_: said.append(sdk_says()))
    config: Any = SimpleNamespace(source_directory=str(repository))
    submission.submit_run(SimpleNamespace(), "x", config)  # type: ignore[arg-type]
    assert said[0]["azureml.git.commit"]
    assert "secret" not in str(said)


def test_a_folder_in_no_repository(tmp_path: Path) -> None:
    environ: dict[str, str] = {"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    before = dict(environ)
    with described_by_git(tmp_path, environ):
        assert environ == before

"""What is looked at before an image is built."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from himl_container.azureml import submit
from himl_container.azureml.failures import WrongValue
from himl_container.azureml.reach import Way
from himl_container.azureml.request import SubmitRequest, plan_submission
from himl_container.azureml.workspace import WorkspaceNames
from himl_container.progress import SilentReporter
from himl_container.settings import Settings


@pytest.mark.parametrize("missing", ["cluster", "dataset"])
def test_a_misspelt_name_costs_no_build(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: Any, **__: Any) -> Any:
        raise AssertionError("an image is built")

    def datasets(*_: Any) -> Any:
        raise WrongValue("There is no dataset 'iris'")

    workspace = SimpleNamespace(compute_targets={} if missing == "cluster" else {"cpu": None})
    monkeypatch.setattr("himl_container.azureml.reach.open_quickly", lambda names: workspace)
    monkeypatch.setattr("himl_container.azureml.datasets.convert_himl_to_azureml_datasets", datasets)
    monkeypatch.setattr(submit, "_environment", build)
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text("")
    settings = Settings(project, (), tmp_path / "lock", tmp_path / "cache", run={"cluster": "cpu"})
    plan = plan_submission(SubmitRequest("train.py", datasets=("iris",)), settings, cwd=project, environ={})
    way = Way(WorkspaceNames("subscription", "group", "space"))
    with pytest.raises(WrongValue, match="compute target cpu" if missing == "cluster" else "no dataset 'iris'"):
        submit.submit(plan, way, environ={}, reporter=SilentReporter())

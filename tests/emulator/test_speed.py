"""How long users wait, in multiples of what was asked of the emulator: a test that fails on a slow day helps nobody.

The figures themselves are in docs/emulator.md, with the load under which they were measured.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from job_image import Submit, environment_of, error_of, submitter, text_of, wait

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace

pytestmark = [pytest.mark.emulator, pytest.mark.docker]


SLACK = 4
"""How many times longer than on an idle machine everything may take."""


def test_an_unchanged_folder_is_submitted_and_run(workspace: Workspace, base_image: str, tmp_path: Path) -> None:
    from azureml.core import Experiment, ScriptRunConfig

    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "data.txt").write_text("unchanged")
    experiment = Experiment(workspace, "speed")
    answered, completed = [], []
    for _ in range(5):
        begin = time.perf_counter()
        run = experiment.submit(
            ScriptRunConfig(
                str(tmp_path / "source"),
                command=["cat", "data.txt"],
                compute_target="cpu-cluster",
                environment=environment_of(base_image, "shell"),
            )
        )
        answered.append(time.perf_counter() - begin)
        assert wait(run) == "Completed", error_of(run)
        completed.append(time.perf_counter() - begin)
    assert text_of(run) == "unchanged"
    # The first one has sent the folder; of the others the quickest is the one that others disturbed least.
    assert min(answered[1:]) < 0.3 * SLACK, answered
    assert min(completed) < 4 * SLACK, completed


def test_a_thousand_metrics_of_a_job(workspace: Workspace, job_environment: Environment, tmp_path: Path) -> None:
    submit: Submit = submitter(workspace, job_environment, tmp_path)
    run = submit(
        "import time\nfrom azureml.core import Run\n"
        "run = Run.get_context(allow_offline=False)\nbegin = time.perf_counter()\n"
        "for number in range(1000):\n    run.log('loss', 1 / (number + 1))\n"
        "run.flush()\nprint('seconds', time.perf_counter() - begin)\n"
    )
    assert wait(run) == "Completed", error_of(run)
    seconds = next(float(line.split()[1]) for line in text_of(run).splitlines() if line.startswith("seconds "))
    assert seconds < 5 * SLACK
    assert run.get_metrics()["loss"] == [1 / (number + 1) for number in range(1000)]

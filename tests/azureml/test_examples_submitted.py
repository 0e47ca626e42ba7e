"""Every example on AzureML: its own submission (``--azureml``), the run's results, and ``himl-container submit``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from emulator_fixtures import Emulator
from example_folders import Examples

if TYPE_CHECKING:
    from azureml.core import Run, Workspace

pytestmark = [pytest.mark.docker, pytest.mark.emulator, pytest.mark.network, pytest.mark.slow]

PRIMES = "2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47"


@pytest.fixture(scope="module")
def submitted(built_examples: Examples, emulator: Emulator) -> Examples:
    """The examples, with the variables that lead to the emulator's workspace; their image is built."""
    return replace(built_examples, environ={**built_examples.environ, **emulator.variables})


def latest(examples: Examples, number: str, workspace: Workspace) -> Run:
    """The run that an example submitted last, by the file that it wrote."""
    experiment, _, run_id = (examples.folder / number / "most_recent_run.txt").read_text().partition(":")
    run = workspace.get_run(run_id)
    assert run.experiment.name == experiment
    return run


def test_primes(submitted: Examples, workspace: Workspace) -> None:
    printed = submitted.python("2", "sample.py", "-n", "50", "--azureml")
    assert "This command will be run in AzureML: sample.py -n 50\n" in printed
    # Printed by the run, whose log is shown while we wait; what comes after the call is not done here.
    assert printed.count(PRIMES) == 1
    assert printed.rstrip().endswith("AzureML completed.")
    run = latest(submitted, "2", workspace)
    assert (run.status, run.get_tags()["commandline_args"]) == ("Completed", "-n 50")
    assert PRIMES in submitted.python("2", "results.py")


def test_the_image_of_an_example_is_not_made_again_for_another(submitted: Examples, workspace: Workspace) -> None:
    images = set()
    for number, words in (("2", ["-n", "5"]), ("3", ["-n", "20", "-o", "mine.txt"])):
        submitted.python(number, "sample.py", *words, "--azureml")
        images.add(
            latest(submitted, number, workspace).get_details()["runDefinition"]["environment"]["docker"]["baseImage"]
        )
    (image,) = images
    assert re.search(r"@sha256:[0-9a-f]{64}$", image)
    assert submitted.python("3", "results.py", "-o", "mine.txt").split() == ["2", "3", "5", "7", "11", "13", "17", "19"]


def test_primes_in_an_output_dataset(submitted: Examples, workspace: Workspace) -> None:
    from azureml.core import Dataset

    submitted.python("4", "sample.py", "-n", "10", "--azureml")
    assert submitted.python("4", "results.py").split() == ["2", "3", "5", "7"]
    assert Dataset.get_by_name(workspace, "himl_sample4_output").to_path() == ["/primes.txt"]


def test_flowers_from_a_dataset_that_another_run_wrote(submitted: Examples, workspace: Workspace) -> None:
    assert "150 flowers" in submitted.python("6", "inputs.py", "--azureml")
    assert not (submitted.folder / "6" / "dataset").exists()
    printed = submitted.python("6", "sample.py", "--kernel", "rbf", "--azureml")
    assert "kernel rbf, penalty 1: accuracy 0.9" in printed
    assert "outputs/model.joblib" in latest(submitted, "6", workspace).get_file_names()


def test_flowers_that_were_uploaded_from_here(submitted: Examples) -> None:
    assert "uploaded to himl_sample7_input" in submitted.python("7", "inputs.py")
    assert "accuracy 0.9" in submitted.python("7", "sample.py", "--azureml", "--penalty", "2")


def test_a_search_tries_twelve_and_says_which_is_best(submitted: Examples, workspace: Workspace) -> None:
    submitted.python("8", "inputs.py")
    submitted.python("8", "sample.py", "--azureml")
    search = latest(submitted, "8", workspace)
    children = list(search.get_children())
    assert (search.status, len(children)) == ("Completed", 12)
    tried = {(one.get_metrics()["Kernel type"], one.get_metrics()["Penalty"]) for one in children}
    assert tried <= {(kernel, penalty) for kernel in ("linear", "poly", "rbf", "sigmoid") for penalty in (0.5, 1, 1.5)}
    best = search.get_best_run_by_primary_metric().get_metrics()["Accuracy"]
    lines = submitted.python("8", "results.py").splitlines()
    assert len(lines) == 12
    accuracies = [float(line.split()[0]) for line in lines]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] == pytest.approx(best, abs=0.001)


def test_a_script_that_is_submitted_by_another(submitted: Examples, workspace: Workspace) -> None:
    printed = submitted.python("9", "sample.py", "--cloud", "--epochs", "3")
    run = latest(submitted, "9", workspace)
    assert f"Submitted {run.id}" in printed
    # Said directly after the submission, not after the wait.
    assert printed.index(f"Submitted {run.id}") < printed.index("AzureML completed.")
    assert (run.experiment.name, run.get_tags()["epochs"]) == ("tensorboard_test", "3")
    (line,) = submitted.python("9", "results.py").splitlines()
    folder = submitted.folder / "9" / line.removeprefix("tensorboard --logdir ")
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_a_run_that_writes_for_tensorboard(submitted: Examples, workspace: Workspace, tmp_path: Path) -> None:
    printed = submitted.python("tensorboard", "sample.py", "--points=3", "--pause=0", "--azureml")
    assert "Waiting for" not in printed
    run = latest(submitted, "tensorboard", workspace)
    run.wait_for_completion()
    assert run.experiment.name == "tensorboard_live"
    run.download_files(prefix="outputs/", output_directory=str(tmp_path))
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    assert events.stat().st_size > 0

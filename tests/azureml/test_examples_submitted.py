"""Every example on AzureML: its own submission (``--azureml``), the run's results, and ``himl-container submit``.

Most of a run's time is waiting, so they run side by side, after the first of them has pushed the image of all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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
SUBMIT = ("submit", "--azureml", "--cluster", "cpu-cluster")

Printed = Callable[[str], list[str]]
"""From an example to what its programs printed, once they are done; fails where one of them did."""


@pytest.fixture(scope="module")
def submitted(built_examples: Examples, emulator: Emulator) -> Examples:
    """The examples, with the variables that lead to the emulator's workspace; their image is built."""
    return replace(built_examples, environ={**built_examples.environ, **emulator.variables})


@pytest.fixture(scope="module")
def printed(built_examples: Examples, submitted: Examples) -> Iterator[Printed]:
    def python(number: str, *calls: tuple[str, ...]) -> Callable[[], list[str]]:
        return lambda: [submitted.python(number, *words) for words in calls]

    def plain_script() -> list[str]:
        built_examples.himl("1", "build")
        return [submitted.himl("1", *SUBMIT, "--show-output", "sample.py", "-n", "50")]

    def private_wheel() -> list[str]:
        built_examples.python("5", "make_wheel.py")
        built_examples.himl("5", "run", "--local", "--live", "inputs.py")
        words = ["--wait", "sample.py", "--kernel", "rbf", "--penalty", "10"]
        fetch = ["download", "--prefix", "outputs/", "--output", "results"]
        return [submitted.himl("5", *SUBMIT, *words), submitted.himl("5", *fetch)]

    # The longest one first.
    work: Mapping[str, Callable[[], list[str]]] = {
        "8": python("8", ("inputs.py",), ("sample.py", "--azureml")),
        "5": private_wheel,
        "6": python("6", ("inputs.py", "--azureml"), ("sample.py", "--kernel", "rbf", "--azureml")),
        "7": python("7", ("inputs.py",), ("sample.py", "--azureml", "--penalty", "2")),
        "3": python("3", ("sample.py", "-n", "20", "-o", "mine.txt", "--azureml")),
        "4": python("4", ("sample.py", "-n", "10", "--azureml")),
        "9": python("9", ("sample.py", "--cloud", "--epochs", "3")),
        "tensorboard": python("tensorboard", ("sample.py", "--points=3", "--pause=0", "--azureml")),
        "1": plain_script,
    }
    results: dict[str, Future[list[str]]] = {}
    with ThreadPoolExecutor(3) as pool:
        try:
            results["2"] = pool.submit(python("2", ("sample.py", "-n", "50", "--azureml")))
            results["2"].exception()
            results.update({number: pool.submit(one) for number, one in work.items()})
            yield lambda number: results[number].result()
        finally:
            pool.shutdown(cancel_futures=True)


def latest(examples: Examples, number: str, workspace: Workspace) -> Run:
    """The run that an example submitted last, by the file that it wrote."""
    experiment, _, run_id = (examples.folder / number / "most_recent_run.txt").read_text().partition(":")
    run = workspace.get_run(run_id)
    assert run.experiment.name == experiment
    return run


def image(examples: Examples, number: str, workspace: Workspace) -> str:
    """The image of the run that an example submitted last."""
    definition = latest(examples, number, workspace).get_details()["runDefinition"]
    return str(definition["environment"]["docker"]["baseImage"])


def test_primes(submitted: Examples, printed: Printed, workspace: Workspace) -> None:
    (text,) = printed("2")
    assert "This command will be run in AzureML: sample.py -n 50\n" in text
    # Printed by the run, whose log is shown while we wait; what comes after the call is not done here.
    assert text.count(PRIMES) == 1
    assert text.rstrip().endswith("AzureML completed.")
    run = latest(submitted, "2", workspace)
    assert (run.status, run.get_tags()["commandline_args"]) == ("Completed", "-n 50")
    assert PRIMES in submitted.python("2", "results.py")


def test_primes_in_an_output_file(submitted: Examples, printed: Printed) -> None:
    assert "8 primes below 20 are in outputs/mine.txt" in printed("3")[0]
    assert submitted.python("3", "results.py", "-o", "mine.txt").split() == ["2", "3", "5", "7", "11", "13", "17", "19"]


def test_the_image_of_an_example_is_not_made_again_for_another(
    submitted: Examples, printed: Printed, workspace: Workspace
) -> None:
    printed("3")
    assert re.search(r"@sha256:[0-9a-f]{64}$", image(submitted, "2", workspace))
    assert image(submitted, "3", workspace) == image(submitted, "2", workspace)


def test_primes_in_an_output_dataset(submitted: Examples, printed: Printed, workspace: Workspace) -> None:
    from azureml.core import Dataset

    printed("4")
    assert submitted.python("4", "results.py").split() == ["2", "3", "5", "7"]
    assert Dataset.get_by_name(workspace, "himl_sample4_output").to_path() == ["/primes.txt"]


def test_flowers_from_a_dataset_that_another_run_wrote(
    submitted: Examples, printed: Printed, workspace: Workspace
) -> None:
    written, trained = printed("6")
    assert "150 flowers" in written
    assert not (submitted.folder / "6" / "dataset").exists()
    assert "kernel rbf, penalty 1: accuracy 0.9" in trained
    assert "outputs/model.joblib" in latest(submitted, "6", workspace).get_file_names()


def test_flowers_that_were_uploaded_from_here(printed: Printed) -> None:
    uploaded, trained = printed("7")
    assert "uploaded to himl_sample7_input" in uploaded
    assert "penalty 2: accuracy 0.9" in trained


def test_a_script_that_is_submitted_by_another(submitted: Examples, printed: Printed, workspace: Workspace) -> None:
    (text,) = printed("9")
    run = latest(submitted, "9", workspace)
    # Said directly after the submission, not after the wait.
    assert text.index(f"Submitted {run.id}") < text.index("AzureML completed.")
    assert (run.experiment.name, run.get_tags()["epochs"]) == ("tensorboard_test", "3")
    (line,) = submitted.python("9", "results.py").splitlines()
    folder = submitted.folder / "9" / line.removeprefix("tensorboard --logdir ")
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1


def test_a_run_that_writes_for_tensorboard(
    submitted: Examples, printed: Printed, workspace: Workspace, tmp_path: Path
) -> None:
    assert "Waiting for" not in printed("tensorboard")[0]
    run = latest(submitted, "tensorboard", workspace)
    run.wait_for_completion()
    assert run.experiment.name == "tensorboard_live"
    run.download_files(prefix="logs/", output_directory=str(tmp_path))
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    assert events.stat().st_size > 0


def test_a_script_that_knows_nothing_of_azureml(submitted: Examples, printed: Printed, workspace: Workspace) -> None:
    assert printed("1")[0].count(PRIMES) == 1
    assert latest(submitted, "1", workspace).status == "Completed"


def test_the_same_by_hi_mls_own_program(submitted: Examples, printed: Printed, workspace: Workspace) -> None:
    printed("1")
    words = ["-c", "cpu-cluster", "-t", "sample.py", "--azureml", "--", "-n", "50"]
    assert "Successfully queued run" in submitted.python("1", "-m", "health_azure.himl", *words)
    run = latest(submitted, "1", workspace)
    assert run.wait_for_completion()["status"] == "Completed"
    assert run.get_tags()["commandline_args"] == "-n 50"


def test_a_private_wheel_and_data_in_the_snapshot(submitted: Examples, printed: Printed) -> None:
    printed("5")
    measures = json.loads((submitted.folder / "5" / "results" / "outputs" / "measures.json").read_text())
    assert measures["kernel"] == "rbf"
    assert measures["accuracy"] > 0.9


def test_a_search_tries_twelve_and_says_which_is_best(
    submitted: Examples, printed: Printed, workspace: Workspace
) -> None:
    printed("8")
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

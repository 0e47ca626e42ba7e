"""The example of low priority: its machine is taken away twice, and it ends with the weights that it would have had."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from example_folders import Examples
from job_image import environment_of, error_of, submitter, text_of, wait, wait_for

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = [pytest.mark.docker, pytest.mark.slow]

EPOCHS = 24
BATCHES = 8


@dataclass(frozen=True)
class Whole:
    """A training that nobody interrupted.

    :param seconds: from the start of the command to its end.
    """

    weights: Any
    seconds: float


def run_local(examples: Examples, image: str, *words: str) -> Path:
    """Run the example in a container, and return its run folder."""
    examples.himl("low_priority", "run", "--local", "--image", image, *words)
    return (examples.folder / "low_priority" / "runs" / "latest").resolve()


@pytest.fixture(scope="module")
def whole(examples: Examples, torch_image: str) -> Whole:
    begun = time.monotonic()
    folder = run_local(examples, torch_image, "sample.py", f"--epochs={EPOCHS}")
    seconds = time.monotonic() - begun
    return Whole(json.loads((folder / "outputs" / "weights.json").read_text()), seconds)


def test_preempted_twice_on_this_machine(examples: Examples, torch_image: str, whole: Whole) -> None:
    # Each time it has half as long again as the whole training took, without its pauses, so that it comes to a
    # checkpoint on a busy machine too; and the pauses alone take longer than what it has before the second kill.
    given = 1.5 * whole.seconds + 2
    pause = 2 * given / (EPOCHS * BATCHES)
    times = f"{given:.1f}s,{given:.1f}s"
    folder = run_local(examples, torch_image, "--preempt", times, "sample.py", f"--epochs={EPOCHS}", f"--pause={pause}")
    user_logs = folder / "user_logs"
    assert sorted(path.name for path in user_logs.iterdir()) == ["retry_001", "retry_002", "std_log.txt"]
    first, last = ((user_logs / name).read_text() for name in ("std_log.txt", "retry_002/std_log.txt"))
    assert "Starting from the beginning" in first
    assert "Starting from outputs/checkpoints/recovery_epoch=" in last
    assert "Trained" not in first
    assert f"Trained {EPOCHS} epochs" in last
    assert json.loads((folder / "outputs" / "weights.json").read_text()) == whole.weights


@pytest.mark.emulator
def test_preempted_twice_on_a_cluster_of_low_priority(
    emulator: Emulator, workspace: Workspace, examples: Examples, torch_image: str, whole: Whole, tmp_path: Path
) -> None:
    script = (examples.folder / "low_priority" / "sample.py").read_text()
    submit = submitter(workspace, environment_of(torch_image, "low-priority"), tmp_path)
    run = submit(script, compute_target="low-priority", arguments=["--epochs", EPOCHS, "--pause", 0.2])

    def losses() -> list[float]:
        found = run.get_metrics("loss").get("loss", [])
        return found if isinstance(found, list) else [found]

    def has_begun(words: str) -> bool:
        try:
            return words in text_of(run)
        except Exception:  # noqa: BLE001  # the SDK's many: there is no log yet, or it is being begun again
            return False

    seen: list[float] = []
    # Only a start that runs can be preempted: what the one before has logged since the last look is not of this one.
    for words in ("Starting from the beginning", "Starting from outputs/checkpoints/recovery_epoch="):
        wait_for(lambda words=words: has_begun(words), seconds=180)
        wanted = len(losses()) + 2
        wait_for(lambda wanted=wanted: len(losses()) >= wanted, seconds=180)
        seen = losses()
        emulator.cli("preempt", run.id)
    assert wait(run, seconds=180) == "Completed", error_of(run)
    assert json.loads(text_of(run, "outputs/weights.json")) == whole.weights
    assert "Starting from outputs/checkpoints/recovery_epoch=" in text_of(run)
    # What had arrived before a kill is still there, and was appended to.
    assert losses()[: len(seen)] == seen
    assert len(losses()) > len(seen)
    assert run.get_metrics("hyperparams")["hyperparams"]["pause"]
    kept = [name for name in run.get_file_names() if name.startswith("outputs/checkpoints/recovery_")]
    assert {f"outputs/checkpoints/recovery_epoch={EPOCHS - 1}.ckpt"} <= set(kept)


def test_two_machines_find_each_other(examples: Examples, torch_image: str) -> None:
    folder = run_local(examples, torch_image, "--nodes", "2", "sample.py", "--nodes", "2", "--epochs", "2")
    logs = [(folder / "user_logs" / f"std_log_process_{rank:02d}.txt").read_text() for rank in range(2)]
    found = [
        re.search(r"Distributed training: MASTER_ADDR = (\S+), MASTER_PORT = 6105, NODE_RANK = (\d)", log)
        for log in logs
    ]
    assert all(found)
    assert [match[2] for match in found if match] == ["0", "1"]
    assert len({match[1] for match in found if match}) == 1
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in logs[1]
    assert ["Trained 2 epochs" in log for log in logs] == [True, False]
    assert (folder / "outputs" / "checkpoints" / "recovery_epoch=1.ckpt").is_file()

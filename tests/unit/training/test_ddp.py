"""Two processes that train together (DDP over gloo)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kit
import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "ddp_script.py"


def train(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Run the script, and return what each process saw and what they printed."""
    done = subprocess.run(
        [sys.executable, SCRIPT, folder],
        env=kit.clean_environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(2)], done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]], str]:
    folder = tmp_path_factory.mktemp("ddp")
    return folder, *train(folder)


def test_metrics_of_all_processes_become_one(trained: tuple[Path, list[dict[str, Any]], str]) -> None:
    """Two steps in each process: 0 and 1 in the first, 10 and 11 in the second."""
    _, (first, second), _ = trained
    for seen in (first, second):
        metrics = seen["metrics"]
        assert metrics["number"] == metrics["tensor"] == metrics["int"] == 5.5
        expected = {
            # How the processes become one, then how the steps do: (0, 10) and (1, 11) have the means 5 and 6, ...
            "mean": {"mean": 5.5, "sum": 11, "max": 6, "min": 5},
            # ... and the sums 10 and 12.
            "sum": {"mean": 11, "sum": 22, "max": 12, "min": 10},
        }
        for reduce_fx in ("mean", "sum", "max", "min"):
            for operation in ("mean", "sum", "avg", None):
                kind = "sum" if operation == "sum" else "mean"
                assert metrics[f"{reduce_fx} {operation}"] == expected[kind][reduce_fx], (reduce_fx, operation)
    assert [seen["metrics"]["mine"] for seen in (first, second)] == [0.5, 10.5]
    losses = first["losses"][2:] + second["losses"][2:]
    assert first["metrics"]["train/loss"] == pytest.approx(sum(losses) / 4)
    assert first["metrics"]["learning_rate"] == pytest.approx(0.01)


def test_only_the_first_process_writes(trained: tuple[Path, list[dict[str, Any]], str]) -> None:
    _, (first, second), printed = trained
    assert [value for name, value, _ in first["logged"] if name == "number"] == [5.5, 5.5]
    assert any(name == "timing/train/batch_time [sec] max" for name, _, _ in first["logged"])
    assert second["logged"] == []
    assert not any(name.startswith("timing/") for name in second["metrics"])
    assert printed.count("Training epoch 1 (step 4):    2/2 (100%) completed.") == 1
    assert [seen["ranks"] for seen in (first, second)] == [[True, True], [False, False]]
    # Only what is logged of one process, and what is summed already, is not synchronised.
    advised = {line.split("`self.log(")[1].split(",")[0] for line in printed.splitlines() if "sync_dist=True" in line}
    assert advised <= {"'mine'", *(f"'sum {operation}'" for operation in ("mean", "avg", None))}


def test_each_process_goes_on_with_its_own_random_numbers(trained: tuple[Path, list[dict[str, Any]], str]) -> None:
    import torch

    folder, before, _ = trained
    assert sorted(path.name for path in (folder / "recovery").iterdir()) == [
        "recovery_epoch=0.ckpt",
        "recovery_epoch=1.ckpt",
    ]
    states = torch.load(folder / "recovery" / "recovery_epoch=1.ckpt", weights_only=True)["callbacks"][
        "RecoveryCheckpoint"
    ]["random"]
    after, _ = train(folder)
    for rank, state in enumerate(states):
        torch.set_rng_state(state["torch"])
        # What the loader of the next epoch draws for its workers.
        torch.empty((), dtype=torch.int64).random_()
        assert after[rank]["draws"] == torch.rand(2).tolist()
    assert before[0]["draws"] != before[1]["draws"]

"""Train a support vector classifier; with ``--azureml`` twelve of them, to find the best kernel and penalty."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from health_azure import submit_to_azure_if_needed

if TYPE_CHECKING:
    from azureml.train.hyperdrive import HyperDriveConfig

CLUSTER = "cpu-cluster"
"""A cluster of your workspace."""


def search() -> HyperDriveConfig:
    """Return the search: twelve runs, four at a time, each with a kernel and a penalty drawn at random."""
    # Only who submits needs this package; the runs do not.
    from azureml.core import ScriptRunConfig
    from azureml.train.hyperdrive import HyperDriveConfig, PrimaryMetricGoal, RandomParameterSampling, choice

    space = {"--kernel": choice("linear", "poly", "rbf", "sigmoid"), "--penalty": choice(0.5, 1, 1.5)}
    return HyperDriveConfig(
        # Its place is taken by this script.
        run_config=ScriptRunConfig(source_directory=""),
        hyperparameter_sampling=RandomParameterSampling(space),
        primary_metric_name="Accuracy",
        primary_metric_goal=PrimaryMetricGoal.MAXIMIZE,
        max_total_runs=12,
        max_concurrent_runs=4,
    )


def train(folder: Path, kernel: str, penalty: float) -> tuple[SVC, float]:
    """Return a classifier that has seen seven tenths of the flowers, and how many of the others it recognises."""
    measurements = np.loadtxt(folder / "X.csv", delimiter=",", skiprows=1)
    species = np.loadtxt(folder / "Y.csv", delimiter=",", skiprows=1)
    train_x, test_x, train_y, test_y = train_test_split(measurements, species, test_size=0.3, random_state=0)
    model = SVC(kernel=kernel, C=penalty).fit(train_x, train_y)
    return model, float(model.score(test_x, test_y))


def main() -> None:
    """Read the command line, train, and tell AzureML how well it went."""
    run_info = submit_to_azure_if_needed(
        compute_cluster_name=CLUSTER,
        hyperdrive_config=search() if "--azureml" in sys.argv else None,
        wait_for_completion=True,
        wait_for_completion_show_output=True,
    )
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default="linear", choices=("linear", "poly", "rbf", "sigmoid"), help="kernel type")
    parser.add_argument("--penalty", type=float, default=1.0, help="penalty of the error term (default: 1)")
    args = parser.parse_args()

    _, accuracy = train(Path("dataset"), args.kernel, args.penalty)
    print(f"kernel {args.kernel}, penalty {args.penalty:g}: accuracy {accuracy:.3f}")
    if run_info.run is not None:
        run_info.run.log("Kernel type", args.kernel)
        run_info.run.log("Penalty", args.penalty)
        run_info.run.log("Accuracy", accuracy)


if __name__ == "__main__":
    main()

"""Train a support vector classifier on the dataset that a run of ``inputs.py`` wrote in AzureML."""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from health_azure import submit_to_azure_if_needed

CLUSTER = "cpu-cluster"
"""A cluster of your workspace."""

DATASTORE = "workspaceblobstore"
"""The datastore that every workspace has."""

DATASET = "himl_sample6_input"


def train(folder: Path, kernel: str, penalty: float) -> tuple[SVC, float]:
    """Return a classifier that has seen seven tenths of the flowers, and how many of the others it recognises."""
    measurements = np.loadtxt(folder / "X.csv", delimiter=",", skiprows=1)
    species = np.loadtxt(folder / "Y.csv", delimiter=",", skiprows=1)
    train_x, test_x, train_y, test_y = train_test_split(measurements, species, test_size=0.3, random_state=0)
    model = SVC(kernel=kernel, C=penalty).fit(train_x, train_y)
    return model, float(model.score(test_x, test_y))


def main() -> None:
    """Read the command line, train, and write the model to ``outputs/``."""
    run_info = submit_to_azure_if_needed(
        compute_cluster_name=CLUSTER,
        default_datastore=DATASTORE,
        input_datasets=[DATASET],
        wait_for_completion=True,
        wait_for_completion_show_output=True,
    )
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", default="linear", choices=("linear", "poly", "rbf", "sigmoid"), help="kernel type")
    parser.add_argument("--penalty", type=float, default=1.0, help="penalty of the error term (default: 1)")
    args = parser.parse_args()

    # In AzureML, where the dataset was downloaded to; elsewhere None, and the folder of inputs.py takes its place.
    folder = run_info.input_datasets[0] or Path("dataset")
    model, accuracy = train(folder, args.kernel, args.penalty)
    print(f"kernel {args.kernel}, penalty {args.penalty:g}: accuracy {accuracy:.3f}")
    joblib.dump(model, run_info.output_folder / "model.joblib")


if __name__ == "__main__":
    main()

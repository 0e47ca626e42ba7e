"""Write the iris data set as two CSV files into an output dataset, which ``sample.py`` then reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris  # part of scikit-learn: nothing is downloaded

from health_azure import submit_to_azure_if_needed

CLUSTER = "cpu-cluster"
"""A cluster of your workspace."""

DATASTORE = "workspaceblobstore"
"""The datastore that every workspace has."""

DATASET = "himl_sample6_input"


def write_iris(folder: Path) -> None:
    """Write ``X.csv`` (four measurements of each flower) and ``Y.csv`` (the species, a number from 0)."""
    iris = load_iris()
    folder.mkdir(parents=True, exist_ok=True)
    columns = ",".join(name.removesuffix(" (cm)").replace(" ", "_") for name in iris.feature_names)
    np.savetxt(folder / "X.csv", iris.data, delimiter=",", header=columns, comments="", fmt="%g")
    np.savetxt(folder / "Y.csv", iris.target, delimiter=",", header="species", comments="", fmt="%d")
    print(f"{len(iris.target)} flowers are in X.csv and Y.csv")


def main() -> None:
    """Write the files: in AzureML to blob storage, elsewhere to the folder ``dataset``."""
    run_info = submit_to_azure_if_needed(
        compute_cluster_name=CLUSTER,
        default_datastore=DATASTORE,
        output_datasets=[DATASET],
        wait_for_completion=True,
        wait_for_completion_show_output=True,
    )
    write_iris(run_info.output_datasets[0] or Path("dataset"))


if __name__ == "__main__":
    main()

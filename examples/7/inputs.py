"""Write the iris data set as two CSV files here, and upload them to blob storage, where ``sample.py`` reads them."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris  # part of scikit-learn: nothing is downloaded

from health_azure import upload_to_datastore

DATASTORE = "workspaceblobstore"
"""The datastore that every workspace has."""

DATASET = "himl_sample7_input"
"""A folder in the datastore. A dataset of that name is made of it when a run first asks for it."""

FOLDER = Path("dataset")


def write_iris(folder: Path) -> None:
    """Write ``X.csv`` (four measurements of each flower) and ``Y.csv`` (the species, a number from 0)."""
    iris = load_iris()
    folder.mkdir(parents=True, exist_ok=True)
    columns = ",".join(name.removesuffix(" (cm)").replace(" ", "_") for name in iris.feature_names)
    np.savetxt(folder / "X.csv", iris.data, delimiter=",", header=columns, comments="", fmt="%g")
    np.savetxt(folder / "Y.csv", iris.target, delimiter=",", header="species", comments="", fmt="%d")
    print(f"{len(iris.target)} flowers are in X.csv and Y.csv")


def main() -> None:
    """Write the files, and upload them unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-upload", action="store_true", help="only write the files")
    args = parser.parse_args()

    write_iris(FOLDER)
    if not args.no_upload:
        upload_to_datastore(DATASTORE, FOLDER, Path(DATASET), overwrite=True)
        print(f"They are uploaded to {DATASET} of {DATASTORE}")


if __name__ == "__main__":
    main()

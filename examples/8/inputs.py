"""Write the iris data set as two CSV files into the folder ``dataset``, which goes along with ``sample.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris  # part of scikit-learn: nothing is downloaded


def write_iris(folder: Path) -> None:
    """Write ``X.csv`` (four measurements of each flower) and ``Y.csv`` (the species, a number from 0)."""
    iris = load_iris()
    folder.mkdir(parents=True, exist_ok=True)
    columns = ",".join(name.removesuffix(" (cm)").replace(" ", "_") for name in iris.feature_names)
    np.savetxt(folder / "X.csv", iris.data, delimiter=",", header=columns, comments="", fmt="%g")
    np.savetxt(folder / "Y.csv", iris.target, delimiter=",", header="species", comments="", fmt="%d")
    print(f"{len(iris.target)} flowers are in X.csv and Y.csv")


if __name__ == "__main__":
    write_iris(Path("dataset"))

"""Write the iris data set as two CSV files: the measurements of 150 flowers, and the species of each."""

from __future__ import annotations

import argparse
from pathlib import Path

from irislib import write_table
from sklearn.datasets import load_iris  # part of scikit-learn: nothing is downloaded


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("data"), help="folder for the files (default: data)")
    args = parser.parse_args()

    iris = load_iris()
    args.output.mkdir(parents=True, exist_ok=True)
    columns = [name.removesuffix(" (cm)").replace(" ", "_") for name in iris.feature_names]
    write_table(args.output / "X.csv", columns, iris.data)
    write_table(args.output / "Y.csv", ["species"], iris.target)
    print(f"{len(iris.target)} flowers are in {args.output}/X.csv and {args.output}/Y.csv")


if __name__ == "__main__":
    main()

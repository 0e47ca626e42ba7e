"""Train a support vector classifier on the CSV files that ``inputs.py`` writes, and say how well it does."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import joblib
from irislib import confusion, read_table
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

OUTPUTS = Path("outputs")


def main() -> None:
    """Read the command line, train, and write the model and its measures to ``outputs/``."""
    parser = argparse.ArgumentParser(description=__doc__)
    # A dataset that is mounted under the name "iris" is announced by this variable, here as in the cloud.
    data = os.environ.get("AZURE_ML_INPUT_iris", "data")  # noqa: SIM112 - the name is as the dataset is called
    parser.add_argument("--data", type=Path, default=Path(data), help=f"folder of X.csv and Y.csv (default: {data})")
    parser.add_argument("--kernel", default="linear", choices=("linear", "poly", "rbf", "sigmoid"), help="kernel type")
    parser.add_argument("--penalty", type=float, default=1.0, help="penalty of the error term (default: 1)")
    args = parser.parse_args()

    _, measurements = read_table(args.data / "X.csv")
    _, species = read_table(args.data / "Y.csv")
    train_x, test_x, train_y, test_y = train_test_split(measurements, species[:, 0], test_size=0.3, random_state=0)

    model = SVC(kernel=args.kernel, C=args.penalty).fit(train_x, train_y)
    found = model.predict(test_x)
    accuracy = float((found == test_y).mean())
    table = confusion(test_y, found)
    print(f"kernel {args.kernel}, penalty {args.penalty:g}: {accuracy:.1%} of {len(test_y)} flowers are recognised")
    print(table)

    OUTPUTS.mkdir(exist_ok=True)
    joblib.dump(model, OUTPUTS / "model.joblib")
    measures = {"kernel": args.kernel, "penalty": args.penalty, "accuracy": accuracy, "confusion": table.tolist()}
    (OUTPUTS / "measures.json").write_text(json.dumps(measures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

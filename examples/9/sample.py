"""Submit another script, and only where the flag ``--cloud`` asks for it.

The scripts before decide by hi-ml's own flag ``--azureml``, and submit themselves. This one has a parser of its own,
which knows the answer before anything is submitted, and submits ``training.py``, which needs no change for that.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from health_azure import submit_to_azure_if_needed

CLUSTER = "cpu-cluster"
"""A cluster of your workspace."""

TRAINING = Path(__file__).resolve().parent / "training.py"


def main() -> None:
    """Run the training in AzureML, or here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cloud", action="store_true", help="train in AzureML")
    parser.add_argument("--epochs", type=int, default=20, help="how many there are (default: 20)")
    args = parser.parse_args()

    training_arguments = ["--epochs", str(args.epochs)]
    submit_to_azure_if_needed(
        compute_cluster_name=CLUSTER,
        entry_script=TRAINING,
        snapshot_root_directory=TRAINING.parent,
        script_params=training_arguments,
        experiment_name="tensorboard_test",
        tags={"epochs": str(args.epochs)},
        after_submission=lambda run: print(f"Submitted {run.id}"),
        submit_to_azureml=args.cloud,
        wait_for_completion=True,
    )
    # Only reached without --cloud: who submits ends there.
    subprocess.run([sys.executable, TRAINING, *training_arguments], check=True)


if __name__ == "__main__":
    main()

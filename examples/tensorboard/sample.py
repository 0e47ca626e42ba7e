"""Write a curve point by point, so that ``himl-tb`` can show the run in TensorBoard while it goes on."""

from __future__ import annotations

import argparse
import math
import time

from tensorboardX import SummaryWriter

from health_azure import submit_to_azure_if_needed

CLUSTER = "cpu-cluster"
"""A cluster of your workspace."""


def main() -> None:
    """Read the command line and write the points."""
    # Nothing is waited for: this terminal is then free for himl-tb.
    run_info = submit_to_azure_if_needed(compute_cluster_name=CLUSTER, experiment_name="tensorboard_live")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=60, help="how many there are (default: 60)")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two (default: 1)")
    args = parser.parse_args()

    # himl-tb looks into "logs" by default. What is there is uploaded while the run goes on.
    with SummaryWriter(str(run_info.logs_folder), flush_secs=1) as writer:
        for step in range(args.points):
            writer.add_scalar("wave", math.sin(step / 10), step)
            writer.flush()
            time.sleep(args.pause)
    print(f"{args.points} points are in logs")


if __name__ == "__main__":
    main()

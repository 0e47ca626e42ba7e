"""Show how the runs of the latest search did, the best one first."""

from __future__ import annotations

from pathlib import Path

from health_azure import get_most_recent_run, get_workspace


def main() -> None:
    """Find the search by the file that its submission wrote, and print the metrics of its runs."""
    search = get_most_recent_run(Path("most_recent_run.txt"), get_workspace())
    measured = [run.get_metrics() for run in search.get_children()]
    for metrics in sorted((one for one in measured if "Accuracy" in one), key=lambda one: -one["Accuracy"]):
        print(f"{metrics['Accuracy']:.3f}  kernel {metrics['Kernel type']}, penalty {metrics['Penalty']:g}")


if __name__ == "__main__":
    main()

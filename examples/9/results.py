"""Download what the latest run of ``training.py`` wrote for TensorBoard; ``tensorboard --logdir`` then shows it."""

from __future__ import annotations

from pathlib import Path

from health_azure import download_files_from_run_id, get_most_recent_run, get_workspace

RESULTS = Path("results")


def main() -> None:
    """Find the run by the file that its submission wrote, and fetch its event files."""
    workspace = get_workspace()
    run = get_most_recent_run(Path("most_recent_run.txt"), workspace)
    download_files_from_run_id(run.id, RESULTS, prefix="outputs/tensorboard/", workspace=workspace)
    for path in sorted(RESULTS.rglob("events.out.tfevents.*")):
        print(f"tensorboard --logdir {path.parent}")


if __name__ == "__main__":
    main()

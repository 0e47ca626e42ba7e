"""Download what the latest run of ``sample.py`` printed in AzureML, and show it."""

from __future__ import annotations

from pathlib import Path

from health_azure import download_files_from_run_id, get_most_recent_run, get_workspace

RESULTS = Path("results")
LOG = "user_logs/std_log.txt"
"""Where AzureML keeps what a script prints."""


def main() -> None:
    """Find the run by the file that its submission wrote, and fetch its log."""
    workspace = get_workspace()
    run = get_most_recent_run(Path("most_recent_run.txt"), workspace)
    download_files_from_run_id(run.id, RESULTS, prefix=LOG, workspace=workspace)
    print((RESULTS / LOG).read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()

"""Say something, here or in Azure Machine Learning: ``python elevate_this.py --message hello [--azureml]``.

``config.json`` (the workspace) and ``environment.yml`` are looked for in the current folder and those above it.
"""

from __future__ import annotations

import argparse

from health_azure import submit_to_azure_if_needed

CLUSTER = "cpu-cluster"
"""Put the name of your own cluster here."""


def main() -> None:
    """Go to AzureML if the command line says so; there, and here without the flag, print the message."""
    submit_to_azure_if_needed(
        compute_cluster_name=CLUSTER, wait_for_completion=True, wait_for_completion_show_output=True
    )
    parser = argparse.ArgumentParser(description="Say something, here or in Azure Machine Learning.")
    parser.add_argument("-m", "--message", required=True, help="what is said")
    arguments = parser.parse_args()
    print(arguments.message)  # noqa: T201 - the purpose of the example


if __name__ == "__main__":
    main()

"""What tests of environments and images share: definitions, and waiting for builds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azureml.core import Environment, Workspace


def registry_of(workspace: Workspace) -> str:
    """The address of the workspace's registry."""
    return f"{workspace.get_details()['containerRegistry'].rpartition('/')[2]}.azurecr.io"


def by_image(name: str, image: str = "python:3.11", interpreter: str = "python") -> Environment:
    """An environment that is an image as it is."""
    from azureml.core import Environment

    made = Environment.from_docker_image(name, image)
    made.python.interpreter_path = interpreter
    return made


def built(environment: Environment, workspace: Workspace, seconds: float = 300) -> tuple[str, str]:
    """Build an environment's image; returns the status with which that ended, and the log."""
    build: Any = environment.build(workspace)
    end = time.monotonic() + seconds
    # The SDK's own waiting looks every five seconds.
    while build.status == "Running":
        assert time.monotonic() < end, build.get_log()
        time.sleep(0.05)
    return build.wait_for_completion(show_output=False).status, build.get_log()

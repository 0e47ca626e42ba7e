"""The tool's own image, used as CI would use it: a container that works through the daemon's socket."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import kit
import pytest

pytestmark = [pytest.mark.docker, pytest.mark.network, pytest.mark.slow]

SOCKET = Path("/var/run/docker.sock")
needs_socket = pytest.mark.skipif(
    bool(os.environ.get("DOCKER_HOST")) or not SOCKET.exists(), reason=f"the engine is not at {SOCKET}"
)


def docker(*arguments: str | Path, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=900)
    assert expect is None or done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def tool_image(base_image: str) -> Iterator[str]:
    tag = f"himl-test-tool:{uuid.uuid4().hex[:12]}"
    subprocess.run(
        [kit.ROOT / "scripts" / "tool_image.sh", tag],
        env={**os.environ, "BASE": base_image},
        check=True,
        timeout=900,
    )
    yield tag
    docker("image", "rm", "--force", tag, expect=None)


def test_the_image_is_the_command(tool_image: str) -> None:
    version = docker("run", "--rm", "--network", "none", tool_image, "version").stdout
    assert version.startswith("himl-container ")
    assert "Usage: himl-container" in docker("run", "--rm", "--network", "none", tool_image).stdout


@needs_socket
def test_it_builds_and_runs_through_the_socket(
    tool_image: str, base_image: str, channel: Path, project: kit.ProjectFolder, image_name: str
) -> None:
    project.environment("python", "tinytool")
    project.write(
        "sample.py", "import sys, tinylib\nopen('outputs/it.txt', 'w').write(str(tinylib.double(21)))\nsys.exit(3)\n"
    )
    variables = {
        "HIML_CONTAINER_CHANNEL_MIRRORS": f"conda-forge={channel.as_uri()}",
        "HIML_CONTAINER_BASE_IMAGE": base_image,
        "HIML_CONTAINER_IMAGE_NAME": image_name,
    }
    # One path inside and outside: what the tool mounts into a container is looked up by the daemon, outside.
    folders = [f"--volume={folder}:{folder}" for folder in (SOCKET, channel, project.path)]
    tool = [
        *("run", "--rm", "--network", "none", *folders, f"--workdir={project.path}"),
        *(f"--env={name}={value}" for name, value in variables.items()),
        tool_image,
    ]
    docker(*tool, "build")
    assert docker("image", "ls", "--quiet", image_name).stdout.split()
    docker(*tool, "run", "--local", "sample.py", expect=3)
    assert (project.path / "runs" / "latest" / "outputs" / "it.txt").read_text() == "42"

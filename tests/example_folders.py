"""The examples as a reader has them, in a copy, with one image for all that share an environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import job_wheel
import kit
import pytest

SHARED = ("2", "3", "4", "6", "7", "8", "9", "tensorboard")
"""The examples that have one environment."""

_AT_START = kit.clean_environ()
"""This process's variables before a test was led to the emulator."""

LEFT_BEHIND = (
    *("__pycache__", "data", "dataset", "logs", "outputs", "results", "runs", "wheels"),
    *("most_recent_run.txt", "pylock.himl.toml"),
)
"""What somebody who tried the examples has in their folders."""


@dataclass(frozen=True)
class Examples:
    """A copy of the examples.

    :param environ: all variables of the programs that are run in it; none of the emulator's.
    """

    folder: Path
    environ: Mapping[str, str]

    def python(self, example: str, script: str, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Run a script of an example with plain Python to its good end, and return what it printed."""
        done = subprocess.run(
            [sys.executable, script, *arguments],
            cwd=self.folder / example,
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{example}/{script} {arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def himl(self, example: str, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Run ``himl-container`` in an example's folder to its good end, and return what it printed."""
        return kit.Cli(self.folder / example, self.environ)(*arguments, environ=environ, timeout=900).stdout


@pytest.fixture(scope="session")
def examples(package_sources: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    """The examples, with the private wheels that they name; nothing is locked or built."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(kit.ROOT / "examples", folder, ignore=shutil.ignore_patterns(*LEFT_BEHIND), dirs_exist_ok=True)
    job_wheel.write(folder / "wheels")
    name = f"himl-test-{uuid.uuid4().hex[:12]}"
    yield Examples(folder, {**_AT_START, **package_sources, "HIML_CONTAINER_IMAGE_NAME": name})
    if not kit.engine_problem():
        kit.remove_images(name)


@pytest.fixture(scope="session")
def built_examples(examples: Examples) -> Examples:
    """The examples, with the image of those that share one; a lock is made once."""
    examples.himl("2", "build")
    lock = examples.folder / "2" / "pylock.himl.toml"
    for other in SHARED[1:]:
        shutil.copyfile(lock, examples.folder / other / lock.name)
    return examples

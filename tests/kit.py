"""What tests share: the offline kit, running the command line, and writing small projects."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import docker

ROOT = Path(__file__).resolve().parent.parent

COMMAND = Path(sys.executable).parent / "himl-container"
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


@functools.lru_cache(maxsize=1)
def engine_problem() -> str:
    """Return an empty text, or why no Docker engine can be used."""
    import docker
    from docker.errors import DockerException

    from himl_container.errors import HimlError
    from himl_container.image.endpoint import resolve_endpoint

    try:
        client = docker.DockerClient(base_url=resolve_endpoint(os.environ).url, timeout=60)
        client.ping()
        client.close()
    except (DockerException, HimlError, OSError) as error:
        return f"no Docker engine answers ({error}); scripts/setup.sh starts or installs one"
    return ""


def image_names(client: docker.DockerClient, repository: str) -> list[str]:
    """Return the names (``repository:tag``, ``repository@digest``) that a daemon has in one repository.

    An image has as many names as anybody gave it: equal environments of two tests are one image, so those in other
    repositories, which come along when an image is asked for, are of another test or of the machine's user.

    :param repository: the name, or a pattern of Docker's (``*/name``: in any registry).
    """
    found = client.api.images(filters={"reference": repository})
    names = [name for image in found for key in ("RepoTags", "RepoDigests") for name in image.get(key) or ()]
    return [name for name in names if fnmatchcase(_repository_of(name), repository) and "<none>" not in name]


def remove_images(repository: str) -> None:
    """Remove the names that the daemon has in a repository, here and in every registry."""
    import docker
    from docker.errors import DockerException

    from himl_container.image.endpoint import resolve_endpoint

    # A large image takes a busy disk a while, and a time limit is no error of Docker's.
    with contextlib.closing(docker.DockerClient(base_url=resolve_endpoint(os.environ).url, timeout=300)) as client:
        for name in (*image_names(client, repository), *image_names(client, f"*/{repository}")):
            with contextlib.suppress(DockerException):
                client.images.remove(name, force=True)


def _repository_of(name: str) -> str:
    return name.partition("@")[0] if "@" in name else name.rpartition(":")[0]


def lacking(what: str) -> NoReturn:
    """End a test that lacks something: a failure in CI, where everything has to be there, a skip elsewhere."""
    import pytest

    if IN_CI:
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@dataclass(frozen=True)
class Cli:
    """``himl-container`` in an environment of its own: no setting of this machine's user reaches it.

    :param environ: variables beside those that the machine needs (search path, proxies, certificates).
    """

    cwd: Path
    environ: Mapping[str, str]

    def __call__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
        timeout: float = 600,
        expect: int | None = 0,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end without a terminal and without standard input.

        :param expect: the exit code that the test needs; None when the test looks itself.
        """
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=cwd or self.cwd,
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        shown = f"himl-container {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"
        assert expect is None or done.returncode == expect, f"exit code {done.returncode}, not {expect}: {shown}"
        return done


def clean_environ(**variables: str) -> dict[str, str]:
    """Return this process's variables without the settings of our tool and hi-ml, with the given ones."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HIML_", "HI_ML_", "AZUREML_", "PYTEST_"))}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "120", **variables}


@dataclass(frozen=True)
class ProjectFolder:
    """A folder with an environment file, and whatever a test adds."""

    path: Path
    _files: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str) -> Path:
        """Write a file, with the folders above it."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def environment(
        self, *conda: str, pip: Sequence[str] = (), name: str = "environment.yml", env: str = "test"
    ) -> Path:
        """Write an environment file with these packages, all from conda-forge."""
        lines = [f"name: {env}", "channels:", "  - conda-forge", "dependencies:", *(f"  - {spec}" for spec in conda)]
        lines += ["  - pip:", *(f"      - {spec}" for spec in pip)] if pip else []
        return self.write(name, "\n".join(lines) + "\n")

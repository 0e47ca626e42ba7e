"""The image of the jobs of these tests: the interpreter of the tests, and the AzureML SDK as it is installed here.

It is made once for each set of versions and stays in the daemon, as the kit's base image does: no registry is asked,
and the SDK inside is file by file the one that PyPI ships.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
import pytest

if TYPE_CHECKING:
    from azureml.core import Environment, ScriptRun, Workspace

_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
INSIDE = f"opt/himl/lib/python{_PYTHON}/site-packages"
_RECIPE = "2"
ENDED = ("Completed", "Failed", "Canceled")


@pytest.fixture(scope="session")
def job_image(package_sources: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an image with Python and azureml-core, which the daemon has."""
    found = {item.metadata["Name"].lower(): item for item in needed("azureml-core")}
    versions = sorted(f"{name}=={item.version}" for name, item in found.items())
    base = package_sources["HIML_CONTAINER_BASE_IMAGE"]
    digest = hashlib.sha256(json.dumps([_RECIPE, base, sys.version, versions]).encode()).hexdigest()[:12]
    name = f"himl-job:kit-{digest}"
    if docker_cli("image", "inspect", name, check=False).returncode == 0:
        return name
    built = f"himl-job-base-{uuid.uuid4().hex[:8]}"
    project = kit.ProjectFolder(tmp_path_factory.mktemp("job-image"))
    project.environment(f"python={_PYTHON}")
    cli = kit.Cli(project.path, kit.clean_environ(**package_sources, HIML_CONTAINER_IMAGE_NAME=built))
    tag = json.loads(cli("build", "--no-test", "--json").stdout.splitlines()[-1])["tag"]
    try:
        docker_cli("build", "--tag", name, "-", data=_context(tag, found.values()))
    finally:
        docker_cli("image", "rm", tag)
    return name


@pytest.fixture(scope="session")
def job_environment(job_image: str) -> Environment:
    """The SDK's environment of that image."""
    return environment_of(job_image)


def environment_of(image: str, name: str = "job") -> Environment:
    """An environment that is an image of the daemon's."""
    from azureml.core import Environment

    found = Environment(name)
    found.docker.base_image = image
    found.python.user_managed_dependencies = True
    return found


Submit = Any
"""Submits a script: see :func:`submitter`."""


def submitter(workspace: Workspace, environment: Environment, folder: Path) -> Submit:
    """Return a function that submits a script, or a command, as a user does.

    Its words are those of ``ScriptRunConfig``; ``files`` are further files of the snapshot, by name.
    """

    def submit(
        script: str = "",
        *,
        files: Mapping[str, str] | None = None,
        experiment: str = "jobs",
        tune: Any = None,
        **words: Any,
    ) -> ScriptRun:
        from azureml.core import Experiment, ScriptRunConfig

        source = folder / uuid.uuid4().hex
        source.mkdir(parents=True)
        for name, text in {**({"train.py": script} if script else {}), **(files or {})}.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(text)
        words = {"compute_target": "cpu-cluster", "environment": environment, **words}
        config = ScriptRunConfig(str(source), script="train.py" if script else None, **words)
        if tune is not None:
            tune(config.run_config)
        return Experiment(workspace, experiment).submit(config)

    return submit


def wait(run: Any, *statuses: str, seconds: float = 300) -> str:
    """Wait for a status (without one: for the end). The SDK's own waiting looks less and less often."""
    until = time.monotonic() + seconds
    while (found := str(run.get_status())) not in (statuses or ENDED):
        assert time.monotonic() < until, f"{run.id} is {found}"
        assert found not in ENDED, f"{run.id} is {found}: {run.get_details().get('error')}"
        time.sleep(0.1)
    return found


def wait_for(what: Callable[[], Any], seconds: float = 180) -> Any:
    """Wait until something is there."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.1)
    return found


def text_of(run: Any, path: str = "user_logs/std_log.txt") -> str:
    """Return a file of a run."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run.download_file(path, f"{folder}/file", _validate_checksum=False)
        return Path(folder, "file").read_text()


def error_of(run: Any) -> str:
    """Return the message of a run's error."""
    error = run.get_details()["error"]
    return str((error.get("error") or error)["message"])


def containers_of(run_id: str) -> list[str]:
    """Return the names of a run's containers, running or not."""
    done = docker_cli("ps", "--all", "--filter", f"label=himl-container.run={run_id}", "--format", "{{.Names}}")
    return done.stdout.decode().split()


def needed(name: str) -> Iterator[metadata.Distribution]:
    """Yield a distribution and all that it needs, as they are installed here."""
    from packaging.requirements import Requirement

    seen: set[str] = set()
    waiting = [Requirement(name), Requirement("setuptools")]
    while waiting:
        wanted = waiting.pop()
        key = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if key in seen or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add(key)
        found = metadata.distribution(wanted.name)
        waiting += [Requirement(text) for text in found.requires or ()]
        yield found


def _context(base: str, distributions: Any) -> bytes:
    """Return a build context whose image is the base and these distributions."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        # The import leaves the bytecode of what it needs: each job would compile it again, which takes five seconds.
        text = f"FROM {base}\nCOPY opt /opt\nRUN python -c 'import azureml.core'\n".encode()
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
        for item in distributions:
            for file in item.files or ():
                if ".." not in file.parts and Path(str(file.locate())).is_file():
                    archive.add(str(file.locate()), f"{INSIDE}/{file.as_posix()}")
    return buffer.getvalue()


def docker_cli(*words: str, data: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run Docker's client, and end the test where it fails, unless that is not checked."""
    done = subprocess.run(["docker", *words], input=data, capture_output=True, check=False, timeout=900)
    assert not check or done.returncode == 0, done.stderr.decode(errors="replace")
    return done

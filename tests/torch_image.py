"""The image of jobs that train: the image of the other jobs, and PyTorch and Lightning as they are installed here.

Made once for each set of versions, without what no training imports (headers, PyTorch's own tests and programs), it
stays in the daemon. The package of these sources goes on top, as one small layer for the session.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path

import job_wheel
import kit
import pytest
from job_image import INSIDE, docker_cli, needed

_RECIPE = "1"
_LEFT_OUT = re.compile(
    r"torch/(test/|include/|share/|bin/(?!torch_shm_manager))|.*/tests?/|.*_test\.so$|.*\.(pyi|h|cpp)$"
)


@pytest.fixture(scope="session")
def torch_image(job_image: str) -> Iterator[str]:
    """The name of an image with PyTorch, Lightning, azureml-core, ``himl_container.training`` and ``health_ml``."""
    for name in ("torch", "pytorch_lightning"):
        if importlib.util.find_spec(name) is None:
            kit.lacking(f"{name} is not installed; scripts/setup.sh --torch installs it")
    below = _with_torch(job_image)
    wheel = job_wheel.wheel_bytes()
    name = f"himl-torch:test-{hashlib.sha256(below.encode() + wheel).hexdigest()[:12]}"
    _build(name, below, lambda archive: _unpack(wheel, archive))
    yield name
    docker_cli("image", "rm", name, check=False)


def _with_torch(job_image: str) -> str:
    there = {item.metadata["Name"] for item in needed("azureml-core")}
    wanted = [item for item in needed("pytorch-lightning") if item.metadata["Name"] not in there]
    versions = sorted(f"{item.metadata['Name']}=={item.version}" for item in wanted)
    digest = hashlib.sha256(json.dumps([_RECIPE, job_image, versions]).encode()).hexdigest()[:12]
    name = f"himl-torch:kit-{digest}"
    if docker_cli("image", "inspect", name, check=False).returncode != 0:
        _build(name, job_image, lambda archive: _copy(wanted, archive))
    return name


def _build(name: str, base: str, fill: Callable[[tarfile.TarFile], None]) -> None:
    """Make an image with further files.

    By a container into which they are copied while they are read: a build would write them three times, to the folder
    of its context, to the new layer, and to the image.
    """
    container = docker_cli("create", base, "true").stdout.decode().strip()
    try:
        with tempfile.TemporaryFile() as errors:
            words = ["docker", "cp", "-", f"{container}:/"]
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
            assert process.stdin is not None
            with process, tarfile.open(fileobj=process.stdin, mode="w|") as archive:
                fill(archive)
            errors.seek(0)
            assert process.returncode == 0, errors.read().decode(errors="replace")
        docker_cli("commit", container, name)
    finally:
        docker_cli("rm", container)


def _copy(distributions: Iterable[metadata.Distribution], archive: tarfile.TarFile) -> None:
    for item in distributions:
        for file in item.files or ():
            name = file.as_posix()
            # The bytecode is listed too, and stays valid: it refers to the time of the source, which is kept.
            if ".." not in file.parts and not _LEFT_OUT.match(name) and Path(str(file.locate())).is_file():
                archive.add(str(file.locate()), f"{INSIDE}/{name}")


def _unpack(wheel: bytes, archive: tarfile.TarFile) -> None:
    with zipfile.ZipFile(io.BytesIO(wheel)) as files:
        for name in files.namelist():
            _add(archive, f"{INSIDE}/{name}", files.read(name))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))

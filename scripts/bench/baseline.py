"""The baseline: the Dockerfile that a user would write, on the same base, channel, packages and engine.

One ``RUN`` installs the Conda packages of the same lock with py-rattler, which is in the base image as a Conda client
would be; one installs the wheels; the code is copied. The channel is served on the loopback interface for both sides.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

_DOCKERFILE = """\
FROM {base}
COPY environment.txt install.py /build/
RUN /opt/client/bin/python /build/install.py /build/environment.txt /opt/env
ENV PATH=/opt/env/bin:$PATH
COPY wheels/ /build/wheels/
RUN python -m pip install --no-deps --no-index /build/wheels/*.whl
COPY code/ /code/
WORKDIR /code
"""

_INSTALL = '''\
"""Install a list of exact Conda packages, as a Conda client does, and leave no downloads in the image."""
import asyncio, json, shutil, sys
from rattler import BuildString, PackageRecord, RepoDataRecord, install

def record(e):
    package = PackageRecord(
        e["name"], e["version"], BuildString(e["build"]), e["build_number"], e["subdir"], depends=e["depends"],
        noarch=e["noarch"] or None, sha256=bytes.fromhex(e["sha256"]), size=e["size"])
    return RepoDataRecord(package, e["url"].rsplit("/", 1)[1], e["url"], e["channel"])

with open(sys.argv[1]) as file:
    records = [record(entry) for entry in json.load(file)]
asyncio.run(install(records, sys.argv[2], cache_dir="/tmp/pkgs", show_progress=False))
shutil.rmtree("/tmp/pkgs", ignore_errors=True)
'''

_CLIENT = """\
FROM {base}
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
COPY wheels/ /wheels/
RUN python3 -m venv /opt/client && /opt/client/bin/pip install --no-index --find-links /wheels py-rattler
"""


def write_client(folder: Path, base: str) -> None:
    """Write the context of the base image that both sides use: the plain base with a Conda client.

    Its wheels are downloaded here, because a container may not have this machine's certificates.
    """
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(_CLIENT.format(base=base))
    wheel = f"py-rattler=={version('py-rattler')}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:", "--python-version", "3.11"]
    subprocess.run([*command, "--dest", str(folder / "wheels"), wheel], check=True)


def write_context(folder: Path, *, base: str, listing: str, wheels: list[Path]) -> None:
    """Write the baseline's build context.

    :param listing: the packages as JSON (see ``_INSTALL``).
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "wheels").mkdir(parents=True)
    (folder / "code").mkdir()
    (folder / "Dockerfile").write_text(_DOCKERFILE.format(base=base))
    (folder / "install.py").write_text(_INSTALL)
    (folder / "environment.txt").write_text(listing)
    (folder / "code" / "train.py").write_text("print('training')\n")
    for wheel in wheels:
        shutil.copy(wheel, folder / "wheels")

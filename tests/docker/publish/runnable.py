"""Images of a few megabytes in which a shell runs: the machine's own, with its libraries, and whatever a test adds."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from himl_container.image.compose import image_file
from himl_container.image.docker_engine import DockerEngine
from himl_container.image.model import EPOCH, ComposedImage, ImageInfo, Layer
from himl_container.progress import SilentReporter


def layer(folder: Path, files: dict[str, bytes]) -> Layer:
    """Return a layer with these files, all of them executable."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mtime, entry.mode = len(data), EPOCH, 0o755
            archive.addfile(entry, io.BytesIO(data))
    blob = buffer.getvalue()
    digest = hashlib.sha256(blob).hexdigest()
    path = folder / digest
    path.write_bytes(blob)
    return Layer("layer", digest, f"sha256:{digest}", len(blob), len(files), path)


def shell(folder: Path) -> Layer:
    """Return a layer with ``/bin/sh`` and ``/bin/cat``."""
    files = {}
    for program in ("/bin/sh", "/bin/cat"):
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        libraries = re.findall(r"(/\S+) \(0x", listed)
        files |= {path: Path(path).resolve().read_bytes() for path in (program, *libraries)}
    return layer(folder, files)


def noise(folder: Path, name: str, size: int) -> Layer:
    """Return a layer with one file that no compression makes smaller."""
    return layer(folder, {f"opt/{name}": os.urandom(size)})


def load(engine: DockerEngine, tag: str, *layers: Layer) -> ImageInfo:
    """Load an image of these layers."""
    diff_ids = tuple(one.digest for one in layers)
    config = image_file(config={"Cmd": ["sh"]}, architecture="amd64", diff_ids=diff_ids, history=[])
    return engine.load(ComposedImage(config, diff_ids, layers, tag), SilentReporter())


def push(tag: str) -> str:
    """Push an image as Docker does, and return its digest."""
    done = subprocess.run(["docker", "push", tag], capture_output=True, text=True, check=True)
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", done.stdout)
    assert found, done.stdout
    return found[1]


def remove(*names: str) -> None:
    """Remove these names of images; those that are not there are no matter."""
    for name in names:
        listing = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", name]
        found = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
        tagged = [one for one in found if not one.endswith(":<none>")]
        if tagged:
            # By name, not by id: another image may have been built on the same one.
            subprocess.run(["docker", "rmi", *tagged], capture_output=True, check=True)


@contextmanager
def removed_afterwards(*names: str) -> Iterator[None]:
    """Leave no images of these repositories behind."""
    try:
        yield
    finally:
        remove(*names)

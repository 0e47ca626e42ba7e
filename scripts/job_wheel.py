"""Build the wheel of what a job needs: ``python scripts/job_wheel.py [FOLDER]`` (default ``examples/wheels``).

``himl-container`` brings along what builds images: Docker's client, a Conda solver, uv. A job in AzureML uses none of
it. ``himl-container-job`` is the same source without these rooms: ``health_azure``, ``health_ml``, and the parts of
``himl_container`` behind them; its only dependency is azureml-core.

With the standard library only, and the same bytes for the same source, so that an image is made again only when
something has changed. The format is in the "Binary distribution format" page of the Python packaging guide.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "himl_container"
NAME = "himl_container_job"
DEFAULT_FOLDER = ROOT / "examples" / "wheels"

ROOMS = ("azureml", "config", "environment", "launch", "training")
"""What scripts import, and the rooms that it imports itself. None of them builds, pushes or starts anything."""

COMPAT = ("health_azure", "health_ml")
"""hi-ml's packages, which are installed under their own names."""

_ABSENT = """\
raise ModuleNotFoundError(
    "himl-container-job has no {name}: building images and submitting need himl-container (pip install himl-container)",
    name=__name__,
)
"""
"""What whoever submits from inside of a job is told; a package of himl-container that is installed goes before it."""

_METADATA = """\
Metadata-Version: 2.1
Name: himl-container-job
Version: {version}
Summary: What jobs in Azure Machine Learning need of himl-container: health_azure and health_ml, without the builder.
License: MIT
Requires-Python: >=3.10,<3.13
Requires-Dist: azureml-core>=1.61
"""
_WHEEL = "Wheel-Version: 1.0\nGenerator: job_wheel.py\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_SCRIPTS = """\
[console_scripts]
himl-download = himl_container.azureml.tools_download:console
himl-tb = himl_container.azureml.tools_tb:console
"""


def version() -> str:
    """Return the version that ``himl_container/__init__.py`` states."""
    found = re.search(r'^__version__ = "([^"]+)"$', (SOURCE / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError("himl_container/__init__.py states no version")
    return found[1]


def wheel_name() -> str:
    """Return the file name of the wheel."""
    return f"{NAME}-{version()}-py3-none-any.whl"


def wheel_bytes() -> bytes:
    """Return the wheel."""
    info = f"{NAME}-{version()}.dist-info"
    files = {name: path.read_bytes() for name, path in sorted(_files())}
    files |= {f"himl_container/{name}.py": _ABSENT.format(name=f"himl_container.{name}").encode() for name in _absent()}
    files[f"{info}/METADATA"] = _METADATA.format(version=version()).encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    files[f"{info}/entry_points.txt"] = _SCRIPTS.encode()
    files[f"{info}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    record = "".join(f"{name},{_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression=zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            # ZipInfo's default time is the first of 1980, its default mode is none.
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return buffer.getvalue()


def write(folder: Path = DEFAULT_FOLDER) -> Path:
    """Write the wheel, unless it is there already, and return its path."""
    target = folder / wheel_name()
    data = wheel_bytes()
    if not target.is_file() or target.read_bytes() != data:
        folder.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return target


def _files() -> Iterator[tuple[str, Path]]:
    """Give name in the wheel and file of everything that belongs to it."""
    for path in SOURCE.iterdir():
        if path.is_file():
            yield f"himl_container/{path.name}", path
    folders = [(f"himl_container/{room}", SOURCE / room) for room in ROOMS]
    folders += [(name, SOURCE / "compat" / name) for name in COMPAT]
    for prefix, folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{prefix}/{path.relative_to(folder).as_posix()}", path


def _absent() -> list[str]:
    """Return the rooms that the wheel has not."""
    return sorted({path.parent.name for path in SOURCE.glob("*/__init__.py")} - set(ROOMS))


def _digest(data: bytes) -> str:
    return f"sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()}"


def main() -> None:
    """Write the wheel and print where it is."""
    parser = argparse.ArgumentParser(description="Build the wheel of what a job needs of himl-container.")
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT_FOLDER)
    print(write(parser.parse_args().folder))


if __name__ == "__main__":
    main()

"""Small wheels for tests, right or wrong in one respect."""

from __future__ import annotations

import zipfile
from pathlib import Path


def write_wheel(
    path: Path,
    *,
    name: str = "mylib",
    version: str = "1.0",
    entries: dict[str, bytes] | None = None,
    leave_out: str = "",
    infos: list[zipfile.ZipInfo] | None = None,
) -> Path:
    """Write a wheel.

    :param entries: further entries, by name.
    :param leave_out: the dist-info file that is missing.
    :param infos: entries with odd attributes, written empty.
    """
    folder = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": b"",
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{folder}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{folder}/RECORD": b"",
        **(entries or {}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in files.items():
            if not leave_out or not entry.endswith(leave_out):
                archive.writestr(entry, data)
        for info in infos or ():
            archive.writestr(info, b"")
    return path

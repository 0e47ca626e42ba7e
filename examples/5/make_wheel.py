"""Build the private wheel ``wheels/irislib-1.0-py3-none-any.whl`` from ``irislib/``.

With the standard library only and the same bytes every time: a wheel is a zip archive with three files of metadata
(the "Binary distribution format" page of the Python packaging guide).
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAME, VERSION = "irislib", "1.0"
INFO = f"{NAME}-{VERSION}.dist-info"

METADATA = f"""\
Metadata-Version: 2.1
Name: {NAME}
Version: {VERSION}
Summary: Tables in CSV files, and how well a classifier did.
Requires-Python: >=3.10
Requires-Dist: numpy>=1.26
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: make_wheel.py\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel_bytes() -> bytes:
    """Return the wheel."""
    files = {f"{NAME}/{path.name}": path.read_bytes() for path in sorted((HERE / NAME).glob("*.py"))}
    files |= {f"{INFO}/METADATA": METADATA.encode(), f"{INFO}/WHEEL": WHEEL.encode()}
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{INFO}/RECORD"] = f"{record}{INFO}/RECORD,,\n".encode()

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            # ZipInfo's default time is the first of 1980, its default mode is none.
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def main() -> None:
    """Write the wheel, unless it is there already."""
    target = HERE / "wheels" / f"{NAME}-{VERSION}-py3-none-any.whl"
    data = wheel_bytes()
    if not target.is_file() or target.read_bytes() != data:
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
    print(target)


if __name__ == "__main__":
    main()

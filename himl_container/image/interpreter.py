"""The environment's own interpreter on this machine: it compiles bytecode and tells uv what wheels fit.

Only Python and what it depends on is laid out, once per set of packages; linked from rattler's cache, it costs little.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.channels import Mirrors
from himl_container.environment.model import LockedConda
from himl_container.errors import BuildError
from himl_container.image.packages import install
from himl_container.image.plan import dependency_name, python_of
from himl_container.progress import Reporter

_FORMAT = "himl-interpreter-1"


def python_closure(conda: Sequence[LockedConda]) -> tuple[LockedConda, ...]:
    """Return the interpreter's package and all that it depends on, in the order of ``conda``.

    :raises BuildError: the environment has no Python.
    """
    python = python_of(conda)
    if python is None:
        raise BuildError("the environment has no Python", hint="Add 'python' to the dependencies.")
    by_name = {package.name: package for package in conda}
    found = {python.name}
    waiting = [python]
    while waiting:
        for text in waiting.pop().depends:
            name = dependency_name(text)
            # A cycle (python and pip, in some channels) and virtual packages (__glibc) end here.
            if name in by_name and name not in found:
                found.add(name)
                waiting.append(by_name[name])
    return tuple(package for package in conda if package.name in found)


def ensure_interpreter(conda: Sequence[LockedConda], *, cache: Cache, mirrors: Mirrors, reporter: Reporter) -> Path:
    """Return the prefix of the environment's interpreter on this machine; ``bin/python`` in it runs here.

    :raises ArtifactError: a package cannot be fetched, or is not the one that the lock names.
    :raises BuildError: the environment has no Python.
    """
    packages = python_closure(conda)
    cache.folder("interpreters")
    target = _place(packages, cache)
    if _usable(target):
        return target
    with cache.lock(f"interpreter-{target.name}"):
        if not _usable(target):
            _lay_out(packages, target, cache, mirrors, reporter)
    return target


def has_interpreter(conda: Sequence[LockedConda], *, cache: Cache) -> bool:
    """Whether :func:`ensure_interpreter` has nothing to fetch or to lay out."""
    return python_of(conda) is not None and _usable(_place(python_closure(conda), cache))


def _place(packages: Sequence[LockedConda], cache: Cache) -> Path:
    root = (cache.root / "interpreters").resolve()
    identity = [_FORMAT, str(root), *sorted(f"{p.name} {p.sha256}" for p in packages)]
    return root / hashlib.sha256("\n".join(identity).encode()).hexdigest()[:32]


def _usable(prefix: Path) -> bool:
    return os.access(prefix / "bin" / "python", os.X_OK)


def _lay_out(packages: Sequence[LockedConda], target: Path, cache: Cache, mirrors: Mirrors, reporter: Reporter) -> None:
    with cache.new_folder() as folder:
        new = install(packages, folder, prefix=str(target), mirrors=mirrors, reporter=reporter)
        if not _usable(new):
            raise BuildError("the environment's Python package has no bin/python that can be executed")
        # rattler writes there the addresses that it asked, which may carry the login of a mirror; nothing reads it.
        shutil.rmtree(new / "conda-meta", ignore_errors=True)
        if target.exists():
            target.rename(folder / "damaged")
        new.rename(target)

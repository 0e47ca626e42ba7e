"""Shared libraries as the image's dynamic loader finds them, and two with checks of their own: CUDA and MPI."""

# No pathlib here: many paths, in a process that everybody waits for.
# ruff: noqa: PTH110, PTH114, PTH115, PTH118, PTH207
from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from himl_container.image.inside import installed, trials

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from himl_container.image import elf


def missing_in_base(libraries: Iterable[str]) -> list[str]:
    """Return the libraries that the loader does not find by its cache, ``LD_LIBRARY_PATH`` and standard folders."""
    # The cache's strings are NUL-terminated names and paths (ldconfig(8)); a name among them is one that is found.
    cache = b"\0" + installed.read_bytes("/etc/ld.so.cache")
    machine = f"{os.uname().machine}-linux-gnu"
    folders = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    folders += [f"/lib/{machine}", f"/usr/lib/{machine}", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    return [
        name
        for name in libraries
        if b"\0" + name.encode() + b"\0" not in cache
        and not any(os.path.exists(os.path.join(folder, name)) for folder in folders)
    ]


def unresolved(
    needs: dict[str, list[str]] | None, known_absent: Iterable[str], prefix: str, patience: float
) -> dict[str, Any]:
    """Return the libraries that are missing, what needs them, and whether those modules import all the same.

    :param needs: what the environment needs from outside (:func:`elf.outside`); None reads it here and now.
    :param known_absent: libraries that only the machine of the run brings (the GPU driver's).
    """
    needs = _read_all(prefix) if needs is None else needs
    absent = set(known_absent)
    missing = {name: needs[name] for name in missing_in_base(needs) if name not in absent}
    modules = sorted({user[7:] for users in missing.values() for user in users if user.startswith("module:")})
    results = trials.import_all(modules, trials.Importer(modules, patience)) if modules else {}
    return {"missing": missing, "imports": {name: one["ok"] for name, one in results.items()}, "needed": len(needs)}


def _read_all(prefix: str) -> dict[str, list[str]]:
    import mmap

    from himl_container.image import elf  # sent only where it is needed

    files: dict[str, elf.Elf] = {}
    links = {}
    for folder, _, names in os.walk(prefix):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                if ".so" in name:
                    links[path] = os.path.normpath(os.path.join(folder, os.readlink(path)))
                continue
            with open(path, "rb") as file:
                if file.read(4) != elf.MAGIC:
                    continue
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    found = elf.read_elf(data, 0, len(data))
            if found is not None:
                files[path] = found
    return elf.outside(files, links, prefix)


def cuda(prefix: str, folders: Iterable[str]) -> dict[str, Any]:
    """Return where the CUDA runtime lies, and as ``torch`` which CUDA version torch was built for (None: without)."""
    import glob

    places = [prefix + "/lib", "/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib"]
    places += [folder + "/nvidia/*/lib" for folder in folders]
    runtime = [path for place in places for path in sorted(glob.glob(place + "/libcudart.so*"))]
    names = [f"libcudart.so.{major}" for major in (11, 12, 13)] + ["libcudart.so.11.0"]
    runtime = runtime or sorted(set(names) - set(missing_in_base(names)))
    result: dict[str, Any] = {"runtime": runtime[:4]}
    for folder in folders:
        text = installed.read(os.path.join(folder, "torch", "version.py"))
        if text:
            built = re.search(r"^cuda\b[^=]*=\s*['\"]([0-9.]+)['\"]", text, re.MULTILINE)
            result["torch"] = built.group(1) if built else None
    return result


def mpi(modules: Iterable[str], patience: float) -> dict[str, Any]:
    """Return what ``mpirun`` says of itself, and which library mpi4py is bound to, without starting MPI."""
    result: dict[str, Any] = {"mpirun": trials.run(["mpirun", "--version"], patience)}
    if "mpi4py" in modules:
        code = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
        result["mpi4py"] = trials.run([sys.executable, "-c", code], patience)
    return result

"""Everything that the smoke test finds out, in one process of the image."""

from __future__ import annotations

import os
import site
import sys
import time
from typing import TYPE_CHECKING

from himl_container.image.inside import installed, loader, trials

if TYPE_CHECKING:
    from typing import Any


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Do everything that was asked for, and return what was found, as plain values."""
    prefix, patience = request["prefix"], request["patience"]
    folders = site.getsitepackages()
    began = time.time()
    found = installed.distributions(folders)
    declared = installed.declared_modules(request["pip"], request["conda"], found, prefix, request["without_modules"])
    wanted = {one: declared[one] or () for one in declared}
    names = sorted(
        {module for one, modules in wanted.items() if one not in request["known"] for module in modules}
        | {module for module in request["imports"] if module not in request["known_imports"]}
    )
    remembered = {module for modules in wanted.values() for module in modules} | set(request["imports"])
    importer = trials.Importer(names, patience) if names else None  # works while we go on
    tops = sorted({top for one in found for top in one["modules"]})
    result: dict[str, Any] = {
        "markers": markers(),
        "prefix": sys.prefix,
        "glibc": os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else "",
        "distributions": [{key: one[key] for key in ("name", "version", "requires")} for one in found],
        "modules": len(tops),
        "declared": declared,
        "remembered": sorted(remembered - set(names)),
        "not_found": [top for top in tops if not _findable(top)],
        "seconds": {"modules": time.time() - began},
    }
    began = time.time()
    result["libraries"] = loader.unresolved(request["libraries"], request["driver"], prefix, patience)
    result["seconds"]["libraries"] = time.time() - began
    if request["mpi"]:
        result["mpi"] = loader.mpi(tops, patience)
    if request["cuda"]:
        result["cuda"] = loader.cuda(prefix, folders)
    result["imports"] = trials.import_all(names, importer) if importer else {}
    result["uses"] = importer.uses if importer else None
    shell = ["/bin/sh", "-c"]
    result["commands"] = [trials.run([*shell, command], request["command_patience"]) for command in request["test"]]
    return result


def markers() -> dict[str, str]:
    """Return the environment of PEP 508 markers, as the module platform would, which takes milliseconds to import."""
    version, machine = sys.version.split()[0], os.uname()
    name = sys.implementation.name
    return {
        "implementation_name": name,
        "implementation_version": version,
        "os_name": os.name,
        "platform_machine": machine.machine,
        "platform_python_implementation": {"cpython": "CPython", "pypy": "PyPy"}.get(name, name),
        "platform_release": machine.release,
        "platform_system": machine.sysname,
        "platform_version": machine.version,
        "python_full_version": version,
        "python_version": ".".join(str(part) for part in sys.version_info[:2]),
        "sys_platform": sys.platform,
    }


def _findable(name: str) -> bool:
    """Whether an import would find a module, by the finders that the import itself asks."""
    if name in sys.modules:
        return True
    try:
        return any(finder.find_spec(name, None) is not None for finder in sys.meta_path)
    except (ImportError, ValueError, AttributeError):
        return False

"""Everything that the smoke test finds out, in one process of the image."""

from __future__ import annotations

import importlib.util
import os
import platform
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
    declared = installed.declared_modules(request["pip"], request["conda"], found, prefix)
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
    """Return the environment of PEP 508 markers."""
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": platform.python_version(),
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    }


def _findable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return name in sys.modules

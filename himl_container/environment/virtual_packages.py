"""What the solvers may assume of the machine that runs the image, written as Conda's virtual packages.

Never detected: the machine that locks is not the one that runs.
"""

from __future__ import annotations

from himl_container.settings import Settings

LINUX = "4.18"
"""Kernel that is assumed: of RHEL 8, the oldest distribution whose glibc is the default of the settings."""


def virtual_packages(settings: Settings) -> tuple[str, ...]:
    """Return ``name=version`` or ``name=version=build`` of each virtual package, sorted.

    ``__cuda`` is assumed only where the settings name a CUDA version: a machine without a GPU must get the same
    lock as one with it.
    """
    packages = {"__unix": "0"}
    operating_system, _, _ = settings.platform.partition("-")
    if operating_system == "linux":
        packages |= {"__linux": LINUX, "__glibc": settings.glibc, "__archspec": f"1={machine(settings.platform)}"}
    if settings.cuda:
        packages["__cuda"] = settings.cuda
    return tuple(sorted(f"{name}={version}" for name, version in packages.items()))


def machine(platform: str) -> str:
    """Return the processor architecture of a Conda platform, in the kernel's words (``x86_64``)."""
    architecture = platform.partition("-")[2]
    return {"64": "x86_64", "32": "i686"}.get(architecture, architecture)

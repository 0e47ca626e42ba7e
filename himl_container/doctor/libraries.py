"""Checks of the Python packages beside us: the versions, and whether they fit each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import NamedTuple

from himl_container.doctor.model import Finding

_SDK = ("azureml-core", "azureml-train-core", "azureml-dataset-runtime", "azure-identity")
_TRAINING = ("torch", "pytorch-lightning", "lightning", "torchmetrics")
_OLDEST_LIGHTNING = "2.4"


class Installed(NamedTuple):
    """A distribution: its version, and what it asks for (PEP 508)."""

    version: str
    requires: tuple[str, ...] = ()


def checks(installed: dict[str, Installed] | None = None) -> Iterator[Finding]:
    """Yield what is found of the packages; of those that are not installed, nothing."""
    if installed is None:
        installed = {name: found for name in (*_SDK, *_TRAINING) if (found := _find(name)) is not None}
    yield versions()
    for check, names, use in (("azureml packages", _SDK, "azure"), ("training packages", _TRAINING, "lightning")):
        there = {name: installed[name] for name in names if name in installed}
        if not there:
            means = "Needed to submit." if use == "azure" else "Needed by himl_container.training only."
            yield Finding(check, "skipped", "not installed", means, f"pip install 'himl-container[{use}]'")
            continue
        shown = ", ".join(f"{name} {found.version}" for name, found in there.items())
        problems = [*_unmet(there), *(_lightnings(there) if use == "lightning" else ())]
        if problems:
            means = "They may fail at the first import."
            fix = f"pip install --upgrade {' '.join(there)}"
            yield Finding(check, "warning", f"{shown}: {'; '.join(problems)}", means, fix)
        else:
            yield Finding(check, "ok", shown)


def versions() -> Finding:
    """Say which version of us this is, and what it does the work with."""
    from himl_container import __version__

    used = [f"{name} {found.version}" for name in ("py-rattler", "uv") if (found := _find(name)) is not None]
    return Finding("himl-container", "ok", ", ".join([__version__, *used]))


def _unmet(there: dict[str, Installed]) -> Iterable[str]:
    """Yield which of these packages is not the version that another one of them asks for."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for name, found in there.items():
        for text in found.requires:
            try:
                wanted = Requirement(text)
            except InvalidRequirement:
                continue
            other = there.get(canonicalize_name(wanted.name))
            if other is None or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
                continue
            if not wanted.specifier.contains(other.version, prereleases=True):
                yield f"{name} wants {wanted.name} {wanted.specifier}"


def _lightnings(there: dict[str, Installed]) -> Iterable[str]:
    from packaging.version import InvalidVersion, Version

    found = {name: there[name].version for name in ("pytorch-lightning", "lightning") if name in there}
    try:
        old = [name for name, version in found.items() if Version(version) < Version(_OLDEST_LIGHTNING)]
    except InvalidVersion:
        old = []
    if old:
        yield f"{' and '.join(old)} is older than {_OLDEST_LIGHTNING}, the oldest that is supported"
    if found and "torch" not in there:
        yield "torch is missing"
    if len(set(found.values())) > 1:
        yield "pytorch-lightning and lightning are two versions of one library; a callback of one is none to the other"


def _find(name: str) -> Installed | None:
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return Installed(found.version, tuple(found.requires or ()))

"""Which packages share a layer, and the key that says whether a layer has to be made.

The rule is by name and size alone, so that a change of one package changes one layer: what is big has a layer of its
own, the rest shares bins that are chosen by a hash of the name. Large things lie below small ones, and what is the
user's own lies on top, because a daemon must be sent every layer above a changed one. The numbers here are part of
:data:`FORMAT`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from himl_container.environment.model import Lock, LockedConda, LockedWheel
from himl_container.image.model import PREFIX, LayerPlan

FORMAT = "himl-layers-2"
"""Version of everything that decides a layer's bytes besides its packages: grouping, layout, bytecode, tar."""

BIG = 5_000_000
"""Bytes of an archive (compressed) from which a package has a layer of its own."""

MEDIUM = 1_000_000
"""Bytes of an archive from which a package shares a layer with others of its size, below those of the small ones."""

MOST_LAYERS = 80
"""Packages with a layer of their own, the largest ones: overlay2 takes 128 layers, the base's among them."""

CONDA_BINS = {"medium": 8, "small": 4}
WHEEL_BINS = 2

_NAME = re.compile(r"[A-Za-z0-9_.\-]+")


def plan_layers(lock: Lock, *, excluded: Mapping[str, tuple[str, ...]] = {}) -> tuple[LayerPlan, ...]:
    """Return the layers of an environment, lowest first. A pure function of its arguments.

    :param excluded: per Conda package, the paths (relative to the prefix) that it has but another package provides
        (:func:`himl_container.image.clobber.excluded_paths`).
    """
    alone = _alone(lock)
    groups: dict[str, list[LockedConda | LockedWheel]] = {}
    for conda in sorted(lock.conda, key=lambda package: package.name):
        groups.setdefault(_conda_layer(conda, alone), []).append(conda)
    for wheel in sorted(lock.wheels, key=lambda package: package.name):
        groups.setdefault(_wheel_layer(wheel, alone), []).append(wheel)
    interpreter = python_of(lock.conda)
    plans = [_plan(name, groups[name], interpreter, excluded) for name in groups]
    return tuple(sorted([*plans, _generated(lock)], key=_position))


def python_of(conda: Iterable[LockedConda]) -> LockedConda | None:
    """Return the package that is the environment's interpreter, or None in an environment without Python."""
    return next((package for package in conda if package.name == "python"), None)


def needs_python(package: LockedConda) -> bool:
    """Whether a package's modules are for the environment's interpreter: it is noarch Python, or depends on Python."""
    return (
        package.name == "python"
        or package.noarch == "python"
        or any(dependency_name(text) in ("python", "python_abi") for text in package.depends)
    )


def dependency_name(match_spec: str) -> str:
    """Return the package name of a dependency (``conda-forge::numpy >=1.26`` gives ``numpy``)."""
    found = _NAME.match(match_spec.strip().rpartition("::")[2])
    return found.group().lower() if found else ""


def history(lock: Lock) -> bytes:
    """Return ``conda-meta/history``, by which Conda knows an environment and what was asked for."""
    lines = ["==> 1980-01-01 00:00:00 <==", "# cmd: himl-container build"]
    lines += sorted(f"+{p.channel.rstrip('/')}/{p.subdir}::{p.name}-{p.version}-{p.build}" for p in lock.conda)
    lines.append("# update specs: " + json.dumps(sorted(lock.declared.conda), ensure_ascii=False))
    return ("\n".join(_one_line(line) for line in lines) + "\n").encode()


def state(lock: Lock) -> bytes:
    """Return ``conda-meta/state``, where Conda keeps the environment's variables; empty where it has none."""
    if not lock.variables:
        return b""
    return json.dumps({"env_vars": dict(lock.variables)}, sort_keys=True, ensure_ascii=False).encode()


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _alone(lock: Lock) -> frozenset[str]:
    """Return the hashes of the packages that have a layer of their own for their size."""
    packages: list[LockedConda | LockedWheel] = [*lock.conda, *(wheel for wheel in lock.wheels if not wheel.private)]
    big = sorted((-package.size, package.sha256) for package in packages if package.size >= BIG)
    return frozenset(sha256 for _, sha256 in big[:MOST_LAYERS])


def _conda_layer(package: LockedConda, alone: frozenset[str]) -> str:
    if package.name == "python" or package.sha256 in alone:
        return f"conda:{package.name}"
    kind = "medium" if package.size >= MEDIUM else "small"
    return f"conda:{kind}-{_bin(package.name, CONDA_BINS[kind]):02d}"


def _wheel_layer(wheel: LockedWheel, alone: frozenset[str]) -> str:
    if wheel.private:
        return f"wheel:{wheel.name}"
    if wheel.sha256 in alone:
        return f"pip:{wheel.name}"
    return f"pip:bin-{_bin(wheel.name, WHEEL_BINS):02d}"


def _bin(name: str, bins: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % bins


_SHARED = ("conda:medium-", "conda:small-", "pip:bin-", "himl", "wheel:")


def _position(plan: LayerPlan) -> tuple[int, int, str]:
    """The interpreter lowest; then what has a layer of its own, by the power of two below its size; then the rest."""
    if plan.name == "conda:python":
        return 0, 0, ""
    for place, kind in enumerate(_SHARED, start=2):
        if plan.name.startswith(kind):
            return place, 0, plan.name
    sizes = [package.size for package in plan.conda] + [wheel.size for wheel in plan.wheels]
    return 1, -max(sizes).bit_length(), plan.name


def _plan(
    name: str,
    packages: list[LockedConda | LockedWheel],
    interpreter: LockedConda | None,
    excluded: Mapping[str, tuple[str, ...]],
) -> LayerPlan:
    conda = tuple(package for package in packages if isinstance(package, LockedConda))
    wheels = tuple(package for package in packages if isinstance(package, LockedWheel))
    lost = tuple(sorted((package.name, path) for package in conda for path in excluded.get(package.name, ())))
    compiled = wheels or any(needs_python(package) for package in conda)
    python = [interpreter.sha256, interpreter.python_site_packages_path] if interpreter and compiled else []
    key = _key(
        conda=[_facts(package) for package in conda],
        wheels=[[wheel.name, wheel.version, wheel.filename, wheel.sha256] for wheel in wheels],
        lost=lost,
        python=python,
    )
    return LayerPlan(name, key, conda, wheels, tuple(sorted({path for _, path in lost})), lost)


def _facts(package: LockedConda) -> list[Any]:
    """Everything of a package that its layer contains; ``conda-meta`` repeats the lock's fields."""
    return [getattr(package, field.name) for field in dataclasses.fields(package)]


def _generated(lock: Lock) -> LayerPlan:
    key = _key(history=history(lock).decode(), state=state(lock).decode())
    return LayerPlan("himl", key)


def _key(**parts: Any) -> str:
    text = json.dumps({"format": FORMAT, "prefix": PREFIX, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

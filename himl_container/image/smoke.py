"""The test that an image passes before it gets its tag. What is checked: ``docs/testing-the-image.md``."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from himl_container.cache import Cache
from himl_container.environment.model import Lock, LockedConda
from himl_container.errors import EngineError, SmokeTestError
from himl_container.image import smoke_container
from himl_container.image.engine import ContainerResult, Engine
from himl_container.image.libraries import needs_from_base
from himl_container.image.requirements import import_tools
from himl_container.image.smoke_inputs import inputs_of_imports
from himl_container.image.smoke_memory import DECLARED, Import, memory_of
from himl_container.image.smoke_verdict import Expected, SmokeCheck, SmokeReport, judge, no_answer
from himl_container.progress import Reporter
from himl_container.settings import Settings

__all__ = ["SmokeCheck", "SmokeReport", "smoke_test"]

_NAMED = "named"  # the kind of import that stands for a module that the settings name
_TRIALS = ("import ", "mpi: ")  # beginnings of the names of checks that run something in the container
_PATIENCE = 120.0  # seconds for one import
_COMMAND_PATIENCE = 1800.0  # seconds for one command of the user
_MPI = {"openmpi", "mpich", "mpi4py", "intel-mpi", "impi_rt"}
_DRIVER = (  # the container runtime brings these from the machine that has the GPU
    "libcuda.so.1",
    "libcudadebugger.so.1",
    "libnvcuvid.so.1",
    "libnvidia-encode.so.1",
    "libnvidia-ml.so.1",
    "libnvidia-opticalflow.so.1",
    "libnvoptix.so.1",
)


def smoke_test(
    image: str, *, lock: Lock, settings: Settings, engine: Engine, cache: Cache, reporter: Reporter
) -> SmokeReport:
    """Test an image, in one container without network.

    A success is kept for the image's id and the tests, so that the same image is not tested twice; a failure is not.

    :raises SmokeTestError: a check failed; names the failed ones with their details.
    :raises EngineError: the daemon does not answer, or does not have the image.
    """
    info = engine.inspect(image)
    if info is None:
        raise EngineError("the image that was to be tested is not in the daemon", where=image)
    question = _question(lock, settings)
    memo = ("memo", "smoke", f"{_key(info.id, question, lock, settings)}.json")
    earlier = cache.read_json(*memo)
    if isinstance(earlier, dict):
        return replace(_remembered(earlier, info.id), remembered=True)
    began = time.monotonic()
    with reporter.step("test", image) as task:
        task.note("imports, requirements, libraries")
        question["libraries"] = needs_from_base(info.diff_ids, cache)
        question["without_modules"] = _without_modules(lock, settings, cache)
        memory = memory_of(info, lock, settings, cache)
        known = memory.known(_imports(question))
        expected = _expected(lock, settings)
        # Commands may need what a bare container lacks, and an import that may fail would be tried twice each time.
        bare = not settings.test and not any(name.startswith(_TRIALS) for name in settings.test_allow)
        found, checks = _ask(info.id, question, known, expected, engine, bare=bare)
        if (known or bare) and any(not check.ok and check.name.startswith(_TRIALS) for check in checks):
            # The verdict on an import is that of a test of all of them, in a container as others are; the user's
            # commands have had their turn.
            commands = {"commands": found["commands"]}
            without = replace(expected, test=())
            found, checks = _ask(info.id, {**question, "test": []}, set(), without, engine, bare=False)
            known = set()
            if found:
                found |= commands
                checks = judge(found, expected)
        report = SmokeReport(info.id, checks, time.monotonic() - began)
        memory.keep(_succeeded(found, known, settings), found.get("uses"))
        if not report.ok:
            raise _failure(report, image)
    for check in report.checks:
        if check.allowed:
            reporter.warn(f"{check.name} fails, as the settings allow: {check.detail}")
    cache.write_json(report.as_json(), *memo)
    return report


def _ask(
    image_id: str, question: dict[str, Any], known: set[Import], expected: Expected, engine: Engine, *, bare: bool
) -> tuple[dict[str, Any], tuple[SmokeCheck, ...]]:
    """Return what was found in the image, and the checks; nothing was found where the interpreter did not answer."""
    names = {kind: sorted(name for of, name in known if of == kind) for kind in (DECLARED, _NAMED)}
    asked = {**question, "known": names[DECLARED], "known_imports": names[_NAMED]}
    timeout = 2 * _PATIENCE + _COMMAND_PATIENCE * len(question["test"]) + _PATIENCE * (1 + len(question["pip"]))
    found = smoke_container.ask(image_id, asked, engine, timeout=timeout, bare=bare, meanwhile=import_tools)
    if isinstance(found, ContainerResult):
        return {}, no_answer(found, timeout)
    return found, judge(found, expected)


def _imports(question: dict[str, Any]) -> set[Import]:
    declared = {(DECLARED, name) for name in (*question["pip"], *question["conda"])}
    return declared | {(_NAMED, module) for module in question["imports"]}


def _succeeded(found: dict[str, Any], known: set[Import], settings: Settings) -> set[Import]:
    """Return the imports that were tried and succeeded, among others and without a word."""
    if not found:
        return set()
    fine = {module for module, one in found["imports"].items() if one["ok"] and not one["detail"]}
    groups: dict[Import, list[str]] = {(_NAMED, module): [module] for module in settings.test_imports}
    groups.update({(DECLARED, name): modules for name, modules in found["declared"].items() if modules})
    return {one for one, modules in groups.items() if one not in known and fine.issuperset(modules)}


def _question(lock: Lock, settings: Settings) -> dict[str, Any]:
    pip = {_normal(name) for name in _names(lock.declared.pip)}
    pip |= {_normal(wheel.name) for wheel in lock.wheels if wheel.private}
    # A requirement whose marker excludes it here, or that Conda provides, is declared but not locked.
    pip &= {_normal(wheel.name) for wheel in lock.wheels}
    by_name = {package.name: package for package in lock.conda}
    related = {name: _related(name, by_name) for name in sorted(set(_names(lock.declared.conda)))}
    # The names of the records in conda-meta.
    conda = {name: [f"{one.name}-{one.version}-{one.build}" for one in ones] for name, ones in related.items()}
    return {
        "pip": sorted(pip),
        "conda": {name: records for name, records in conda.items() if records},
        "imports": list(settings.test_imports),
        "without_modules": [],
        "known": [],
        "known_imports": [],
        "test": list(settings.test),
        "mpi": bool(_MPI & (set(conda) | pip)),
        "cuda": bool(settings.cuda),
        "driver": _DRIVER,
        "patience": _PATIENCE,
        "command_patience": _COMMAND_PATIENCE,
    }


def _names(specs: Iterable[str]) -> list[str]:
    """Return the names of Conda specs (``channel::name >=1``) or requirements (``name[extra]>=1; marker``)."""
    found = (re.match(r"(?:.*::)?\s*([A-Za-z0-9_][A-Za-z0-9._-]*)", spec) for spec in specs)
    return [match[1].lower() for match in found if match]


def _without_modules(lock: Lock, settings: Settings, cache: Cache) -> list[str]:
    """Return the declared Conda packages that have no module, nor anything that they stand for, where that is known."""
    inputs = inputs_of_imports(lock, settings, cache)
    if inputs is None:
        return []
    by_name = {package.name: package for package in lock.conda}
    related = {name: _related(name, by_name) for name in set(_names(lock.declared.conda))}
    return sorted(name for name, ones in related.items() if not any(one.name in inputs.modules for one in ones))


def _related(name: str, by_name: Mapping[str, LockedConda]) -> list[LockedConda]:
    """Return a package, and then what it stands for (``matplotlib``: matplotlib-base); nothing if it is missing."""
    if name not in by_name:
        return []
    depends = [spec.split(" ", 1)[0] for spec in by_name[name].depends]
    names = [one for one in depends if one != name and name in one.split("-") and one in by_name]
    return [by_name[one] for one in (name, *names)]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _expected(lock: Lock, settings: Settings) -> Expected:
    return Expected(
        python=lock.python_version,
        glibc=settings.glibc,
        cuda=settings.cuda,
        imports=settings.test_imports,
        test=settings.test,
        allow=settings.test_allow,
    )


def _key(image_id: str, question: dict[str, Any], lock: Lock, settings: Settings) -> str:
    content = [image_id, question, smoke_container.sources(), repr(_expected(lock, settings))]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _remembered(known: dict[str, Any], image_id: str) -> SmokeReport:
    checks = tuple(SmokeCheck(**check) for check in known["checks"])
    return SmokeReport(image_id, checks, float(known["seconds"]))


def _failure(report: SmokeReport, image: str) -> SmokeTestError:
    names = ", ".join(check.name for check in report.failed)
    details = "\n".join(f"{check.name}: {check.detail}" for check in report.failed)
    allow = ", ".join(f'"{check.name}"' for check in report.failed)
    return SmokeTestError(
        f"the image failed its tests: {names}\n{details}",
        where=image,
        hint=f"See docs/testing-the-image.md; test-allow = [{allow}] in the settings accepts this.",
    )

"""From what was found in an image to checks that pass or fail. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from himl_container.image.engine import ContainerResult
from himl_container.image.model import PREFIX
from himl_container.image.requirements import unsatisfied

_SHOWN = 8


@dataclass(frozen=True)
class SmokeCheck:
    """One check.

    :param name: ``interpreter``, ``import numpy``, ``requirements``, ``command: pytest -q`` and so on.
    :param detail: why it failed, or what is worth knowing although it passed; may have several lines.
    :param seconds: what it took inside the container, where that is known.
    :param allowed: it failed, and the settings allow it to.
    :param remembered: an import that was not tried, as it succeeded before with the same inputs.
    """

    name: str
    ok: bool
    detail: str = ""
    seconds: float = 0.0
    allowed: bool = False
    remembered: bool = False


@dataclass(frozen=True)
class SmokeReport:
    """What the smoke test says of an image.

    :param image_id: the daemon's id of the image.
    :param seconds: from question to answer, with the start of the container.
    :param remembered: this very image passed these very tests before; nothing was run.
    """

    image_id: str
    checks: tuple[SmokeCheck, ...]
    seconds: float = 0.0
    remembered: bool = False

    @property
    def failed(self) -> tuple[SmokeCheck, ...]:
        """The checks that failed and may not."""
        return tuple(check for check in self.checks if not check.ok and not check.allowed)

    @property
    def imports(self) -> tuple[int, int]:
        """How many imports were tried, and how many are remembered from images that were the same for them."""
        found = [check.remembered for check in self.checks if check.name.startswith("import ")]
        return found.count(False), found.count(True)

    @property
    def ok(self) -> bool:
        """Whether the image may get its tag."""
        return not self.failed

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        tried, remembered = self.imports
        return {**asdict(self), "ok": self.ok, "imports": {"tried": tried, "remembered": remembered}}

    def as_text(self) -> str:
        """Return the report for people, a line or more for each check."""
        tried, remembered = self.imports
        counts = f"{tried} imports were tried, {remembered} are remembered"
        return "\n".join([*map(_line, self.checks), counts])


def _line(check: SmokeCheck) -> str:
    word = "ok    " if check.ok else "allow " if check.allowed else "FAILED"
    return f"{word}  {check.name}" + "".join(f"\n        {line}" for line in check.detail.splitlines())


@dataclass(frozen=True)
class Expected:
    """What the image has to be, besides whole.

    :param python: the interpreter's version; empty for any.
    :param glibc: the C library that the solvers assumed.
    :param cuda: the CUDA version that was asked for, or empty.
    :param imports: modules that the settings name.
    :param test: the user's own commands.
    :param allow: names of checks that may fail.
    """

    python: str
    glibc: str
    cuda: str = ""
    imports: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


def judge(found: dict[str, Any], expected: Expected) -> tuple[SmokeCheck, ...]:
    """Return every check, in the order in which a reader wants them."""
    checks = (
        _interpreter(found, expected),
        _glibc(found, expected),
        _modules(found),
        *_imports(found, expected),
        _requirements(found),
        _libraries(found),
        *_mpi(found),
        *_cuda(found),
        *_commands(found, expected),
    )
    return tuple(replace(check, allowed=not check.ok and check.name in expected.allow) for check in checks)


def no_answer(result: ContainerResult, patience: float) -> tuple[SmokeCheck, ...]:
    """Return the one check of an image whose interpreter did not get as far as answering."""
    reasons = {124: f"no answer within {patience:.0f} s", 126: "cannot be executed", 127: "cannot be started"}
    reason = reasons.get(result.exit_code, f"ended with exit code {result.exit_code}")
    if result.exit_code in (132, 134, 135, 136, 139):
        reason = f"crashed (signal {result.exit_code - 128})"
    if result.oom_killed:
        reason = "was killed for memory"
    output = result.output.decode("utf-8", "replace").strip()[-3000:]
    return (SmokeCheck("interpreter", False, f"{PREFIX}/bin/python {reason}\n{output}".strip()),)


def _interpreter(found: Mapping[str, Any], expected: Expected) -> SmokeCheck:
    version, prefix = found["markers"]["python_full_version"], found["prefix"]
    problems = []
    if expected.python and version != expected.python:
        problems.append(f"Python {version} starts, the lock has {expected.python}")
    if prefix != PREFIX:
        problems.append(f"its prefix is {prefix}, not {PREFIX}")
    return SmokeCheck("interpreter", not problems, "; ".join(problems) or f"Python {version}")


def _glibc(found: Mapping[str, Any], expected: Expected) -> SmokeCheck:
    library = str(found["glibc"] or "")
    version = library.rpartition(" ")[2]
    if not library.startswith("glibc "):
        return SmokeCheck("glibc", False, f"the base has no GNU C library ({library or 'another one'})")
    if _numbers(version) < _numbers(expected.glibc):
        what = f"the base has glibc {version}; the packages were chosen for {expected.glibc} or newer"
        return SmokeCheck("glibc", False, f"{what}: set glibc = {version!r} and lock again, or choose a newer base")
    return SmokeCheck("glibc", True, version)


def _modules(found: Mapping[str, Any]) -> SmokeCheck:
    missing = found["not_found"]
    absent = [name for name, modules in found["declared"].items() if modules is None]
    problems = [f"cannot be found: {_some(missing)}"] if missing else []
    problems += [f"declared but not installed: {_some(absent)}"] if absent else []
    good = f"{found['modules']} modules of {len(found['distributions'])} distributions"
    return SmokeCheck("modules", not problems, "\n".join(problems) or good, found["seconds"]["modules"])


def _imports(found: Mapping[str, Any], expected: Expected) -> Iterator[SmokeCheck]:
    """One check for each declared name, then one for each module that the settings name."""
    groups = {name: modules for name, modules in found["declared"].items() if modules}
    covered = {module for modules in groups.values() for module in modules}
    groups.update({name: [name] for name in expected.imports if name not in covered and name not in groups})
    kept = dict.fromkeys(found["remembered"], _KEPT)
    for name, modules in groups.items():
        results = [(module, found["imports"].get(module) or kept.get(module) or _UNTRIED) for module in modules]
        details = [f"{module}: {one['detail']}" if one["detail"] else "" for module, one in results]
        yield SmokeCheck(
            f"import {name}",
            all(one["ok"] for _, one in results),
            "\n".join(filter(None, details)),
            sum(one["seconds"] for _, one in results),
            remembered=all(one is _KEPT for _, one in results),
        )


_KEPT: Mapping[str, Any] = {"ok": True, "seconds": 0.0, "detail": ""}

_UNTRIED: Mapping[str, Any] = {"ok": False, "seconds": 0.0, "detail": "could not be tried"}


def _requirements(found: Mapping[str, Any]) -> SmokeCheck:
    problems = unsatisfied(found["distributions"], found["markers"])
    return SmokeCheck("requirements", not problems, "\n".join(problems))


def _libraries(found: Mapping[str, Any]) -> SmokeCheck:
    """A module that imports although a library is missing does without it; a program cannot."""
    broken, optional = [], []
    for library, users in found["libraries"]["missing"].items():
        failing = [user for user in users if not found["libraries"]["imports"].get(user.partition(":")[2], False)]
        if failing:
            broken.append(f"{library} is missing, for {_some([user.partition(':')[2] for user in failing])}")
        else:
            optional.append(f"{library} is missing, but {_some([u.partition(':')[2] for u in users])} can do without")
    return SmokeCheck("libraries", not broken, "\n".join(broken + optional), found["seconds"]["libraries"])


def _mpi(found: Mapping[str, Any]) -> Iterator[SmokeCheck]:
    for name, result in found.get("mpi", {}).items():
        first = result["output"].strip().partition("\n")[0]
        yield SmokeCheck(
            f"mpi: {name}", result["code"] == 0, first if result["code"] == 0 else result["output"], result["seconds"]
        )


def _cuda(found: Mapping[str, Any]) -> Iterator[SmokeCheck]:
    if "cuda" not in found:
        return
    cuda = found["cuda"]
    if cuda.get("torch", "") is None:
        yield SmokeCheck("cuda", False, "torch was built without CUDA")
    elif not cuda["runtime"] and not cuda.get("torch"):
        yield SmokeCheck("cuda", False, "libcudart is neither in the environment nor in the base image")
    else:
        torch = [f"torch is built for CUDA {cuda['torch']}"] if cuda.get("torch") else []
        yield SmokeCheck("cuda", True, "\n".join([*cuda["runtime"][:1], *torch]))


def _commands(found: Mapping[str, Any], expected: Expected) -> Iterator[SmokeCheck]:
    for command, result in zip(expected.test, found["commands"], strict=True):
        ok = result["code"] == 0
        detail = "" if ok else f"exit code {result['code']}\n{result['output']}".strip()
        yield SmokeCheck(f"command: {command}", ok, detail, result["seconds"])


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())

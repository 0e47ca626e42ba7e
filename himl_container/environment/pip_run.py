"""One run of ``uv pip compile``: what it is given, and what comes back.

What Conda installed is given as *stubs*: wheels that hold nothing but a name and a version, bound by constraints, so
that a requirement that contradicts Conda is the solver's own, readable error and nothing is installed twice.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import sys
import textwrap
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from himl_container.cache import Cache
from himl_container.environment.lockfile import wheels_text
from himl_container.environment.model import EnvironmentSpec, LockedWheel
from himl_container.environment.uv import UvRun, run_uv, unreachable
from himl_container.environment.virtual_packages import machine

_MANYLINUX = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)
"""Versions of glibc 2 that uv has a target platform for."""

_FAILED_BUILD = re.compile(r"Failed to (?:download and )?build `([A-Za-z0-9._-]+)\s*(?:==|@)")
_WANTED_WHEEL = re.compile(r"Wheels are required for `([A-Za-z0-9._-]+)`")
_NOISE = (
    "The requested Python version",
    "A managed Python download is available",
    "Requirements file `constraints.txt` does not contain any dependencies",
)


@dataclass(frozen=True)
class PipRequest:
    """What is to be solved.

    :param python_version: of the environment's interpreter, full.
    :param provided: distributions that Conda installed, normalised name -> version.
    :param previous: wheels that are kept where they still fit, for example those of the last lock.
    """

    spec: EnvironmentSpec
    python_version: str
    platform: str
    glibc: str
    provided: Mapping[str, str] = field(default_factory=dict)
    previous: tuple[LockedWheel, ...] = ()


@dataclass(frozen=True)
class Resolution:
    """What uv answered.

    :param packages: the ``packages`` of its pylock; empty where it failed.
    :param reason: why it failed, readable; empty where it did not.
    :param wants_build: the distribution whose metadata needs a build, where that is why it failed.
    :param wants_wheels: distributions that have no wheel that fits, where that is why it failed.
    """

    packages: tuple[dict[str, Any], ...] = ()
    reason: str = ""
    wants_build: str = ""
    wants_wheels: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


def resolve(
    request: PipRequest,
    *,
    cache: Cache,
    built: Path | None = None,
    probed: Iterable[str] | None = None,
) -> Resolution:
    """Run the solver once.

    :param built: a folder of wheels to choose from as well.
    :param probed: None to take wheels only; else source distributions count too, and these names are taken to have no
        dependencies, so that their metadata need not be built.
    :raises ArtifactError: an index does not answer or refuses.
    """
    with cache.new_folder() as folder:
        folder.chmod(0o700)  # requirements may carry credentials in URLs
        output = folder / "pylock.toml"
        previous = [wheel for wheel in request.previous if not wheel.private]
        if previous:
            output.write_text(wheels_text(previous), encoding="utf-8")
        (folder / "requirements.in").write_text(_requirements(request), encoding="utf-8")
        (folder / "constraints.txt").write_text(_constraints(request, cache), encoding="utf-8")
        indexes = request.spec.indexes
        if built is not None:
            indexes = replace(indexes, find_links=(*indexes.find_links, built.as_uri()))
        config = {"dependency-metadata": [{"name": name} for name in sorted(probed)]} if probed else {}
        run = run_uv(
            _arguments(request, build=probed is not None),
            folder=folder,
            indexes=indexes,
            more_config=config,
            more_environment=_no_python(folder) if probed is not None else None,
        )
        return _resolution(run, output)


def _arguments(request: PipRequest, *, build: bool) -> list[str]:
    return [
        *("pip", "compile", "requirements.in", "--constraints", "constraints.txt"),
        *("--format", "pylock.toml", "--output-file", "pylock.toml", "--no-header"),
        *("--python", sys.executable, "--python-version", request.python_version),
        *("--python-platform", python_platform(request.platform, request.glibc)),
        *(() if build else ("--only-binary", ":all:")),
    ]


def python_platform(platform: str, glibc: str) -> str:
    """Return uv's name of the target: of those that it knows, the one with the newest glibc that is not too new."""
    minor = int(glibc.split(".")[1])
    known = [number for number in _MANYLINUX if number <= minor]
    return f"{machine(platform)}-manylinux_2_{known[-1] if known else _MANYLINUX[0]}"


def _requirements(request: PipRequest) -> str:
    lines = [requirement.text for requirement in request.spec.pip]
    lines += [f"{wheel.name} @ {wheel.path.absolute().as_uri()}" for wheel in request.spec.wheels]
    return "".join(f"{_one_line(line)}\n" for line in lines)


def _constraints(request: PipRequest, cache: Cache) -> str:
    lines = [requirement.text for requirement in request.spec.constraints]
    for name, version in request.provided.items():
        lines.append(f"{name} @ {_stub(name, version, cache).absolute().as_uri()}")
    return "".join(f"{_one_line(line)}\n" for line in lines)


def _one_line(text: str) -> str:
    """Return a requirement that cannot become two, nor an option of the requirements format."""
    # uv replaces ${NAME} by the user's variables; what a declaration may take from them was taken when it was read.
    line = " ".join(text.split()).replace("${", "$%7B")
    return line if line[:1].isalnum() else f"invalid-requirement # {line}"


def _stub(name: str, version: str, cache: Cache) -> Path:
    """Return a wheel without content; kept, so that uv keeps what it read from it."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = cache.folder("stubs") / f"{stem}-py3-none-any.whl"
    if path.is_file():
        return path
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: himl-container\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for filename, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{filename}"), content)
    with cache.new_file() as temporary:
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    return path


def _no_python(folder: Path) -> dict[str, str]:
    """Return variables under which no Python starts, so that uv cannot run a package's build code on this machine.

    uv asks its own interpreter with ``-I``, which ignores them. A keyring is a Python program too: it is run without.
    """
    variables = {"PYTHONHOME": "/nonexistent"}
    keyring = shutil.which("keyring")
    if keyring:
        shim = folder / "bin" / "keyring"
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nunset PYTHONHOME\nexec {shlex.quote(keyring)} "$@"\n', encoding="utf-8")
        shim.chmod(0o700)
        variables["PATH"] = os.pathsep.join([str(shim.parent), os.environ.get("PATH", os.defpath)])
    return variables


def _resolution(run: UvRun, output: Path) -> Resolution:
    warnings = tuple(text for text in run.warnings if not text.startswith(_NOISE))
    if run.exit_code == 0:
        return Resolution(_packages(output), warnings=warnings)
    wanted = _FAILED_BUILD.search(run.errors)
    if wanted is None:
        error = unreachable(run.errors)
        if error is not None:
            raise error
    return Resolution(
        reason=readable(run.errors),
        wants_build=wanted[1] if wanted else "",
        wants_wheels=frozenset(_WANTED_WHEEL.findall(run.errors)),
        warnings=warnings,
    )


def _packages(output: Path) -> tuple[dict[str, Any], ...]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    return tuple(tomllib.loads(output.read_text(encoding="utf-8")).get("packages", []))


def readable(errors: str) -> str:
    """Return uv's reason without its headline, its indentation and its advice about options that we do not have."""
    body = "\n".join(line for line in errors.splitlines() if not line.startswith("warning: "))
    blocks = [block for block in re.split(r"\n\s*\n", body) if not (block.startswith("hint:") and "--" in block)]
    text = "\n".join(blocks).removeprefix("error: ")
    headline, _, rest = text.partition("\n")
    if headline.startswith("No solution found") and rest:
        text = re.sub(r"^  cause: ", " " * 9, rest, flags=re.MULTILINE)
    return textwrap.dedent(text).strip()


def origins(request: PipRequest) -> str:
    """Return the files that the pip requirements stand in, for an error's place."""
    places = [item.origin for item in request.spec.pip] + [wheel.origin for wheel in request.spec.wheels]
    return ", ".join(dict.fromkeys(origin.path for origin in places))

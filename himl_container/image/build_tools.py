"""What a build from source needs: its requirements, solved and unpacked on the host for the image's Python."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from himl_container.cache import Cache
from himl_container.environment.lock import BuildWorld
from himl_container.environment.model import EnvironmentSpec, LockedWheel, Origin, PipRequirement
from himl_container.environment.pip_result import Sdist
from himl_container.environment.pip_run import PipRequest, python_platform
from himl_container.environment.pip_solve import solve_pip
from himl_container.environment.uv import run_uv, unreachable
from himl_container.errors import BuildError, UnsolvableError
from himl_container.image.model import PREFIX
from himl_container.progress import Reporter

_DRIVER = "pyproject_hooks>=1.0"
_SHEBANG = re.compile(rb"\A#!(?:[^\n]*python[^\n]*|/bin/sh\n'''exec' [^\n]*\n' ''')\n")


def install_tools(
    requirements: Sequence[str],
    target: Path,
    *,
    world: BuildWorld,
    pins: Sequence[str] = (),
    cache: Cache,
    reporter: Reporter,
    where: str,
) -> tuple[str, ...]:
    """Unpack build requirements into a new folder, for ``PYTHONPATH``; return them pinned, sorted.

    :param pins: what an earlier build used; the same releases are taken.
    :raises BuildError: a requirement is malformed, is an address, has no wheel, or cannot be satisfied.
    :raises ArtifactError: an index cannot be read.
    """
    origin = Origin(where)
    wanted = tuple(_requirement(text, origin) for text in (*requirements, _DRIVER))
    held = tuple(_requirement(text, origin) for text in pins)
    spec = EnvironmentSpec("build", (), (), wanted, indexes=world.indexes, constraints=held)
    request = PipRequest(spec, world.python_version, world.platform, world.glibc)

    def refuse(sdist: Sdist) -> tuple[Path, tuple[str, ...]]:
        raise BuildError(f"it needs {sdist.name} {sdist.version} to be built, which has no wheel itself", where=where)

    try:
        wheels = solve_pip(request, build=refuse, cache=cache, reporter=reporter)
    except UnsolvableError as error:
        raise BuildError(f"its build requirements cannot be satisfied: {error.what}", where=where) from error
    _unpack(wheels, target, world, cache, where)
    return tuple(f"{wheel.name}=={wheel.version}" for wheel in wheels)


def _requirement(text: str, origin: Origin) -> PipRequirement:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        parsed = Requirement(text)
    except InvalidRequirement as error:
        raise BuildError(f"a build requirement is malformed: {text[:200]!r}", where=origin.path) from error
    if parsed.url:
        raise BuildError(f"a build requirement is an address: {parsed.name}", where=origin.path)
    return PipRequirement(str(parsed), parsed.name, origin)


def _unpack(wheels: Sequence[LockedWheel], target: Path, world: BuildWorld, cache: Cache, where: str) -> None:
    with cache.new_folder() as folder:
        lines = [f"{wheel.name} @ {_quoted(wheel.url)} --hash=sha256:{wheel.sha256}\n" for wheel in wheels]
        (folder / "requirements.txt").write_text("".join(lines), encoding="utf-8")
        run = run_uv(
            [
                *("pip", "install", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
                *("--python", sys.executable, "--python-version", world.python_version, "--link-mode", "copy"),
                *("--python-platform", python_platform(world.platform, world.glibc)),
                *("--target", target, "--requirements", "requirements.txt"),
            ],
            folder=folder,
            indexes=world.indexes,
        )
    if run.exit_code:
        raise unreachable(run.errors) or BuildError(
            f"the build requirements cannot be unpacked:\n{run.errors.strip()}", where=where
        )
    for script in sorted((target / "bin").glob("*")):
        # uv wrote the path of an interpreter of this machine into scripts.
        content = script.read_bytes()
        script.write_bytes(_SHEBANG.sub(f"#!{PREFIX}/bin/python\n".encode(), content))


def _quoted(url: str) -> str:
    """Hide ``$`` from uv, which replaces ``${NAME}`` in a requirements file by a variable of the user."""
    return url.replace("$", "%24")

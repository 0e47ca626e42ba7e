"""From what uv resolved to what is locked: one wheel for each package, and the source distributions to build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from himl_container.environment.conda_names import normalised
from himl_container.environment.model import LockedWheel
from himl_container.environment.pip_run import PipRequest, origins
from himl_container.environment.urls import redact, strip_credentials
from himl_container.environment.wheel_tags import best_wheel
from himl_container.errors import ArtifactError, InputError, UnsolvableError


@dataclass(frozen=True)
class Sdist:
    """A source distribution, exactly."""

    name: str
    version: str
    url: str
    sha256: str
    size: int = 0


@dataclass(frozen=True)
class BuiltWheel:
    """A wheel that was built from a source distribution.

    :param requires: what it was built with, pinned.
    """

    sdist: Sdist
    filename: str
    sha256: str
    size: int
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    name: str
    url: str
    sha256: str
    size: int


def locked_wheels(
    packages: Sequence[Mapping[str, Any]], request: PipRequest, built: Mapping[str, BuiltWheel]
) -> tuple[tuple[LockedWheel, ...], tuple[Sdist, ...]]:
    """Return the wheels to lock, sorted by name, and the source distributions of packages that have no wheel that fits.

    :param packages: of uv's pylock.
    :param built: wheels built so far, by file name.
    :raises InputError: a package is a repository or a folder.
    :raises UnsolvableError: a package has neither a wheel that fits nor a source distribution.
    """
    private = {
        wheel.name: LockedWheel(wheel.name, wheel.version, wheel.filename, wheel.sha256, wheel.size, private=True)
        for wheel in request.spec.wheels
    }
    wheels: list[LockedWheel] = []
    sdists: list[Sdist] = []
    for package in packages:
        name = normalised(str(package["name"]))
        if name in private:
            wheels.append(private[name])
        elif name not in request.provided:
            found = _one(name, package, request, built)
            if isinstance(found, LockedWheel):
                wheels.append(found)
            else:
                sdists.append(found)
    return tuple(sorted(wheels, key=lambda wheel: wheel.name)), tuple(sorted(sdists, key=lambda sdist: sdist.name))


def _one(
    name: str, package: Mapping[str, Any], request: PipRequest, built: Mapping[str, BuiltWheel]
) -> LockedWheel | Sdist:
    if "vcs" in package or "directory" in package:
        raise _not_a_wheel(name, request, "a repository or a folder")
    entries = package.get("wheels", [])
    if "archive" in package:
        file = _file(package["archive"])
        if not file.name.endswith(".whl"):
            raise _not_a_wheel(name, request, "a source archive")
        entries = [package["archive"]]
    files = {file.name: file for file in map(_file, entries)}
    best = best_wheel(files, python_version=request.python_version, platform=request.platform, glibc=request.glibc)
    if best is not None:
        return _locked(name, files[best], built.get(best))
    if "sdist" in package:
        file = _file(package["sdist"])
        return Sdist(name, str(package["version"]), file.url, file.sha256, file.size)
    raise UnsolvableError(
        f"no wheel of {name} {package.get('version', '')} fits Python {request.python_version}, {request.platform} and "
        f"glibc {request.glibc}",
        where=origins(request),
        hint="Ask for another version, or raise 'glibc' of the settings where the base image has a newer one.",
    )


def _locked(name: str, file: _File, built: BuiltWheel | None) -> LockedWheel:
    from packaging.utils import parse_wheel_filename

    version = str(parse_wheel_filename(file.name)[1])
    if built is None:
        return LockedWheel(name, version, file.name, file.sha256, file.size, url=file.url)
    return LockedWheel(
        name,
        version,
        built.filename,
        built.sha256,
        built.size,
        sdist_url=built.sdist.url,
        sdist_sha256=built.sdist.sha256,
        sdist_size=built.sdist.size,
        build_requires=built.requires,
    )


def _file(entry: Mapping[str, Any]) -> _File:
    """Return a file of uv's pylock with the address that may be kept: no login, no secret of a query."""
    address = str(entry["url"]) if "url" in entry else Path(str(entry["path"])).absolute().as_uri()
    url = strip_credentials(address)[0].partition("#")[0]
    if redact(url) != url:
        url = url.partition("?")[0]
    path = unquote(urlsplit(url).path)
    size = entry.get("size", 0)
    if not size and url.startswith("file://"):
        size = Path(path).stat().st_size
    sha256 = entry.get("hashes", {}).get("sha256", "")
    if not sha256:
        raise ArtifactError("the index states no sha256", where=redact(url))
    return _File(str(entry.get("name") or path.rpartition("/")[2]), url, sha256, int(size))


def _not_a_wheel(name: str, request: PipRequest, kind: str) -> InputError:
    places = [str(item.origin) for item in request.spec.pip if normalised(item.name) == name]
    return InputError(
        f"{name} comes from {kind}, which cannot be locked",
        where=places[0] if places else origins(request),
        hint="Build a wheel of it ('pip wheel --no-deps ...') and give that as a private wheel with --wheel.",
    )

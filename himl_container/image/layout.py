"""What a Conda package puts into the environment: laid out by rattler in a temporary folder, read back as entries.

rattler decides which of two packages keeps a path that both have; we take each package's own content of it, from where
rattler moved it (``original_path`` in its record), so its decision does not matter.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himl_container.environment.model import LockedConda
from himl_container.errors import ArtifactError, BuildError
from himl_container.image.bytecode import Module
from himl_container.image.model import PREFIX
from himl_container.image.packages import DamagedPackageCacheError
from himl_container.image.tar import Entry

_SCRIPTS = ("post-link", "pre-link")


@dataclass(frozen=True)
class StagedPath:
    """One path of a package: relative to the prefix, where it lies now, and its line of ``paths_data``."""

    path: str
    source: Path
    facts: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Hash of the content as it is in the prefix; empty where rattler says none (a symbolic link)."""
        if self.facts.get("path_type") == "softlink":
            return ""
        return str(self.facts.get("sha256_in_prefix") or self.facts.get("sha256") or "")


@dataclass(frozen=True)
class StagedPackage:
    """A package in a staging folder, sorted by path.

    :param paths: all but the ``.pyc`` files that belong to a source file.
    :param bytecode: those, by the path of their source.
    :param extracted: where rattler keeps the package's own files, with the times that the package gives them.
    """

    package: LockedConda
    paths: tuple[StagedPath, ...]
    bytecode: Mapping[str, StagedPath]
    extracted: Path

    def module(self, path: str, source: Path) -> Module:
        """Return a source file as the compiler takes it."""
        shipped = self.bytecode.get(path)
        if shipped is None or self.package.noarch or not shipped.sha256 or "prefix_placeholder" in shipped.facts:
            return Module(path, source)
        try:
            time = int((self.extracted / path).stat().st_mtime)
        except OSError as error:
            raise DamagedPackageCacheError(f"{self.package.filename}: {error.strerror} ({path})") from error
        return Module(path, source, shipped.source, shipped.sha256, time)


def read_staged(package: LockedConda, root: Path) -> StagedPackage:
    """Return what rattler has linked of a package into the folder ``root``.

    :raises ArtifactError: the package has a path outside of the environment.
    :raises BuildError: rattler left no record of it.
    """
    name = f"{package.name}-{package.version}-{package.build}.json"
    try:
        record = json.loads((root / "conda-meta" / name).read_bytes())
        facts = record["paths_data"]["paths"]
        extracted = Path(record["extracted_package_dir"])
    except (OSError, ValueError, KeyError) as error:
        raise BuildError(f"rattler left no record of the package: {error}", where=package.filename) from error
    paths = {staged.path: staged for staged in (_staged(package, entry, root) for entry in facts)}
    kept = [path for path in sorted(paths) if not _is_bytecode(path, paths)]
    bytecode = {_source(path): paths[path] for path in paths.keys() - set(kept)}
    return StagedPackage(package, tuple(paths[path] for path in kept), bytecode, extracted)


def _staged(package: LockedConda, facts: Mapping[str, Any], root: Path) -> StagedPath:
    here = str(facts["_path"])
    final = str(facts.get("original_path") or here)
    for path in (here, final):
        if path.startswith("/") or posixpath.normpath(path) != path or path.split("/")[0] == "..":
            raise ArtifactError(f"the package has a path outside of the environment: {path!r}", where=package.filename)
    return StagedPath(final, root / here, facts)


def _is_bytecode(path: str, present: Container[str]) -> bool:
    """Whether a path is compiled code next to (or without) its source in ``__pycache__``; we compile it ourselves."""
    folder, _, name = path.rpartition("/")
    if not name.endswith(".pyc"):
        return False
    return folder.rpartition("/")[2] == "__pycache__" or path[:-1] in present


def _source(path: str) -> str:
    """Return the module of ``__pycache__/NAME.TAG.pyc``; for optimised code (``NAME.TAG.opt-1.pyc``) no real name."""
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[0]}/{name.removesuffix('.pyc').rpartition('.')[0]}.py"


def entries_of(staged: StagedPackage, *, without: frozenset[str] = frozenset()) -> list[Entry]:
    """Return the archive entries of a package, below the prefix.

    :param without: paths that another package provides.
    """
    return [_entry(path, staged.package) for path in staged.paths if path.path not in without]


def _entry(staged: StagedPath, package: LockedConda) -> Entry:
    path = f"{PREFIX[1:]}/{staged.path}"
    if staged.facts.get("path_type") == "directory":
        return Entry(path, "folder", owner=package.filename)
    try:
        if staged.source.is_symlink():
            return Entry(path, "link", target=_target(staged), owner=package.filename)
        mode = staged.source.stat().st_mode
    except OSError as error:
        raise DamagedPackageCacheError(f"{package.filename}: {error.strerror} ({staged.path})") from error
    return Entry(
        path, executable=bool(mode & 0o111), source=staged.source, sha256=staged.sha256, owner=package.filename
    )


def _target(staged: StagedPath) -> str:
    """Return where a link points; an absolute target inside the staging folder is meant inside the prefix."""
    target = str(staged.source.readlink())
    root = str(staged.source)[: -len(str(staged.facts["_path"]))].rstrip("/")
    return PREFIX + target[len(root) :] if target == root or target.startswith(root + "/") else target


def conda_meta(staged: StagedPackage, *, without: frozenset[str], compiled: Iterable[str]) -> Entry:
    """Return the record by which Conda knows the package, without anything that this machine put into it.

    :param compiled: the paths (relative to the prefix) of the bytecode that we added.
    """
    package = staged.package
    paths = [
        {key: value for key, value in path.facts.items() if key != "original_path"} | {"_path": path.path}
        for path in staged.paths
        if path.path not in without
    ]
    paths += [{"_path": path, "path_type": "pyc_file"} for path in sorted(compiled)]
    record: dict[str, Any] = {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": package.build_number,
        "subdir": package.subdir,
        "fn": package.filename,
        "url": package.url,
        "channel": package.channel,
        "sha256": package.sha256,
        "md5": package.md5,
        "size": package.size,
        "depends": list(package.depends),
        "constrains": list(package.constrains),
        "license": package.license,
        "timestamp": package.timestamp,
        "noarch": package.noarch,
        "track_features": " ".join(package.track_features),
        "python_site_packages_path": package.python_site_packages_path,
        "files": [path["_path"] for path in paths],
        "paths_data": {"paths_version": 1, "paths": paths},
    }
    always = ("depends", "constrains", "build_number", "files")
    text = json.dumps(
        {key: value for key, value in record.items() if value or key in always},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    name = f"{package.name}-{package.version}-{package.build}.json"
    return Entry(f"{PREFIX[1:]}/conda-meta/{name}", data=(text + "\n").encode("utf-8", "surrogateescape"))


def link_scripts(package: LockedConda, paths: Iterable[str]) -> list[str]:
    """Return the paths of the scripts that an installer would run when it links the package."""
    wanted = {f"bin/.{package.name}-{kind}.sh" for kind in _SCRIPTS}
    return sorted(wanted & set(paths))

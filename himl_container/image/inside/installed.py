"""What is installed: distributions, their requirements, their modules, and which of them belong to a declared name."""

# No pathlib here: many paths, in a process that everybody waits for.
# ruff: noqa: PTH112, PTH118, PTH119, PTH208
from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_JUNK = {"test", "tests", "testing", "doc", "docs", "example", "examples", "benchmark", "benchmarks", "scripts"}
_SITE = re.compile(r'"(?:[^"]*/)?site-packages/([^"]+)"')
_EXTRA_ONLY = re.compile(r";\s*extra\s*==\s*['\"][^'\"]*['\"]\s*$")


def distributions(folders: Iterable[str]) -> list[dict[str, Any]]:
    """Return every installed distribution: metadata folder, name, version, requirements, top-level modules.

    Reads the text itself: ``importlib.metadata`` takes milliseconds for each distribution.
    """
    found = []
    for folder in folders:
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        found += [_distribution(os.path.join(folder, n)) for n in names if n.endswith((".dist-info", ".egg-info"))]
    return [one for one in found if one["name"]]


def _distribution(folder: str) -> dict[str, Any]:
    header = ""
    for name in ("METADATA", "PKG-INFO", ""):  # an old .egg-info may be the file itself
        header = header or read(os.path.join(folder, name) if name else folder).split("\n\n", 1)[0]
    fields: dict[str, list[str]] = {}
    for line in re.sub(r"\n[ \t]+", " ", header).split("\n"):
        key, _, value = line.partition(":")
        fields.setdefault(key.lower(), []).append(value.strip())
    requires = fields.get("requires-dist", []) or _egg_requires(read(os.path.join(folder, "requires.txt")))
    record = read(os.path.join(folder, "RECORD"))
    modules = modules_of(line.split(",", 1)[0].strip('"') for line in record.split("\n"))
    if not record:
        modules = {name: [name] for name in read(os.path.join(folder, "top_level.txt")).split() if name.isidentifier()}
    return {
        "folder": os.path.basename(folder),
        "name": fields.get("name", [""])[0],
        "version": fields.get("version", [""])[0],
        "requires": [text for text in requires if not _EXTRA_ONLY.search(text)],
        "modules": modules,
    }


def _egg_requires(text: str) -> list[str]:
    """Return the requirements of an old ``requires.txt``: the first section, and those with a marker only."""
    found = []
    marker, extra = "", False
    for line in (line.strip() for line in text.split("\n")):
        if line.startswith("["):
            name, _, marker = line.strip("[]").partition(":")
            extra = bool(name)
        elif line and not extra:
            found.append(f"{line} ; {marker}" if marker else line)
    return found


def modules_of(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return the top-level modules among files of ``site-packages``.

    Each with the modules to import for it: itself, or, for a namespace package, the packages that are in it.
    """
    packages: dict[str, set[str]] = {}
    for path in paths:
        head, slash, rest = path.partition("/")
        if not path.endswith((".py", ".so")):
            continue
        if not slash:
            stem = head.split(".")[0]
            if stem.isidentifier():
                packages.setdefault(stem, set()).add("")
        elif head.isidentifier():
            folder, _, name = rest.rpartition("/")
            inits = packages.setdefault(head, set())
            if name.startswith("__init__."):
                inits.add(folder)
    return {top: [_dotted(top, folder) for folder in _shallowest(inits)] for top, inits in packages.items()}


def _shallowest(folders: set[str]) -> list[str]:
    chosen: list[str] = []
    for folder in sorted(folders, key=lambda one: (one.count("/") + bool(one), one)):
        parts = folder.split("/")
        inside = any(not above or folder.startswith(above + "/") for above in chosen)
        if not inside and all(not part or part.isidentifier() for part in parts):
            chosen.append(folder)
    return chosen[:8]


def _dotted(top: str, folder: str) -> str:
    return ".".join([top, *folder.split("/")]) if folder else top


def declared_modules(
    pip: Iterable[str],
    conda: dict[str, list[str]],
    installed: list[dict[str, Any]],
    prefix: str,
    without_modules: Iterable[str] = (),
) -> dict[str, list[str] | None]:
    """Return what to import for each declared name: nothing where it brings no module, None where it is not there.

    :param pip: normalised names of distributions.
    :param conda: package name -> the records in ``conda-meta`` to look at, the package's own first; the first one that
        has modules counts.
    :param without_modules: names of Conda packages whose records need not be read, because there is no module in them.
    """
    by_name = {_normal(one["name"]): one for one in installed}
    by_folder = {one["folder"]: one for one in installed}
    found: dict[str, list[str] | None] = {}
    for name in pip:
        found[name] = _names(by_name[name]["modules"]) if name in by_name else None
    meta, without = os.path.join(prefix, "conda-meta"), set(without_modules)
    there_are = set(os.listdir(meta)) if without and os.path.isdir(meta) else set()
    for name, records in conda.items():
        if name in without:
            found[name] = [] if any(record + ".json" in there_are for record in records) else None
            continue
        modules: list[str] = []
        there = False
        for record in records:
            text = read(os.path.join(meta, record + ".json"))
            there = there or bool(text)
            inside = _SITE.findall(text) if "site-packages/" in text else []
            known = sorted({path.split("/", 1)[0] for path in inside} & by_folder.keys())
            own = [by_folder[folder]["modules"] for folder in known] or [modules_of(inside)]
            modules = modules or [module for one in own for module in _names(one)]
        found[name] = modules if there else None
    return found


def _names(modules: dict[str, list[str]]) -> list[str]:
    chosen = [top for top in modules if not top.startswith("_") and top.lower() not in _JUNK]
    return [name for top in sorted(chosen) for name in modules[top]]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read(path: str) -> str:
    """Return a file's text; empty where it cannot be read."""
    return read_bytes(path).decode("utf-8", "replace").replace("\r\n", "\n")


def read_bytes(path: str) -> bytes:
    """Return a file's content; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""

"""The source folder as AzureML takes it.

The rules are those of the AzureML SDK v1 (``azureml-core`` 1.61, ``_project/ignore_file.py``,
``_base_sdk_common/merkle_tree.py``, ``_restclient/snapshots_client.py``):

- ``.amlignore`` in the folder decides what is left out; ``.gitignore`` only where there is no ``.amlignore``; files of
  these names in sub-folders have no say. Patterns are Git's. A folder is asked for without a trailing slash.
- Symbolic links are followed, to files and to folders.
- At most 300 MB, and at most 2000 files unless ``AML_SNAPSHOT_NO_FILE_LIMIT`` is set.

Where neither file exists, the list that AzureML writes into a new ``.amlignore`` is used. Beyond AzureML, ``.git`` and
earlier run folders never belong to a snapshot: nobody means to send them, and each would break the limits. Nor does
``most_recent_run.txt`` in the folder itself: each submission writes it, and the source would seem changed every time.
Empty folders are not part of a snapshot.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from himl_container.errors import InputError
from himl_container.settings import CONTEXT_MARKER

IGNORE_FILES = (".amlignore", ".gitignore")
DEFAULT_PATTERNS = (".ipynb_checkpoints", "azureml-logs", ".azureml", ".git", "outputs", "azureml-setup", "docs")
MAX_BYTES = 300 << 20
MAX_FILES = 2000
NO_FILE_LIMIT = "AML_SNAPSHOT_NO_FILE_LIMIT"
EARLIER_RUNS = "earlier runs"
RENDERED = "written by 'himl-container render'"
NEVER = "not part of any snapshot"
RUN_RECOVERY_FILE = "most_recent_run.txt"
_SHOWN = 5


@dataclass(frozen=True, order=True)
class SnapshotFile:
    """One file of a snapshot: its path below the root with ``/``, its size in bytes, and whether it is executable."""

    path: str
    size: int
    executable: bool
    source: Path = field(compare=False)


@dataclass(frozen=True, order=True)
class Ignored:
    """Something that is left out: its path (a folder ends in ``/``), and the rule that says so."""

    path: str
    rule: str


@dataclass(frozen=True)
class Snapshot:
    """What would be taken.

    :param ignore_file: name of the file whose rules applied, or empty.
    :param outside: links that lead out of the folder; what they point at is part of the snapshot, as in AzureML.
    """

    root: Path
    files: tuple[SnapshotFile, ...]
    ignored: tuple[Ignored, ...]
    ignore_file: str
    outside: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def find(self, path: str) -> SnapshotFile | None:
        """Return the file of a path, or None."""
        return next((file for file in self.files if file.path == path), None)

    def why_ignored(self, path: str) -> str:
        """Return the rule that leaves a path out, or empty."""
        for item in self.ignored:
            if path == item.path or (item.path.endswith("/") and path.startswith(item.path)):
                return item.rule
        return ""


def scan(root: Path, *, skip: Sequence[Path] = ()) -> Snapshot:
    """Look at a source folder and decide what belongs to its snapshot; reads no file but the ignore file.

    A build context that ``render`` wrote is left out like earlier runs: it holds the whole environment.

    :param skip: files and folders that are left out whatever the rules say (earlier runs).
    :raises InputError: the folder does not exist, or something in it cannot be part of a snapshot.
    """
    if not root.is_dir():
        raise InputError("the source folder does not exist", where=str(root))
    rules, name = _read_rules(root)
    # By name, because the link to the newest run may lead nowhere; by place, because a folder may have two names.
    skipped = frozenset(str(path) for path in skip) | frozenset(os.path.realpath(path) for path in skip)
    walk = _Walk(root, rules, skipped)
    walk.folder("", root, (os.path.realpath(root),))
    if walk.problems:
        raise InputError(
            "these cannot be part of a snapshot: " + "; ".join(_first(walk.problems)),
            where=str(root),
            hint=f"Remove them, or name them in {name or '.amlignore'}.",
        )
    return Snapshot(root, tuple(sorted(walk.files)), tuple(sorted(walk.ignored)), name, tuple(walk.outside))


def check_limits(snapshot: Snapshot, environ: Mapping[str, str]) -> None:
    """Refuse a snapshot that AzureML would refuse.

    :raises InputError: it is larger than 300 MB or has more than 2000 files; the error names what weighs most.
    """
    where, rules = str(snapshot.root), snapshot.ignore_file or ".amlignore"
    if snapshot.size > MAX_BYTES:
        largest = _first([f"{path} ({_megabytes(size)})" for path, size in _heaviest(snapshot, lambda file: file.size)])
        raise InputError(
            f"the snapshot is {_megabytes(snapshot.size)}; AzureML takes at most {_megabytes(MAX_BYTES)}. "
            f"The largest: {', '.join(largest)}",
            where=where,
            hint=f"Name in {rules} what the run does not need; data belongs into datasets (--dataset).",
        )
    if len(snapshot.files) > MAX_FILES and not environ.get(NO_FILE_LIMIT):
        fullest = _first([f"{path} ({count} files)" for path, count in _heaviest(snapshot, lambda _file: 1)])
        raise InputError(
            f"the snapshot has {len(snapshot.files)} files; AzureML takes at most {MAX_FILES}. "
            f"The fullest: {', '.join(fullest)}",
            where=where,
            hint=f"Name in {rules} what the run does not need, or set {NO_FILE_LIMIT}=1, which AzureML honours too.",
        )


class _Rules(Protocol):
    """What leaves a path out."""

    negates: bool

    def rule(self, path: str) -> str:
        """Return the rule that leaves the path out, or empty."""


class _PatternRules:
    def __init__(self, name: str, lines: Sequence[str]) -> None:
        import warnings

        import pathspec

        with warnings.catch_warnings():
            # Deprecated in pathspec 1.0 but kept: it is the style that AzureML asks for.
            warnings.simplefilter("ignore", DeprecationWarning)
            # An empty line would be dropped, and with it the numbers of the lines after it.
            self._spec = pathspec.PathSpec.from_lines("gitwildmatch", [line or "#" for line in lines])
        self._name = name
        self._lines = lines
        self.negates = any(line.startswith("!") for line in lines)

    def rule(self, path: str) -> str:
        """Return ``file:line (pattern)``, or empty."""
        result = self._spec.check_file(path)
        if not result.include or result.index is None:
            return ""
        return f"{self._name}:{result.index + 1} ({self._lines[result.index].strip()})"


class _DefaultRules:
    negates = False

    def rule(self, path: str) -> str:
        """Return the default pattern that matches, or empty. Each is a plain name, in any folder."""
        for part in path.split("/"):
            if part in DEFAULT_PATTERNS:
                return f"AzureML's default ({part})"
        return ""


class _Walk:
    """One walk through a source folder."""

    def __init__(self, root: Path, rules: _Rules, skip: frozenset[str]) -> None:
        self.rules, self.skip, self.root = rules, skip, os.path.realpath(root)
        self.files: list[SnapshotFile] = []
        self.ignored: list[Ignored] = []
        self.outside: list[str] = []
        self.problems: list[str] = []

    def folder(self, prefix: str, folder: Path, parents: tuple[str, ...]) -> None:
        try:
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(f"{prefix or '.'}: {error.strerror}")
            return
        for entry in entries:
            self._entry(prefix + entry.name, entry, parents)

    def _entry(self, path: str, entry: os.DirEntry[str], parents: tuple[str, ...]) -> None:
        never = entry.name == ".git" or path == RUN_RECOVERY_FILE
        rule = EARLIER_RUNS if entry.path in self.skip else NEVER if never else self.rules.rule(path)
        if rule:
            self.ignored.append(Ignored(path + "/" if entry.is_dir() else path, rule))
            return
        try:
            info = entry.stat()
            path.encode()
        except OSError as error:
            self.problems.append(f"{path}: {'a link to nothing' if entry.is_symlink() else error.strerror}")
            return
        except UnicodeEncodeError:
            self.problems.append(f"{os.fsencode(path)!r}: the name is not UTF-8")
            return
        if stat.S_ISDIR(info.st_mode):
            self._sub_folder(path, entry, parents)
        elif stat.S_ISREG(info.st_mode):
            self._note_link(path, entry)
            self.files.append(SnapshotFile(path, info.st_size, bool(info.st_mode & 0o111), Path(entry.path)))
        else:
            self.problems.append(f"{path}: neither a file nor a folder")

    def _sub_folder(self, path: str, entry: os.DirEntry[str], parents: tuple[str, ...]) -> None:
        real = os.path.realpath(entry.path)
        # A folder pattern with a slash at its end ("data/") matches what is inside only. Where nothing can be taken
        # back by a "!" line, the folder need not be walked; it may hold a million files.
        rule = "" if self.rules.negates else self.rules.rule(path + "/")
        rule = EARLIER_RUNS if real in self.skip else rule
        if os.path.exists(os.path.join(entry.path, CONTEXT_MARKER)):  # noqa: PTH110, PTH118 - a walk over many folders
            rule = RENDERED
        if rule:
            self.ignored.append(Ignored(path + "/", rule))
        elif real in parents:
            self.problems.append(f"{path}: a link to a folder that it lies in")
        else:
            self._note_link(path, entry)
            self.folder(path + "/", Path(entry.path), (*parents, real))

    def _note_link(self, path: str, entry: os.DirEntry[str]) -> None:
        if entry.is_symlink() and not os.path.realpath(entry.path).startswith(self.root.rstrip("/") + "/"):
            self.outside.append(path)


def _read_rules(root: Path) -> tuple[_Rules, str]:
    for name in IGNORE_FILES:
        path = root / name
        if path.exists():
            try:
                return _PatternRules(name, path.read_text(encoding="utf-8").split("\n")), name
            except (OSError, ValueError) as error:
                raise InputError(f"cannot be read as an ignore file: {error}", where=str(path)) from error
    return _DefaultRules(), ""


def _heaviest(snapshot: Snapshot, weigh: _Weigh) -> Iterator[tuple[str, int]]:
    """Yield files and top-level folders of a snapshot by weight."""
    weights: dict[str, int] = {}
    for file in snapshot.files:
        top, slash, _rest = file.path.partition("/")
        weights[top + slash] = weights.get(top + slash, 0) + weigh(file)
    yield from sorted(weights.items(), key=lambda item: (-item[1], item[0]))


class _Weigh(Protocol):
    def __call__(self, _file: SnapshotFile, /) -> int: ...


def _first(items: Sequence[str]) -> list[str]:
    return [*items[:_SHOWN], f"and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else list(items)


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MB"

"""The record of one run on disk.

::

    <runs>/latest -> <id>                   link to the newest run
    <runs>/<name>_<seconds>_<hex>/          the id has the form of AzureML's run ids
        run.json                            what was run, how it went; always whole
        snapshot/                           the source as it was taken
        outputs/ logs/                      what the script wrote there
        user_logs/std_log.txt               what it printed (AzureML's names: docs/running-locally.md)
        work/                               the working folders of the nodes

"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from himl_container.errors import InputError, StorageError
from himl_container.whole_file import replace_file

RECORD = "run.json"
LATEST = "latest"
State = Literal["preparing", "running", "completed", "failed", "cancelled", "timed_out", "lost"]
FINISHED: frozenset[State] = frozenset({"completed", "failed", "cancelled", "timed_out", "lost"})
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,150}", re.ASCII)


@dataclass(frozen=True)
class NodeRecord:
    """One container of a run.

    :param attempt: 0 for the first start, 1 after the first preemption, and so on.
    :param started, ended: UTC, ISO 8601; empty for not yet.
    :param exit_code: of the script; None where it did not end by itself.
    :param log: path of its log below the run folder.
    """

    rank: int
    attempt: int
    container: str
    log: str
    started: str = ""
    ended: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    preempted: bool = False


@dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` holds.

    :param launch: the LaunchSpec, with secrets hidden.
    :param local: what only this machine has: folders, options of the local launcher.
    :param exit_code: of the whole run, as the command line returns it; None while it lasts.
    :param reason: one sentence where the state alone does not say what happened.
    """

    id: str
    state: State
    launch: dict[str, object]
    local: dict[str, object] = field(default_factory=dict)
    created: str = ""
    started: str = ""
    ended: str = ""
    exit_code: int | None = None
    reason: str = ""
    nodes: tuple[NodeRecord, ...] = ()


class RunFolder:
    """The folder of one run, and its record."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path = path
        self.record = record
        self._before = ""

    @classmethod
    def create(cls, runs: Path, name: str, launch: dict[str, object], local: dict[str, object]) -> RunFolder:
        """Make the folder of a new run.

        :raises StorageError: it cannot be written; nothing is left behind.
        """
        try:
            runs.mkdir(parents=True, exist_ok=True)
            path, run_id = _new_folder(runs, name)
        except OSError as error:
            raise _cannot_write(runs, error) from error
        folder = cls(path, RunRecord(run_id, "preparing", launch, local, created=now()))
        try:
            for part in ("outputs", "logs", "user_logs", "work"):
                (path / part).mkdir()
            # Results do not belong into the user's repository, wherever the runs lie.
            (path / ".gitignore").write_text("*\n", encoding="utf-8")
            folder.update()
        except OSError as error:
            folder.discard()
            raise _cannot_write(path, error) from error
        except StorageError:
            folder.discard()
            raise
        return folder

    @property
    def id(self) -> str:
        """The run's id, which is also the folder's name."""
        return self.record.id

    def update(self, **changes: object) -> None:
        """Change fields of the record and write it, whole or not at all.

        :raises StorageError: it cannot be written; the change is kept in memory.
        """
        self.record = replace(self.record, **changes)  # type: ignore[arg-type]
        text = json.dumps(asdict(self.record), indent=1, ensure_ascii=False) + "\n"
        try:
            replace_file(self.path / RECORD, text.encode())
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def set_nodes(self, nodes: Iterable[NodeRecord], **changes: object) -> None:
        """Put in or replace the records of nodes, change other fields, and write the record."""
        known = {(item.attempt, item.rank): item for item in (*self.record.nodes, *nodes)}
        self.update(nodes=tuple(known[key] for key in sorted(known)), **changes)

    def log(self, rank: int, nodes: int, attempt: int) -> Path:
        """Return the log of a node, in AzureML's names, with its folder made."""
        name = "std_log.txt" if nodes == 1 else f"std_log_process_{rank:02d}.txt"
        folder = self.path / "user_logs"
        if attempt:
            folder = folder / f"retry_{attempt:03d}"
            folder.mkdir(exist_ok=True)
        return folder / name

    def point_latest(self) -> None:
        """Let ``latest`` beside the folder lead to this run. A file system without links goes without."""
        link = self.path.parent / LATEST
        if os.path.lexists(link):
            if not _is_latest(link):
                return
            self._before = str(link.readlink())
        _link(link, self.id)

    def discard(self) -> None:
        """Remove the folder of a run that never started; ``latest`` leads to the one before again."""
        link = self.path.parent / LATEST
        if _is_latest(link) and str(link.readlink()) == self.id:
            if self._before:
                _link(link, self._before)
            else:
                link.unlink(missing_ok=True)
        import shutil

        shutil.rmtree(self.path, ignore_errors=True)


def read_record(runs: Path, run_id: str) -> RunRecord:
    """Read the record of a run by its id (or ``latest``).

    :raises InputError: the id is not one, or there is no such run.
    """
    if not _ID.fullmatch(run_id):
        raise InputError(f"{run_id!r} is not the id of a run", where=str(runs))
    path = runs / run_id / RECORD
    try:
        value = json.loads(path.read_bytes())
        nodes = tuple(NodeRecord(**node) for node in value.pop("nodes"))
        return RunRecord(nodes=nodes, **value)
    except FileNotFoundError as error:
        raise InputError(f"there is no run {run_id!r}", where=str(runs)) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"this is not the record of a run: {error}", where=str(path)) from error


def earlier_runs(runs: Path) -> tuple[Path, ...]:
    """Return the run folders that lie in a folder, and the link to the newest; what else lies there is not ours."""
    try:
        return tuple(path for path in sorted(runs.iterdir()) if _is_latest(path) or (path / RECORD).is_file())
    except OSError:
        return ()


def _is_latest(path: Path) -> bool:
    """Tell our link from somebody's own file of that name; what it leads to may have been removed."""
    return path.name == LATEST and path.is_symlink() and bool(_ID.fullmatch(str(path.readlink())))


def _link(link: Path, target: str) -> None:
    temporary = link.with_name(f".{LATEST}.{target}")
    try:
        temporary.symlink_to(target)
        os.replace(temporary, link)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()


def now() -> str:
    """Return the time, UTC, ISO 8601, to the millisecond."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds // 1_000_000:03d}+00:00"


def _new_folder(runs: Path, name: str) -> tuple[Path, str]:
    seconds = int(time.time())
    while True:
        run_id = f"{name}_{seconds}_{os.urandom(4).hex()}"
        if not _ID.fullmatch(run_id):
            raise InputError(f"{name!r} cannot be the name of a run")
        try:
            (runs / run_id).mkdir()
        except FileExistsError:
            continue
        return runs / run_id, run_id


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write: {error.strerror or error}",
        where=str(path),
        hint="Free some space, or choose another place with --runs-dir.",
    )

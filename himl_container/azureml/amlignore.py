"""What the snapshot leaves out, written into ``.amlignore`` for as long as the SDK looks at it.

The SDK reads ``.amlignore`` in the snapshot's root, else ``.gitignore``, else leaves nothing out, not even ``.git``.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.constants import AML_IGNORE_FILE
from himl_container.azureml.failures import WrongValue
from himl_container.azureml.one_at_a_time import one_at_a_time
from himl_container.errors import StorageError
from himl_container.whole_file import replace_file

if TYPE_CHECKING:
    from himl_container.launch.snapshot import Snapshot

_GIT_IGNORE_FILE = ".gitignore"
_SPECIAL = re.compile(r"([\\*?\[\]!#])|( +\Z)")


@contextlib.contextmanager
def append_to_amlignore(lines_to_append: Sequence[str], amlignore: Path | None = None) -> Iterator[None]:
    """Have more lines in an ignore file inside of the context; afterwards it is byte by byte what it was.

    A file that is made for this begins with the lines of the ``.gitignore`` beside it, which would have no say any
    more. Without lines nothing is touched.

    :param amlignore: ``.amlignore`` of the current folder by default.
    :raises WrongValue: a line is more than one. :raises StorageError: the file cannot be read or written.
    """
    if any("\n" in line or "\r" in line or "\0" in line for line in lines_to_append):
        raise WrongValue("a line of .amlignore cannot have a line break in it")
    if not lines_to_append:
        yield
        return
    path = amlignore or Path(AML_IGNORE_FILE)
    path = Path(os.path.realpath(path))  # a link stays one
    before = _read(path)
    old = before if before is not None else _git_ignored(path)

    def restore() -> None:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, before)

    with _before_the_end(restore):
        try:
            _write(path, b"\n".join([*([old.removesuffix(b"\n")] if old else []), *map(os.fsencode, lines_to_append)]))
            yield
        finally:
            restore()


@contextlib.contextmanager
def _before_the_end(action: Callable[[], None]) -> Iterator[None]:
    """Do something before ``SIGTERM`` ends the process, where nobody else takes care of that signal."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        action()
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def with_ignored(root: Path, ignored: Iterable[str | Path]) -> Iterator[Snapshot]:
    """Have the SDK take the snapshot of a folder without some folders, and return what it is.

    What is left out by other rules than those of the folder's own ignore file (runs on this machine, ``.git``,
    AzureML's default list) is written into ``.amlignore`` too; where nothing is, no file is touched. Another submission
    from the same folder waits until this one has been taken.

    :param ignored: folders or patterns, as lines of ``.amlignore`` would name them; an absolute path below the root is
        made relative to it.
    :raises InputError: something cannot be part of a snapshot.
    """
    from himl_container.launch.run_folder import earlier_runs
    from himl_container.launch.snapshot import DEFAULT_PATTERNS, IGNORE_FILES, scan

    path = root / AML_IGNORE_FILE
    lines = [_line(item, root) for item in ignored]
    with contextlib.ExitStack() as stack:
        # Before anything is looked at: what another submission has written for its own time is not the user's.
        stack.enter_context(one_at_a_time(path, "amlignore"))
        if lines and not path.exists():
            # A new file switches off what applies without one.
            defaults = [] if any((root / name).exists() for name in IGNORE_FILES) else DEFAULT_PATTERNS
            lines = [*defaults, *lines, f"/{AML_IGNORE_FILE}"]
        stack.enter_context(append_to_amlignore(lines, path))
        snapshot = scan(root, skip=earlier_runs(root / "runs"))
        more = left_out(snapshot)
        if more and not path.exists():
            more.append(f"/{AML_IGNORE_FILE}")  # it is not the user's, so the run does not see it
        stack.enter_context(append_to_amlignore(more, path))
        yield snapshot


def left_out(snapshot: Snapshot) -> list[str]:
    """Return lines for everything that a snapshot leaves out by other rules than those of the folder's own file."""
    own = f"{snapshot.ignore_file}:" if snapshot.ignore_file else None
    # Without the slash at the end, which the SDK's look at a folder would not match.
    return [
        f"/{_SPECIAL.sub(_escaped, item.path.rstrip('/'))}"
        for item in snapshot.ignored
        if own is None or not item.rule.startswith(own)
    ]


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[1]}" if found[1] else "\\ " * len(found[2])


def _line(item: str | Path, root: Path) -> str:
    if Path(item).is_absolute():
        with contextlib.suppress(ValueError):
            return f"/{Path(item).relative_to(root.absolute()).as_posix()}"
    return item.as_posix() if isinstance(item, Path) else item


def _git_ignored(amlignore: Path) -> bytes:
    git = amlignore.parent / _GIT_IGNORE_FILE
    return git.read_bytes() if git.is_file() else b""


def _read(path: Path) -> bytes | None:
    """Return a file's content; None where it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"the ignore file cannot be read: {error.strerror}", where=str(path)) from error


def _write(path: Path, data: bytes) -> None:
    try:
        replace_file(path, data)
    except OSError as error:
        what = f"what is left out of the snapshot cannot be written: {error.strerror}"
        raise StorageError(what, where=str(path), hint="AzureML reads it from this file alone.") from error

"""The snapshot as a folder of its own for the SDK to take, and what git says of the folder that it comes from.

The SDK takes what its own look at a folder finds. A copy of exactly our snapshot makes both the same: no ``.amlignore``
has to be changed for the time of a submission, two submissions from one folder do not meet, empty folders and what
other rules leave out (runs on this machine, ``--ignore``) are not sent, and the run finds the ignore file as the user
wrote it.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from himl_container.launch.snapshot import Snapshot
    from himl_container.launch.spec import SnapshotRef

_GIT_TIMEOUT = 20.0
_CEILING = "GIT_CEILING_DIRECTORIES"


class Staged:
    """A snapshot on its way.

    :param folder: what the SDK takes. :param reference: what is in it, exactly.
    """

    def __init__(self, folder: Path, reference: SnapshotRef, git: Future[dict[str, str]]) -> None:
        self.folder, self.reference, self._git = folder, reference, git

    @contextlib.contextmanager
    def described(self, environ: MutableMapping[str, str]) -> Iterator[None]:
        """Have the SDK find out what git says of the original folder, and not of the copy.

        It reads these variables before it asks git itself (``_base_sdk_common/tracking``).
        """
        with _told(environ, {**self._git.result(), _CEILING: str(self.folder.parent)}):
            yield


@contextlib.contextmanager
def described_by_git(root: Path, environ: MutableMapping[str, str]) -> Iterator[None]:
    """Have the SDK say of a run what git says of a folder now.

    By itself the SDK would send a login in the address of the remote repository, and take the folder for changed
    because of the ``.amlignore`` that a submission writes.
    """
    with _told(environ, git_facts(root, environ)):
        yield


@contextlib.contextmanager
def _told(environ: MutableMapping[str, str], values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that have no value yet, but for git's own limit, which is always set."""
    wanted = {name: value for name, value in values.items() if name == _CEILING or not environ.get(name)}
    before = {name: environ.get(name) for name in wanted}
    environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value


@contextlib.contextmanager
def staged(snapshot: Snapshot, environ: Mapping[str, str]) -> Iterator[Staged]:
    """Copy a snapshot into a temporary folder, which is gone afterwards.

    :raises InputError: a file vanished or cannot be read. :raises StorageError: the disk is full.
    """
    from himl_container.launch.working_copy import take

    with (
        tempfile.TemporaryDirectory(prefix="himl-submit-") as place,
        ThreadPoolExecutor(1, thread_name_prefix="git") as pool,
    ):
        # As they are now: variables come and go while an image is built, which must not happen under a copy of them.
        git = pool.submit(git_facts, snapshot.root, dict(environ))
        # By the name of the original: the SDK shows it, and may keep what it knows of a snapshot by it.
        folder = Path(place, snapshot.root.name or "snapshot")
        yield Staged(folder, take(snapshot, folder), git)


def git_facts(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what git says of a folder, as the variables that the SDK reads; nothing where it is in no repository.

    A login in the address of the remote repository is left out, which the SDK itself would send.
    """
    from himl_container.environment.urls import scrub

    if _git(root, environ, "rev-parse", "--is-inside-work-tree") != "true":
        return {}
    values = {
        "AZUREML_GIT_REPOSITORY_URI": scrub(_git(root, environ, "ls-remote", "--get-url")),
        "AZUREML_GIT_BRANCH": _git(root, environ, "symbolic-ref", "--short", "HEAD"),
        "AZUREML_GIT_COMMIT": _git(root, environ, "rev-parse", "HEAD"),
        # Without a word the SDK would look for itself.
        "AZUREML_GIT_DIRTY": "true" if _git(root, environ, "status", "--porcelain", ".") else "false",
    }
    return {name: value for name, value in values.items() if value}


def _git(root: Path, environ: Mapping[str, str], *words: str) -> str:
    """Return what git prints; empty where it fails, is not installed, or takes too long."""
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=root,
            env={**environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_GIT_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""

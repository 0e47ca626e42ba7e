"""Fetching and linking Conda packages by rattler, from rattler's own package cache, which other tools share.

rattler compares the hash of what it downloads, but not of an archive in a ``file://`` channel, and then remembers the
wrong content under the right hash. So such archives are hashed here before rattler sees them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from himl_container.environment.channels import Mirrors, to_mirror
from himl_container.environment.model import LockedConda
from himl_container.environment.urls import redact, scrub
from himl_container.errors import ArtifactError, BuildError, HimlError, StorageError
from himl_container.progress import Reporter, Task

_FIELDS = ("name", "version", "build", "build_number", "subdir", "noarch", "depends", "constrains", "sha256", "size",
           "python_site_packages_path", "channel")  # fmt: skip
_FAILED = re.compile(r"failed to (fetch|link) (\S+)")
_MISMATCH = re.compile(r"hash mismatch.*expected ([0-9a-f]{64}), got ([0-9a-f]{64})", re.DOTALL)
_UNREACHABLE = re.compile(r"client error \(Connect\)|dns error|timed out|error sending request|connection closed", re.I)
_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")
_DISK = re.compile(r"os error (13|28|30|122)\)")

_RELOCK = "Run 'himl-container lock --upgrade NAME' when the channel replaced the package on purpose."
_OFFLINE = "Without internet, let 'channel-mirrors' in the settings name a channel folder or an internal mirror."
_LOGIN = "Give rattler the credentials: a file named by RATTLER_AUTH_FILE, the system's keyring, or netrc."


class DamagedPackageCacheError(Exception):
    """rattler cannot install what its cache holds; fetching it anew, into another cache, may help."""


def install(
    packages: Sequence[LockedConda],
    folder: Path,
    *,
    prefix: str,
    mirrors: Mirrors,
    reporter: Reporter,
    fresh: bool = False,
) -> Path:
    """Fetch the packages that rattler's cache lacks, and link all of them into a new folder, which is returned.

    What cannot be linked from rattler's cache is fetched anew. Parameters as of :class:`Installation`.

    :param folder: an empty folder, in which the new one and all work in progress is made.
    :raises ArtifactError: a package cannot be fetched, or is not the one that the lock names.
    :raises StorageError: the disk is full.
    """
    if not fresh:
        try:
            with Installation([packages], folder, prefix=prefix, mirrors=mirrors, reporter=reporter) as installation:
                return installation.wait(0)
        except DamagedPackageCacheError as error:
            reporter.warn(f"Conda packages cannot be installed from rattler's cache ({error}); they are fetched again")
    again = folder / "fresh"
    again.mkdir()
    try:
        with Installation(
            [packages], again, prefix=prefix, mirrors=mirrors, reporter=reporter, fresh=True
        ) as installation:
            return installation.wait(0)
    except DamagedPackageCacheError as error:
        raise ArtifactError(f"the package is malformed: {error}") from error


class Installation(AbstractContextManager["Installation"]):
    """Batches of packages that rattler fetches and links in the background, in their order, each into a new folder.

    Link scripts are never run. Leaving the context ends the work.

    :param batches: the packages of each batch.
    :param folder: an empty folder, in which the new ones and all work in progress are made.
    :param prefix: the path that replaces the placeholders in the packages' files.
    :param fresh: fetch everything anew instead of trusting rattler's cache, which other tools write to.
    """

    def __init__(
        self,
        batches: Sequence[Sequence[LockedConda]],
        folder: Path,
        *,
        prefix: str,
        mirrors: Mirrors,
        reporter: Reporter,
        fresh: bool = False,
    ) -> None:
        self._batches = batches
        self._folder = folder
        self._prefix = prefix
        self._mirrors = mirrors
        self._reporter = reporter
        self._fresh = fresh
        self._done: list[Future[None]] = [Future() for _ in batches]
        self._stack = ExitStack()

    def __enter__(self) -> Installation:
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            downloads = stack.enter_context(_Downloads(self._reporter))
            self._process = stack.enter_context(self._start())
            stack.callback(self._hang_up)
            threads = [
                Thread(target=self._feed, daemon=True),
                Thread(target=self._listen, args=(downloads,), daemon=True),
            ]
            for thread in reversed(threads):
                stack.callback(thread.join)
            stack.callback(self._end)
            for thread in threads:
                thread.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def wait(self, number: int) -> Path:
        """Wait until a batch is linked and return its folder.

        :raises ArtifactError: a package cannot be fetched, or is not the one that the lock names.
        :raises DamagedPackageCacheError: rattler's cache holds what cannot be linked.
        :raises StorageError: the disk is full.
        """
        self._done[number].result()
        return self._place(number)

    def _place(self, number: int) -> Path:
        return self._folder / f"prefix-{number}"

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, Path(__file__).with_name("_install_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _hang_up(self) -> None:
        """Close what jobs are handed over by. One that could not be is still waiting there, and nobody will read it:
        that is no error, and must not take the place of the one that is under way, or of Ctrl-C.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _feed(self) -> None:
        """Hand over the batches, each when its local archives have been compared with the lock."""
        assert self._process.stdin is not None
        for number, packages in enumerate(self._batches):
            if self._process.poll() is not None:
                return
            try:
                check_local(packages, self._mirrors)
            except HimlError as error:
                with suppress(InvalidStateError):  # the process was ended meanwhile, and that was told
                    self._done[number].set_exception(error)
                continue
            with suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps(self._job(number, packages)).encode() + b"\n")
                self._process.stdin.flush()

    def _job(self, number: int, packages: Sequence[LockedConda]) -> dict[str, Any]:
        return {
            "number": number,
            "records": [_record(package, to_mirror(package.url, self._mirrors)) for package in packages],
            "folder": str(self._place(number)),
            "prefix": self._prefix,
            "package_cache": str(self._folder / "packages") if self._fresh else "",
        }

    def _listen(self, downloads: _Downloads) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if "job" not in event:
                downloads.add(**event)
            elif event["error"]:
                packages = self._batches[event["job"]]
                self._done[event["job"]].set_exception(_explained(event["error"], packages, self._mirrors))
            else:
                self._done[event["job"]].set_result(None)
        self._log.seek(0)
        reason = _panic(scrub(self._log.read().decode(errors="replace")).strip().splitlines())
        for future in self._done:
            with suppress(InvalidStateError):
                future.set_exception(DamagedPackageCacheError(f"rattler ended abnormally: {reason}"))


def _panic(lines: Sequence[str]) -> str:
    """Return what a process of rattler said before its end: the line after "panicked at", else the last one."""
    for number, line in enumerate(lines[:-1]):
        if "panicked at" in line:
            return lines[number + 1]
    return lines[-1] if lines else "it said nothing"


def check_local(packages: Sequence[LockedConda], mirrors: Mirrors) -> None:
    """Compare the archives that lie in ``file://`` channels with the lock.

    :raises ArtifactError: one is missing or has another hash.
    """
    local = [(package, path) for package in packages if (path := _local_path(to_mirror(package.url, mirrors)))]
    if len(local) == 1:
        _check_hash(*local[0])
    elif local:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda pair: _check_hash(*pair), local))


def _local_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _check_hash(package: LockedConda, path: Path) -> None:
    try:
        status = path.stat()
        actual = _sha256(path, status.st_size, status.st_mtime_ns, status.st_ino)
    except OSError as error:
        raise _failed(
            package, redact(path.as_uri()), error.strerror or str(error), hint="Is the channel folder complete?"
        ) from error
    if actual != package.sha256:
        raise _mismatch(package, redact(path.as_uri()), package.sha256, actual)


@functools.lru_cache(maxsize=4096)
def _sha256(path: Path, _size: int, _time: int, _inode: int) -> str:
    """Return the hash (hex) of a file; once per process while the file stays the same one."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _record(package: LockedConda, url: str) -> dict[str, Any]:
    record = {name: getattr(package, name) for name in _FIELDS}
    return {**record, "url": url, "file_name": package.filename}


def _explained(text: str, packages: Sequence[LockedConda], mirrors: Mirrors) -> Exception:
    text = scrub(text)
    causes = [line.removeprefix("Caused by: ").rstrip(".") for line in text.splitlines() if line.strip()]
    reason = causes[-1] if causes else "rattler gave no reason"
    disk = _DISK.search(text)
    if disk:
        return StorageError(
            f"cannot write a Conda package: {reason}",
            hint="Free some space; RATTLER_CACHE_DIR says where packages are kept, --cache-dir where layers are.",
        )
    failed = _FAILED.search(text)
    package = next((p for p in packages if failed and p.filename == failed[2]), None)
    if failed is None or package is None:
        return BuildError(f"Conda packages could not be laid out: {'; '.join(causes) or reason}")
    if failed[1] == "link":
        return DamagedPackageCacheError(f"{package.filename}: {reason}")
    return _not_fetched(text, reason, package, mirrors)


def _not_fetched(text: str, reason: str, package: LockedConda, mirrors: Mirrors) -> ArtifactError:
    url = redact(to_mirror(package.url, mirrors))
    mismatch = _MISMATCH.search(text)
    if mismatch:
        return _mismatch(package, url, mismatch[1], mismatch[2])
    status = _STATUS.search(text)
    if status:
        hint = _LOGIN if status[1] in ("401", "403") else "Is the channel (or its mirror) complete? " + _OFFLINE
        return _failed(package, url, f"the server answered {status[1]}", hint=hint)
    if _UNREACHABLE.search(text):
        return _failed(package, url, f"the server cannot be reached ({reason})", hint=_OFFLINE)
    return _failed(package, url, reason, hint="Is the archive whole? Expected " + _expected(package) + ".")


def _expected(package: LockedConda) -> str:
    return f"{package.size} bytes with sha256 {package.sha256}"


def _failed(package: LockedConda, url: str, what: str, *, hint: str) -> ArtifactError:
    return ArtifactError(f"cannot be fetched from {url}: {what}", where=package.filename, hint=hint)


def _mismatch(package: LockedConda, url: str, expected: str, actual: str) -> ArtifactError:
    what = f"is not the package that the lock names: sha256 of {url} is {actual}, expected {expected}"
    return ArtifactError(what, where=package.filename, hint=_RELOCK.replace("NAME", package.name))


class _Downloads(AbstractContextManager["_Downloads"]):
    """Downloads as one step of bytes, which begins with the first of them: a build without any is silent."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._task: Task | None = None
        self._done: dict[str, int] = {}
        self._totals: dict[str, int] = {}

    def add(self, download: str, done: int, total: int) -> None:
        """Take note of how far a package is."""
        if self._task is None:
            self._task = self._reporter.step("download", "Conda packages", total=0, unit="bytes").__enter__()
        if download not in self._done:
            self._task.note(download)
        self._totals[download] = max(total, done)
        self._task.advance(done - self._done.get(download, 0), total=sum(self._totals.values()))
        self._done[download] = done

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.__exit__(kind, error, trace)

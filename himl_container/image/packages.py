"""Fetching and linking Conda packages by rattler, from rattler's own package cache, which other tools share.

rattler compares the hash of what it downloads, but not of an archive in a ``file://`` channel, and then remembers the
wrong content under the right hash. So such archives are hashed here before rattler sees them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from himl_container.environment.channels import Mirrors, to_mirror
from himl_container.environment.model import LockedConda
from himl_container.environment.urls import redact, scrub
from himl_container.errors import ArtifactError, BuildError, HimlError, StorageError
from himl_container.progress import Reporter, Task

if TYPE_CHECKING:
    from rattler import RepoDataRecord

_FAILED = re.compile(r"failed to (fetch|link) (\S+)")
_MISMATCH = re.compile(r"hash mismatch.*expected ([0-9a-f]{64}), got ([0-9a-f]{64})", re.DOTALL)
_UNREACHABLE = re.compile(r"client error \(Connect\)|dns error|timed out|error sending request|connection closed", re.I)
_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})")
_DISK = re.compile(r"os error (13|28|30|122)\)")

_RELOCK = "Run 'himl-container lock --upgrade NAME' when the channel replaced the package on purpose."
_OFFLINE = "Without internet, let 'channel_mirrors' in the settings name a channel folder or an internal mirror."
_LOGIN = "Give rattler the credentials: a file named by RATTLER_AUTH_FILE, the system's keyring, or netrc."


class DamagedPackageCacheError(Exception):
    """A package in rattler's cache lacks files; fetching it anew, into another cache, helps."""


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

    Link scripts are never run.

    :param folder: an empty folder, in which the new one and all work in progress is made.
    :param prefix: the path that replaces the placeholders in the packages' files.
    :param fresh: fetch everything anew instead of trusting rattler's cache, which other tools write to.
    :raises ArtifactError: a package cannot be fetched, or is not the one that the lock names.
    :raises StorageError: the disk is full.
    """
    if not fresh:
        try:
            return _install(packages, folder / "prefix", prefix, mirrors, reporter, package_cache=None)
        except DamagedPackageCacheError as error:
            reporter.warn(f"rattler's package cache is damaged ({error}); the packages are fetched again")
    try:
        return _install(packages, folder / "fresh", prefix, mirrors, reporter, package_cache=folder / "packages")
    except DamagedPackageCacheError as error:
        raise ArtifactError(f"the package is malformed: {error}") from error


def _install(
    packages: Sequence[LockedConda],
    folder: Path,
    prefix: str,
    mirrors: Mirrors,
    reporter: Reporter,
    *,
    package_cache: Path | None,
) -> Path:
    from rattler import install as rattler_install

    check_local(packages, mirrors)
    records = [_record(package, to_mirror(package.url, mirrors)) for package in packages]
    progress = _Progress(reporter)
    with progress:
        try:
            _run(
                rattler_install(
                    records,
                    folder,
                    cache_dir=package_cache,
                    installed_packages=[],
                    execute_link_scripts=False,
                    show_progress=False,
                    reporter=progress,
                    alternative_target_prefix=prefix,
                )
            )
        except HimlError:
            raise
        except Exception as error:
            # rattler's own errors have no common base, and a panic of it arrives as a bare Exception.
            raise _explained(str(error), packages, mirrors) from error
    return folder


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
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    except OSError as error:
        raise _failed(
            package, redact(path.as_uri()), error.strerror or str(error), hint="Is the channel folder complete?"
        ) from error
    if total.hexdigest() != package.sha256:
        raise _mismatch(package, redact(path.as_uri()), package.sha256, total.hexdigest())


def _record(package: LockedConda, url: str) -> RepoDataRecord:
    from rattler import BuildString, PackageRecord, RepoDataRecord

    record = PackageRecord(
        package.name,
        package.version,
        BuildString.new_unchecked(package.build),
        package.build_number,
        package.subdir,
        noarch=package.noarch or None,  # type: ignore[arg-type]  # rattler refuses what it does not know
        depends=list(package.depends),
        constrains=list(package.constrains),
        sha256=bytes.fromhex(package.sha256),
        size=package.size,
        python_site_packages_path=package.python_site_packages_path or None,
    )
    return RepoDataRecord(record, package.filename, url, package.channel)


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to the end, also where the caller is inside an event loop already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()


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


class _Progress(AbstractContextManager["_Progress"]):
    """rattler's call-backs (structural: its own protocol would have to be imported) as one step of bytes.

    They come from rattler's threads. The step begins with the first download, so that a build without any is silent.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._lock = threading.Lock()
        self._task: Task | None = None
        self._names: list[str] = []
        self._done: dict[int, int] = {}
        self._totals: dict[int, int] = {}

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._task is not None:
            self._task.__exit__(kind, error, trace)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return _ignore
        raise AttributeError(name)

    def on_populate_cache_start(self, _operation: int, package_name: str) -> int:
        with self._lock:
            self._names.append(package_name)
            return len(self._names) - 1

    def on_download_start(self, cache_entry: int) -> int:
        with self._lock:
            if self._task is None:
                self._task = self._reporter.step("download", "Conda packages", total=0, unit="bytes").__enter__()
            self._task.note(self._names[cache_entry])
        return cache_entry

    def on_download_progress(self, index: int, progress: int, total: int | None) -> None:
        with self._lock:
            if self._task is not None:
                self._totals[index] = max(total or 0, progress)
                self._task.advance(progress - self._done.get(index, 0), total=sum(self._totals.values()))
                self._done[index] = progress


def _ignore(*_arguments: object) -> int:
    return 0

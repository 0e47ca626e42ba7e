"""Installs Conda packages by rattler in a process of its own. Executed as a script; not a module of the package.

In a process of its own because a package that is odd enough makes rattler abort the process that it runs in, and
because its threads may still hold the interpreter when a process ends. Each JSON line of standard input is a job with
a number; standard output tells what is downloaded, ``{"download": name, "done": bytes, "total": bytes}``, and when a
job has ended, ``{"job": number, "error": text}``, with an empty text when all went well. The process ends when its
standard input does, so it does not outlive its parent.
"""

from __future__ import annotations

import sys

# The folder of this script must not shadow the standard library.
sys.path[:] = [path for path in sys.path if path != __file__.rpartition("/")[0]]

import asyncio  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import threading  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from rattler import BuildString, PackageRecord, RepoDataRecord, install  # noqa: E402

_STEP = 1 << 18
_output = threading.Lock()


_AT_ONCE = 2
"""Jobs under way: while one is being linked, the next is being fetched."""


def main() -> None:
    """Do the jobs as they come, in their order."""
    os.nice(5)  # the daemon unpacks what is written already, one layer at a time: nobody shall keep it waiting
    asyncio.run(_serve())


async def _serve() -> None:
    loop, jobs = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()

    def read() -> None:
        for line in sys.stdin.buffer:
            loop.call_soon_threadsafe(jobs.put_nowait, json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    await asyncio.gather(*(_work(jobs) for _ in range(_AT_ONCE)))


async def _work(jobs: asyncio.Queue[dict[str, Any]]) -> None:
    while True:
        job = await jobs.get()
        try:
            await _install(job)
            error = ""
        except Exception as failure:  # noqa: BLE001  # rattler's errors have no common base
            error = str(failure) or repr(failure)
        _tell({"job": job["number"], "error": error})


async def _install(job: dict[str, Any]) -> None:
    await install(
        [_record(record) for record in job["records"]],
        job["folder"],
        cache_dir=Path(job["package_cache"]) if job["package_cache"] else None,
        installed_packages=[],
        execute_link_scripts=False,
        show_progress=False,
        reporter=_Progress(),
        alternative_target_prefix=job["prefix"],
    )


def _record(fields: dict[str, Any]) -> RepoDataRecord:
    record = PackageRecord(
        fields["name"],
        fields["version"],
        BuildString.new_unchecked(fields["build"]),
        fields["build_number"],
        fields["subdir"],
        noarch=fields["noarch"] or None,
        depends=fields["depends"],
        constrains=fields["constrains"],
        sha256=bytes.fromhex(fields["sha256"]),
        size=fields["size"],
        python_site_packages_path=fields["python_site_packages_path"] or None,
    )
    return RepoDataRecord(record, fields["file_name"], fields["url"], fields["channel"])


class _Progress:
    """rattler's call-backs; they come from its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._told: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return _ignore
        raise AttributeError(name)

    def on_populate_cache_start(self, _operation: int, package_name: str) -> int:
        """Return the package's number."""
        with self._lock:
            self._names.append(package_name)
            return len(self._names) - 1

    def on_download_start(self, cache_entry: int) -> int:
        """Return the package's number again."""
        _tell({"download": self._names[cache_entry], "done": 0, "total": 0})
        return cache_entry

    def on_download_progress(self, index: int, progress: int, total: int | None) -> None:
        """Tell, but not for every packet."""
        if progress == total or progress - self._told.get(index, 0) >= _STEP:
            self._told[index] = progress
            _tell({"download": self._names[index], "done": progress, "total": total or 0})


def _ignore(*_arguments: object) -> int:
    return 0


def _tell(line: dict[str, Any]) -> None:
    with _output:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

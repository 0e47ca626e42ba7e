"""Bytecode for a package's modules, compiled once by the environment's own interpreter and kept by the package's hash.

The work is done by ``_compile_worker.py`` in a few processes; see there why the result is the same on every machine.
One *pack* (a file of the cache) holds all bytecode of one package: a line of JSON that says what lies where, then the
``.pyc`` files one after the other. Each part carries its hash, so a damaged pack is noticed when it is used.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import queue
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from himl_container.cache import Cache
from himl_container.errors import BuildError
from himl_container.image.model import PREFIX
from himl_container.image.tar import Entry

_FORMAT = "himl-bytecode-1"
_FILES_PER_JOB = 16
_CRASHES = (-4, -6, -7, -8, -11)  # SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV: what a source can do to a compiler


@dataclass(frozen=True)
class Module:
    """A source file of a package.

    :param path: relative to the prefix.
    :param source: where its content lies now.
    :param shipped: the ``.pyc`` that the package brings for it; used where Python itself would use it.
    :param shipped_sha256: what the content of that file must hash to (hex).
    :param time: modification time of the source in the package, seconds since 1970.
    """

    path: str
    source: Path
    shipped: Path | None = None
    shipped_sha256: str = ""
    time: int = 0


class DamagedBytecodeError(Exception):
    """A package's own bytecode is not what the package has; fetching it anew helps."""


class Compiler:
    """Compiles modules with one interpreter. Use as a context: leaving it ends the worker processes.

    :param python: the interpreter's prefix on this machine.
    :param identity: what tells interpreters apart that write different bytecode (the package's hash).
    """

    def __init__(self, python: Path, identity: str, *, cache: Cache, workers: int | None = None) -> None:
        self._executable = python / "bin" / "python"
        self._identity = identity
        self._cache = cache
        workers = workers or min(8, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="compile")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._tag = ""
        for _ in range(min(2, workers)):  # while packages are still being laid out
            self._pool.submit(self._start)

    def __enter__(self) -> Compiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def compile(self, package: str, modules: Sequence[Module], *, fresh: bool = False) -> list[Entry]:
        """Return the entries of the modules' ``.pyc`` files. Modules that do not compile have none.

        :param package: hash of the package that the modules come from.
        :param fresh: compile again, whatever the cache holds.
        :raises BuildError: the interpreter does not run on this machine.
        :raises DamagedBytecodeError: bytecode that a package brings was changed.
        """
        if not modules:
            return []
        text = json.dumps([_FORMAT, PREFIX, self._identity, package, sorted(module.path for module in modules)])
        key = hashlib.sha256(text.encode()).hexdigest()
        pack = self._cache.root / "bytecode" / key[:2] / key
        entries = None if fresh else _entries(pack)
        if entries is None:
            with self._cache.new_folder() as folder:
                self._make(modules, folder, pack)
            entries = _entries(pack)
        if entries is None:
            raise BuildError("the bytecode that was just written is gone", where=str(pack))
        with suppress(OSError):
            os.utime(pack)  # its last use, for 'cache prune'
        return entries

    def _make(self, modules: Sequence[Module], folder: Path, pack: Path) -> None:
        ordered = sorted(modules, key=lambda module: module.path)
        jobs = [ordered[start : start + _FILES_PER_JOB] for start in range(0, len(ordered), _FILES_PER_JOB)]
        parts = [(jobs[number], folder / f"{number}.part") for number in range(len(jobs))]
        sizes = list(self._pool.map(lambda part: self._job(*part), parts))
        index: dict[str, tuple[int, int, str]] = {}
        offset = 0
        for (job, part), part_sizes in zip(parts, sizes, strict=True):
            with part.open("rb") as file:
                for module, size in zip(job, part_sizes, strict=True):
                    if size >= 0:
                        digest = hashlib.sha256(file.read(size)).hexdigest()
                        index[_pyc(module.path, self._tag)] = (offset, size, digest)
                        offset += size
        whole = folder / "pack"
        with whole.open("wb") as out:
            out.write(json.dumps(index, sort_keys=True).encode() + b"\n")
            for _, part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, out, 1 << 20)
        self._cache.folder("bytecode", pack.parent.name)
        os.replace(whole, pack)

    def _job(self, modules: Sequence[Module], out: Path) -> list[int]:
        files = [[str(m.source), f"{PREFIX}/{m.path}", str(m.shipped or ""), m.time, m.shipped_sha256] for m in modules]
        with self._worker() as worker:
            answer = worker.ask({"out": str(out), "files": files})
        if isinstance(answer, dict) and "damaged" in answer:
            raise DamagedBytecodeError(answer["damaged"])
        if isinstance(answer, dict):
            raise OSError(answer["errno"], os.strerror(answer["errno"]), answer["path"])
        if answer is not None:
            return [int(size) for size in answer]
        # A source made the compiler crash. One by one, to lose no other.
        if len(modules) == 1:
            out.write_bytes(b"")
            return [-1]
        sizes = []
        with out.open("wb") as whole:
            for number, module in enumerate(modules):
                part = out.with_suffix(f".{number}")
                sizes += self._job([module], part)
                whole.write(part.read_bytes())
        return sizes

    def _start(self) -> None:
        """Have a worker ready; where the interpreter does not run, the first job says so."""
        with suppress(BuildError):
            self._idle.put(self._new())

    def _new(self) -> _Worker:
        worker = _Worker(self._executable)
        self._tag = worker.tag
        return worker

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        """Lend a worker that no other thread has; one that died is not taken back."""
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = self._new()
        try:
            yield worker
        finally:
            if worker.alive:
                self._idle.put(worker)


class _Worker:
    """One process that compiles."""

    def __init__(self, executable: Path) -> None:
        script = Path(__file__).with_name("_compile_worker.py")
        try:
            self._process = subprocess.Popen(
                [executable, "-s", "-S", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
                cwd="/",
            )
        except OSError as error:
            raise _does_not_run(executable, str(error)) from error
        tag = self._read()
        if not isinstance(tag, str):
            code = self.close()
            raise _does_not_run(executable, f"it ends with exit code {code}")
        self.tag = tag
        self.alive = True

    def ask(self, job: dict[str, Any]) -> Any:
        """Return the answer to a job, or None when the compiler crashed over it."""
        assert self._process.stdin is not None
        data = marshal.dumps(job, 2)
        with suppress(BrokenPipeError):
            self._process.stdin.write(len(data).to_bytes(4, "little") + data)
            self._process.stdin.flush()
        answer = self._read()
        if answer is None:
            code = self.close()
            if code not in _CRASHES:
                raise BuildError(f"the process that compiles bytecode ended with exit code {code}")
        return answer

    def close(self) -> int:
        """End the process and return its exit code."""
        self.alive = False
        with suppress(BrokenPipeError):
            self._process.communicate()
        return self._process.returncode

    def _read(self) -> Any:
        assert self._process.stdout is not None
        size = self._process.stdout.read(4)
        data = self._process.stdout.read(int.from_bytes(size, "little")) if len(size) == 4 else b""
        try:
            return marshal.loads(data)  # noqa: S302  # of our own script
        except (EOFError, ValueError, TypeError):
            return None  # it died meanwhile


def _does_not_run(executable: Path, reason: str) -> BuildError:
    return BuildError(
        f"the environment's Python does not run on this machine: {reason}",
        where=str(executable),
        hint="It needs Linux on the environment's platform, with a C library not older than the lock's.",
    )


def _pyc(path: str, tag: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{tag}.pyc"


def _entries(pack: Path) -> list[Entry] | None:
    """Return what a pack holds, or None where there is no whole one."""
    try:
        with pack.open("rb") as file:
            line = file.readline()
            index = json.loads(line)
            length = os.fstat(file.fileno()).st_size - len(line)
        if not line.endswith(b"\n") or sum(size for _, size, _ in index.values()) != length:
            return None
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return [
        Entry(
            f"{PREFIX[1:]}/{path}",
            source=pack,
            offset=len(line) + offset,
            size=size,
            sha256=digest,
            owner="bytecode",
        )
        for path, (offset, size, digest) in sorted(index.items())
    ]

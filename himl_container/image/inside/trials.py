"""Trying things out in processes of their own: imports, where a crash must have a name, and commands."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LAST = 4000  # characters of a failure's output that anyone reads

# Imports module after module, and says on a pipe what it begins and how it ended; at the end also which files below the
# prefix were used besides Python's own: opened, loaded, started. "?" stands for what cannot be seen (a shell, a fork).
_IMPORTER = """
import os, sys, time
sys.path = [entry for entry in sys.path if entry]
say = os.fdopen(int(sys.argv[1]), "w")
inside, seen = sys.prefix + "/", set()
python = (inside + "lib/python", inside + "lib/libpython", os.path.realpath(sys.executable))
def use(path):
    path = os.fsdecode(path)
    if path.startswith(inside) and not path.startswith(python):
        seen.update((path, os.path.realpath(path)))
def start(program):
    program = os.fsdecode(program)
    if os.path.basename(program) in ("sh", "bash", "dash", "env"):
        seen.add("?")
    folders = [""] if "/" in program else os.get_exec_path()
    for path in (os.path.join(folder, program) for folder in folders):
        if os.path.exists(path):
            return use(path)
def watch(event, args):
    try:
        if event in ("open", "os.listdir", "os.scandir", "ctypes.dlopen") and isinstance(args[0], (str, bytes)):
            use(args[0])
        elif event == "subprocess.Popen":
            start(args[0])
        elif event in ("os.posix_spawn", "os.exec"):
            start(args[0])
        elif event in ("os.system", "os.fork", "os.forkpty"):
            seen.add("?")
    except Exception:
        seen.add("?")
if hasattr(sys, "addaudithook"):
    sys.addaudithook(watch)
else:
    seen.add("?")
for name in sys.argv[2:]:
    say.write("begin 0 " + name + "\\n"); say.flush()
    began = time.time()
    try:
        __import__(name)
        how = "ok"
    except BaseException:
        how = "failed"
        import traceback  # not before: what a module under test imports shall not be there already
        traceback.print_exc()
    say.write("%s %.3f %s\\n" % (how, time.time() - began, name)); say.flush()
with open("/proc/self/maps", errors="surrogateescape") as maps:
    for line in maps:
        use(line[73:].strip())
for path in seen:
    say.write("used 0 %s\\n" % (path if path.isprintable() else "?"))
say.write("end 0 -\\n"); say.flush()
os._exit(0)
"""


class Importer:
    """A process that imports modules one after the other. It starts at once; :meth:`results` waits for it.

    :param patience: seconds that one import may take.
    """

    def __init__(self, names: list[str], patience: float) -> None:
        self.patience = patience
        self.output = ""
        self.uses: list[str] | None = None  # what results() heard of; None before, and from a process that crashed
        self.late = False  # whether results() has lost its patience
        self._log = _log_file()
        self._pipe, theirs = os.pipe()
        os.set_inheritable(theirs, True)
        command = [sys.executable, "-c", _IMPORTER, str(theirs), *names]
        # Without the module subprocess, which takes longer to import than what is tested often does.
        self._process = os.fork()
        if self._process == 0:
            try:
                for descriptor, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, self._log), (2, self._log)):
                    os.dup2(source, descriptor)
                os.execv(command[0], command)  # noqa: S606 - no shell is wanted
            finally:
                os._exit(127)
        os.close(theirs)

    def results(self) -> dict[str, dict[str, Any]]:
        """Return how each import ended; those that a crash or the end of patience kept from it are not there."""
        found: dict[str, dict[str, Any]] = {}
        current = ""
        used: list[str] = []
        for how, seconds, name in self._said():
            if how == "used":
                used.append(name)
                continue
            if how == "end":
                self.uses = used
                continue
            current = name if how == "begin" else ""
            if how != "begin":
                found[name] = {"ok": how == "ok", "seconds": float(seconds), "detail": ""}
        ended, status = os.waitpid(self._process, os.WNOHANG if self.late else 0)
        if not ended:
            os.kill(self._process, signal.SIGKILL)
            status = os.waitpid(self._process, 0)[1]
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        os.close(self._pipe)
        size = os.lseek(self._log, 0, os.SEEK_END)
        os.lseek(self._log, max(0, size - 4 * _LAST), os.SEEK_SET)
        self.output = os.read(self._log, 4 * _LAST).decode("utf-8", "replace")[-_LAST:]
        os.close(self._log)
        if current:
            how = _ended(code) if ended else f"took longer than {self.patience:.0f} s"
            found[current] = {"ok": False, "seconds": 0.0, "detail": f"{how}\n{self.output}".strip()}
        return found

    def _said(self) -> Iterator[list[str]]:
        """Yield the three words of each line as they come; ends with the process, or with our patience."""
        rest = b""
        while True:
            ready, _, _ = select.select([self._pipe], [], [], self.patience)
            data = os.read(self._pipe, 65536) if ready else b""
            self.late = not ready
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield line.decode().split(" ", 2)
            if not data:
                return


def _log_file() -> int:
    """Return the descriptor of a new file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("log")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _ended(code: int) -> str:
    if code >= 0:
        return f"the interpreter ended with exit code {code}"
    try:
        return f"the interpreter crashed: {signal.Signals(-code).name}"
    except ValueError:
        return f"the interpreter crashed: signal {-code}"


def import_all(names: list[str], first: Importer) -> dict[str, dict[str, Any]]:
    """Return how each import ends. One that fails among others is tried again alone, which is what counts.

    :param first: a process that was started to import all of them.
    """
    found = first.results()
    left = [name for name in names if name not in found]
    while left:  # a crash ended the process; go on behind it
        more = Importer(left, first.patience).results()
        if not more:
            break
        found.update(more)
        left = [name for name in left if name not in found]
    for name in names:
        if not found.get(name, {"ok": False})["ok"]:
            found[name] = _alone(name, first.patience)
    return found


def _alone(name: str, patience: float) -> dict[str, Any]:
    importer = Importer([name], patience)
    result = importer.results().get(name, {"ok": False, "seconds": 0.0, "detail": ""})
    if result["ok"]:
        result["detail"] = "fails when the other declared modules are imported before it in one process"
    else:
        silent = f"took longer than {patience:.0f} s to start" if importer.late else "did not start"
        result["detail"] = result["detail"] or importer.output.strip() or f"the interpreter {silent}"
    return result


def run(command: list[str], patience: float) -> dict[str, Any]:
    """Run a command to its end; its output is cut to what anyone reads. Exit code 124 means that it took too long."""
    import subprocess

    began = time.time()
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=patience,
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, output = 124, (error.stdout or b"") + f"\nended after {patience:.0f} s".encode()
    except OSError as error:
        code, output = 127, str(error).encode()
    return {"code": code, "output": output.decode("utf-8", "replace")[-_LAST:], "seconds": time.time() - began}

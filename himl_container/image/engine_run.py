"""Running a container to its end: created, attached, started, awaited and removed, whatever happens."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himl_container.image.docker_http import Stream, segment
from himl_container.image.engine import ContainerResult

if TYPE_CHECKING:
    from himl_container.image.engine_client import Client

TIMED_OUT = 124
"""Exit code of a container that was ended because its time was over, as of the ``timeout`` command."""

_FRAME_HEADER = 8
_STDOUT = 1
_REMOVAL_PATIENCE = 30.0  # seconds
_ENDING = 1.0  # seconds that a process may take to end after its last word


@dataclass(frozen=True)
class Task:
    """What to run; the fields are those of :meth:`himl_container.image.engine.Engine.run`."""

    image: str
    command: tuple[str, ...]
    mounts: tuple[tuple[Path, str, bool], ...]
    environment: dict[str, str]
    entrypoint: tuple[str, ...] | None
    network: bool
    bare: bool
    answer: bytes
    workdir: str
    user: str


def run(client: Client, task: Task, *, timeout: float | None) -> ContainerResult:
    """Run a container and return how it ended.

    :param timeout: seconds after which it is killed; the result has exit code 124 then, and its output so far.
    :raises EngineError: it could not be started, or the daemon went away.
    """
    doing = f"run a container of {task.image}"
    container = _created(client, doing, _body(task))
    answered = False
    try:
        path = f"/containers/{segment(container)}"
        # Attached before the start, so that not a byte is missed and no log file has to be kept.
        params = {"stream": "1", "stdout": "1", "stderr": "1"}
        with client.open(doing, f"{path}/attach", method="POST", params=params) as output:
            client.post(doing, f"{path}/start")
            with _ended_after(client, path, timeout) as expired:
                content, answered = _content(client, doing, output, task.answer)
                if answered:
                    return ContainerResult(0, content)
                # There is no limit: who wants one gave a timeout, which ends the container.
                code = int(client.post(doing, f"{path}/wait", timeout=None)["StatusCode"])
        return ContainerResult(
            exit_code=TIMED_OUT if expired.is_set() else code,
            output=content,
            oom_killed=code != 0 and _oom_killed(client, doing, path),
        )
    finally:
        # No daemon thread: an interpreter that ends waits for it. Without an answer the removal is waited for here, and
        # goes on where Ctrl-C ends the waiting: who then removes the image waits for it once more.
        removal = threading.Thread(target=_remove_ending if answered else _remove, args=(client, container))
        _removals.append(removal)
        removal.start()
        if not answered:
            removal.join()
            with contextlib.suppress(ValueError):  # somebody else has waited for it too
                _removals.remove(removal)


def finish_removals() -> None:
    """Wait until the containers that were left to a thread are gone, but not for a daemon that answers no more."""
    while _removals:
        _removals.pop().join(_REMOVAL_PATIENCE)


_removals: list[threading.Thread] = []


def _created(client: Client, doing: str, body: dict[str, Any]) -> str:
    """Create a container and return its id.

    In a thread: Ctrl-C in the middle of the request would leave a container that the daemon has and nobody knows, and
    that keeps its image from being removed.
    """
    made: list[str] = []
    problems: list[BaseException] = []

    def create() -> None:
        try:
            made.append(str(client.post(doing, "/containers/create", body=body)["Id"]))
        except BaseException as error:  # noqa: BLE001 - it is raised where the container was asked for
            problems.append(error)

    thread = threading.Thread(target=create, daemon=True)
    try:
        thread.start()
        thread.join()
    except BaseException:
        if thread.ident is not None:
            thread.join(_REMOVAL_PATIENCE)
        for container in made:
            _remove(client, container)
        raise
    if problems:
        raise problems[0]
    return made[0]


def _remove_ending(client: Client, container: str) -> None:
    with contextlib.suppress(Exception):  # one that does not end is ended by its removal
        # One that ends by itself is gone in a fifth of the time that the daemon takes to end it.
        client.post("remove a container", f"/containers/{segment(container)}/wait", timeout=_ENDING)
    _remove(client, container)


def _remove(client: Client, container: str) -> None:
    # An error here must not hide the one that is under way; a daemon that is gone has lost its containers.
    with contextlib.suppress(Exception):
        client.delete("remove a container", f"/containers/{segment(container)}", {"force": "1", "v": "1"})


def _body(task: Task) -> dict[str, Any]:
    host: dict[str, Any] = {
        "Mounts": [
            {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}
            for source, target, read_only in task.mounts
        ],
        "LogConfig": {"Type": "none"},  # the output is read as it comes
    }
    body: dict[str, Any] = {
        "Image": task.image,
        "Cmd": list(task.command),
        "Env": [f"{name}={value}" for name, value in task.environment.items()],
        "WorkingDir": task.workdir,
        "User": task.user,
        "Healthcheck": {"Test": ["NONE"]},
        "AttachStdout": True,
        "AttachStderr": True,
        "Labels": {"himl.role": "tool"},
        "HostConfig": host,
    }
    if not task.network:
        host["NetworkMode"] = "none"
        # There is a network namespace of its own all the same, with a loopback interface: runc makes it. What is left
        # out is the daemon's part, for which it starts a copy of itself: half of the time that a start takes.
        body["NetworkDisabled"] = task.bare
    if task.entrypoint is not None:
        body["Entrypoint"] = list(task.entrypoint)
    return body


def _content(client: Client, doing: str, output: Stream, answer: bytes) -> tuple[bytes, bool]:
    """Return a container's output, to its end or to the end of the answer, and whether that has come.

    With the answer, only standard output: what else is said could stand in the midst of the answer.
    """
    content, said = bytearray(), bytearray()
    begin = b"\n" + answer
    with client.converting(doing):
        # Each piece has a header of its channel and its length.
        while len(header := output.body.read(_FRAME_HEADER)) == _FRAME_HEADER:
            piece = output.body.read(int.from_bytes(header[4:], "big"))
            content += piece
            if not answer or header[0] != _STDOUT:
                continue
            said += piece
            at = said.rfind(begin)
            if at >= 0 and said.find(b"\n", at + 1) >= 0:
                return bytes(said), True
    return bytes(content), False


def _oom_killed(client: Client, doing: str, path: str) -> bool:
    return bool(((client.json(doing, f"{path}/json") or {}).get("State") or {}).get("OOMKilled"))


@contextlib.contextmanager
def _ended_after(client: Client, path: str, timeout: float | None) -> Iterator[threading.Event]:
    expired = threading.Event()

    def end() -> None:
        expired.set()
        with contextlib.suppress(Exception):  # it ended by itself at this moment, or the daemon went away
            client.post("end a container", f"{path}/kill")

    timer = threading.Timer(timeout, end) if timeout is not None else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield expired
    finally:
        if timer:
            timer.cancel()

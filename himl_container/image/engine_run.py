"""Running a container to its end: created, attached, started, awaited and removed, whatever happens."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himl_container.image.engine import ContainerResult

if TYPE_CHECKING:
    from himl_container.image.engine_client import Client

TIMED_OUT = 124
"""Exit code of a container that was ended because its time was over, as of the ``timeout`` command."""


@dataclass(frozen=True)
class Task:
    """What to run; the fields are those of :meth:`himl_container.image.engine.Engine.run`."""

    image: str
    command: tuple[str, ...]
    mounts: tuple[tuple[Path, str, bool], ...]
    environment: dict[str, str]
    entrypoint: tuple[str, ...] | None
    network: bool
    workdir: str
    user: str


def run(client: Client, task: Task, *, timeout: float | None) -> ContainerResult:
    """Run a container and return how it ended.

    :param timeout: seconds after which it is killed; the result has exit code 124 then, and its output so far.
    :raises EngineError: it could not be started, or the daemon went away.
    """
    doing = f"run a container of {task.image}"
    with client.converting(doing), _created(client, task) as container:
        # Attached before the start, so that not a byte is missed and no log file has to be read afterwards.
        stream = client.sdk.attach(container, stdout=True, stderr=True, stream=True, logs=True)
        with _ended_after(client, container, timeout) as expired:
            client.sdk.start(container)
            output = b"".join(stream)
            code = int(client.sdk.wait(container)["StatusCode"])
        state = client.sdk.inspect_container(container)["State"]
        return ContainerResult(
            exit_code=TIMED_OUT if expired.is_set() else code,
            output=output,
            oom_killed=bool(state.get("OOMKilled")),
        )


@contextlib.contextmanager
def _created(client: Client, task: Task) -> Iterator[str]:
    from docker.types import Mount

    sdk = client.sdk
    host: dict[str, Any] = sdk.create_host_config(
        mounts=[
            Mount(target, str(source), type="bind", read_only=read_only) for source, target, read_only in task.mounts
        ],
        # Without a network of its own a container starts much faster, and nothing can reach out.
        network_mode=None if task.network else "none",
    )
    container = sdk.create_container(
        task.image,
        command=list(task.command),
        environment=task.environment,
        entrypoint=None if task.entrypoint is None else list(task.entrypoint),
        working_dir=task.workdir,
        user=task.user,
        host_config=host,
        labels={"himl.role": "tool"},
    )["Id"]
    try:
        yield container
    finally:
        # An error here must not hide the one that is under way; a daemon that is gone has lost its containers.
        with contextlib.suppress(Exception):
            sdk.remove_container(container, force=True, v=True)


@contextlib.contextmanager
def _ended_after(client: Client, container: str, timeout: float | None) -> Iterator[threading.Event]:
    expired = threading.Event()

    def end() -> None:
        expired.set()
        with contextlib.suppress(Exception):  # it ended by itself at this moment, or the daemon went away
            client.sdk.kill(container)

    timer = threading.Timer(timeout, end) if timeout is not None else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield expired
    finally:
        if timer:
            timer.cancel()

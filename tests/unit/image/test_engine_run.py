"""A container of our own is gone in the end, also where Ctrl-C comes while the daemon creates or removes it."""

from __future__ import annotations

import contextlib
import io
import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from himl_container.image.engine_client import Client
from himl_container.image.engine_run import Task, finish_removals, run

TASK = Task(
    image="a/b:c",
    command=("true",),
    mounts=(),
    environment={},
    entrypoint=None,
    network=False,
    bare=False,
    answer=b"",
    workdir="/",
    user="0:0",
)


class Daemon:
    """A daemon that does what it was asked to, also where nobody waits for the answer any more.

    :param interrupted: the request during which Ctrl-C is pressed.
    """

    def __init__(self, interrupted: str) -> None:
        self._interrupted = interrupted
        self.containers: set[str] = set()

    def post(self, _doing: str, path: str, **_more: object) -> dict[str, Any] | None:
        try:
            self._begin(path)
        finally:
            if path == "/containers/create":
                self.containers.add("one")
        return {"/containers/create": {"Id": "one"}, "/containers/one/wait": {"StatusCode": 0}}.get(path)

    def delete(self, _doing: str, path: str, _params: object) -> None:
        try:
            self._begin("delete")
        finally:
            self.containers.discard(path.rpartition("/")[2])

    def json(self, _doing: str, _path: str) -> dict[str, Any]:
        return {}

    @contextlib.contextmanager
    def open(self, _doing: str, _path: str, **_more: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(body=io.BytesIO())

    def converting(self, _doing: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def _begin(self, request: str) -> None:
        if request == self._interrupted:
            self._interrupted = ""
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.mark.parametrize("request_", ["/containers/create", "/containers/one/start", "delete"])
def test_ctrl_c_leaves_no_container(request_: str) -> None:
    daemon = Daemon(request_)
    with pytest.raises(KeyboardInterrupt):
        run(cast("Client", daemon), TASK, timeout=None)
    finish_removals()  # as the end of the command line, and whoever removes the image, do
    assert daemon.containers == set()


def test_a_container_that_cannot_be_created_is_the_error() -> None:
    class Refusing(Daemon):
        def post(self, _doing: str, path: str, **_more: object) -> dict[str, Any] | None:
            raise LookupError(path)

    with pytest.raises(LookupError, match="create"):
        run(cast("Client", Refusing("")), TASK, timeout=None)

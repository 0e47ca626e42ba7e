"""What a daemon answers, or does not: played on a socket of the test's own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.errors import EngineError, LaunchError
from himl_container.image.docker_http import DockerHttp, segment
from himl_container.image.endpoint import Endpoint
from himl_container.launch.containers import ContainerConfig, Ended
from himl_container.launch.docker_containers import DockerContainers


class Daemon:
    """Answers each connection with the next prepared bytes, and closes it."""

    def __init__(self, path: Path) -> None:
        self.requests: list[bytes] = []
        self._answers: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self.containers = DockerContainers(Endpoint(f"unix://{path}", "test"))
        threading.Thread(target=self._serve, daemon=True).start()

    def answer(self, *answers: bytes) -> None:
        self._answers += answers

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(1 << 20))
                connection.sendall(self._answers.pop(0) if self._answers else b"")


def http(status: int, body: bytes) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Type: x\r\n\r\n".encode() + body


def frame(channel: int, data: bytes) -> bytes:
    return bytes([channel, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "socket")
    yield daemon
    daemon.close()


CONFIG = ContainerConfig("himl-x", "image", ("python", "train.py"))


def test_no_daemon(tmp_path: Path) -> None:
    containers = DockerContainers(Endpoint(f"unix://{tmp_path}/nothing", "test"))
    with pytest.raises(EngineError, match="no Docker daemon"):
        containers.image("x")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent", b"not http at all\r\n\r\n", http(200, b'{"Id": "sha')]
)
def test_a_daemon_that_goes_away_in_the_middle_of_an_answer(daemon: Daemon, answer: bytes) -> None:
    daemon.answer(answer)
    with pytest.raises(EngineError):
        daemon.containers.image("x")


def test_an_image_that_does_not_exist_is_none_and_a_failing_look_up_is_an_error(daemon: Daemon) -> None:
    daemon.answer(http(404, b"{}"), http(500, b'{"message": "disk broken"}'))
    assert daemon.containers.image("x") is None
    with pytest.raises(EngineError, match="disk broken"):
        daemon.containers.image("x")


def test_output_is_taken_apart_by_channel(daemon: Daemon) -> None:
    output = frame(1, b"out\n") + frame(2, b"err\n") + frame(1, b"") + frame(1, b"x" * 100_000)
    daemon.answer(http(200, output), http(200, b'{"StatusCode": 0}'))
    session = daemon.containers.open("himl-x")
    pieces = list(session.output())
    assert pieces[:2] == [("stdout", b"out\n"), ("stderr", b"err\n")]
    assert b"".join(data for _, data in pieces[2:]) == b"x" * 100_000
    assert session.ended() == Ended(0)


def test_output_that_is_cut_off_is_kept_as_far_as_it_came(daemon: Daemon) -> None:
    daemon.answer(http(200, frame(1, b"whole") + frame(1, b"half of it")[:-3]), http(200, b""))
    session = daemon.containers.open("himl-x")
    assert b"".join(data for _, data in session.output()) == b"wholehalf of"
    with pytest.raises(EngineError, match="went away while the run was going on"):
        session.ended()


def test_a_terminals_output_comes_as_it_is(daemon: Daemon) -> None:
    daemon.answer(http(200, b"$ ls\r\n"), http(200, b'{"StatusCode": 0}'))
    assert list(daemon.containers.open("himl-x", tty=True).output()) == [("stdout", b"$ ls\r\n")]


def test_memory_is_only_asked_about_after_a_failure(daemon: Daemon) -> None:
    daemon.answer(http(200, b""), http(200, b'{"StatusCode": 137}'), http(200, b'{"State": {"OOMKilled": true}}'))
    session = daemon.containers.open("himl-x")
    assert session.ended() == Ended(137, oom_killed=True)


def test_an_error_of_the_daemon_at_the_end_is_not_the_scripts(daemon: Daemon) -> None:
    daemon.answer(http(200, b""), http(200, b'{"StatusCode": 125, "Error": {"Message": "shim died"}}'))
    with pytest.raises(EngineError, match="shim died"):
        daemon.containers.open("himl-x").ended()


@pytest.mark.parametrize(
    ("message", "where", "text"),
    [
        ("could not select device driver", "--gpus", "no GPU"),
        ("bind source path does not exist: /x", "", "does not see a folder"),
        ("exec: nope: executable file not found in $PATH", "", "no such command"),
        ("permission denied: unknown", "", "not executable"),
    ],
)
def test_why_a_container_was_refused(daemon: Daemon, message: str, where: str, text: str) -> None:
    daemon.answer(http(400, b'{"message": "' + message.encode() + b'"}'))
    with pytest.raises(LaunchError, match=text) as caught:
        daemon.containers.start("himl-x")
    assert caught.value.where == where


def test_what_is_gone_already_needs_no_removal(daemon: Daemon) -> None:
    daemon.answer(http(404, b"{}"), http(409, b"{}"), http(404, b"{}"), http(409, b"{}"))
    daemon.containers.remove("himl-x")
    daemon.containers.signal("himl-x", "SIGTERM")
    daemon.containers.remove_network("himl-x")
    with pytest.raises(EngineError):
        daemon.containers.remove_network("himl-x")  # still in use


def test_the_request_for_a_container(daemon: Daemon) -> None:
    daemon.answer(http(201, b"{}"))
    daemon.containers.create(CONFIG)
    request = daemon.requests[0]
    assert request.startswith(b"POST /containers/create?name=himl-x HTTP/1.0\r\n")
    assert b'"Entrypoint": ["python"], "Cmd": ["train.py"]' in request


def test_another_kind_of_address_is_refused() -> None:
    with pytest.raises(EngineError, match="ssh"):
        DockerContainers(Endpoint("ssh://host", "DOCKER_HOST")).image("x")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_no_name_leaves_its_segment(text: str) -> None:
    assert not set(segment(text)) & set("/?#& \r\n")


def test_a_dead_port_is_no_daemon() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EngineError):
        DockerHttp(Endpoint(f"tcp://127.0.0.1:{port}", "test")).request("GET", "/info")

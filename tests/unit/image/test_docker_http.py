"""What a daemon answers, or does not: played on a socket of the test's own."""

from __future__ import annotations

import ast
import io
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.errors import EngineError, LaunchError
from himl_container.image.docker_http import DockerHttp, GoneError, segment
from himl_container.image.endpoint import Endpoint
from himl_container.image.http_wire import body_of, read_head
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
    assert request.startswith(b"POST /containers/create?name=himl-x HTTP/1.1\r\n")
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


class Host:
    """Answers several requests on each connection."""

    def __init__(self, path: Path, *connections: list[bytes]) -> None:
        self.requests: list[list[bytes]] = []
        self.http = DockerHttp(Endpoint(f"unix://{path}", "test"))
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._serve, args=(connections,), daemon=True).start()

    def _serve(self, connections: tuple[list[bytes], ...]) -> None:
        for answers in connections:
            connection, _ = self._socket.accept()
            with connection:
                self.requests.append([])
                for answer in answers:
                    self.requests[-1].append(connection.recv(1 << 20))
                    connection.sendall(answer)


def framed(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%X;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\nTrailer: x\r\n\r\n"


def test_a_connection_serves_request_after_request(tmp_path: Path) -> None:
    empty = b"HTTP/1.1 204 No Content\r\n\r\n"
    host = Host(tmp_path / "s", [framed(b'"one"'), chunked(b'"tw', b'o"'), empty, framed(b'"three"')])
    assert [host.http.request("GET", "/x").body for _ in range(4)] == [b'"one"', b'"two"', b"", b'"three"']
    assert len(host.requests[0]) == 4


def test_a_connection_that_the_daemon_ended_is_not_used_again(tmp_path: Path) -> None:
    host = Host(tmp_path / "s", [framed(b"1")], [framed(b"2")])
    assert host.http.request("GET", "/x").body == b"1"
    assert host.http._idle[0][0].recv(1, socket.MSG_PEEK) == b"", "waits until the other side has hung up"
    assert host.http.request("GET", "/x").body == b"2"


def test_a_connection_that_another_thread_was_quicker_to_take_is_none(tmp_path: Path) -> None:
    class Taken(list[Any]):
        """A list whose last entry goes between a look at it and what follows."""

        def __bool__(self) -> bool:
            return True

        def __len__(self) -> int:
            return 1

    host = Host(tmp_path / "s", [framed(b"1")])
    host.http._idle = Taken()
    assert host.http.request("GET", "/x").body == b"1"


@pytest.mark.parametrize(
    "answer",
    [framed(b"12345")[:-1], chunked(b"12345")[:-4], chunked(b"12345")[:-14], chunked(b"1").replace(b"1;", b"z;")],
)
def test_an_answer_that_is_cut_off_is_an_error(tmp_path: Path, answer: bytes) -> None:
    host = Host(tmp_path / "s", [answer])
    with pytest.raises(GoneError):
        host.http.request("GET", "/x")


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 40))
def test_chunks_are_put_together(pieces: list[bytes], size: int) -> None:
    data = chunked(*(piece for piece in pieces if piece))
    reader = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]
    found = read_head(reader)
    assert found is not None
    body = body_of(reader, *found)
    read = b"".join(iter(lambda: body.read(size), b""))
    assert read == b"".join(pieces)
    assert reader.read() == b"", "the next answer begins here"


def test_a_body_in_pieces_is_sent_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "s"
    received: list[bytes] = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            while not b"".join(received).endswith(b"0\r\n\r\n"):
                received.append(connection.recv(1 << 16))
            connection.sendall(framed(b"taken"))

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        http = DockerHttp(Endpoint(f"unix://{path}", "test"))
        with http.stream("POST", "/load", data=iter([b"one", b"", b"x" * 20])) as stream:
            assert stream.read_all() == b"taken"
        thread.join(60)
    head, _, body = b"".join(received).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert body == b"3\r\none\r\n14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n"


def test_a_daemon_that_refuses_in_the_middle_is_heard(tmp_path: Path) -> None:
    """It says why and hangs up; that the rest could not be sent is not the news."""
    path = tmp_path / "s"

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b'HTTP/1.1 500 X\r\nContent-Length: 24\r\n\r\n{"message": "disk full"}')

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000
        raise AssertionError("the daemon took everything")

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        stream = DockerHttp(Endpoint(f"unix://{path}", "test")).stream("POST", "/load", data=pieces())
        assert stream.status == 500
        assert b"disk full" in stream.read_all()
        stream.close()


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called ssh that notes its arguments and connects to a socket of this machine."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, select, socket, sys\n"
        f"open({str(tmp_path / 'arguments')!r}, 'a').write(repr(sys.argv[1:]) + '\\n')\n"
        f"far = socket.socket(socket.AF_UNIX); far.connect({str(tmp_path / 's')!r})\n"
        "while True:\n"
        "    ready = select.select([0, far], [], [])[0]\n"
        "    if 0 in ready:\n"
        "        far.sendall(os.read(0, 65536))\n"
        "    if far in ready:\n"
        "        data = far.recv(65536)\n"
        "        if not data: break\n"
        "        os.write(1, data)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return tmp_path / "arguments"


def test_a_daemon_behind_ssh_is_asked_through_one_process(tmp_path: Path, ssh: Path) -> None:
    Host(tmp_path / "s", [framed(b"1"), framed(b"2")])
    http = DockerHttp(Endpoint("ssh://me@far:2222", "DOCKER_HOST"))
    assert [http.request("GET", "/x").body for _ in range(2)] == [b"1", b"2"]
    (line,) = ssh.read_text().splitlines()
    assert ast.literal_eval(line)[3:] == ["-l", "me", "-p", "2222", "--", "far", "docker", "system", "dial-stdio"]


def test_ssh_that_does_not_get_there_is_a_daemon_that_does_not_answer(tmp_path: Path, ssh: Path) -> None:
    with pytest.raises(EngineError, match="went away"):
        DockerHttp(Endpoint("ssh://far", "DOCKER_HOST")).request("GET", "/x")


@pytest.mark.parametrize("url", ["ssh://-oProxyCommand=x", "ssh://-lx@far", "npipe:////./pipe/docker", "ssh://"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(EngineError, match="not supported"):
        DockerHttp(Endpoint(url, "DOCKER_HOST")).request("GET", "/x")


def test_no_ssh_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="'ssh' is not installed"):
        DockerHttp(Endpoint("ssh://far", "DOCKER_HOST")).request("GET", "/x")

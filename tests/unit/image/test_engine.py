"""Finding the daemon, asking it, and everything that it may answer instead."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from himl_container.cache import Cache
from himl_container.errors import EngineError, InputError
from himl_container.image import fingerprint
from himl_container.image.docker_engine import DockerEngine
from himl_container.image.endpoint import Endpoint, resolve_endpoint
from himl_container.image.engine_build import find_buildx
from himl_container.image.probe import cannot_connect, image_exists
from himl_container.registry.reference import is_image, parse_reference
from himl_container.settings import load_settings

from .fake_daemon import PING, Answers, fake_daemon

IMAGE = {
    "Id": "sha256:" + "1" * 64,
    "RepoTags": ["a/b:c"],
    "RootFS": {"Layers": ["sha256:" + "2" * 64]},
    "Config": {"Labels": {"x": "y"}},
}


def context(folder: Path, name: str, host: str, **endpoint: object) -> dict[str, str]:
    """Write a Docker context and make it the current one; returns the variables that lead to it."""
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / key
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host, **endpoint}}}))
    (folder / "config.json").write_text(json.dumps({"currentContext": name}))
    return {"DOCKER_CONFIG": str(folder)}


def test_the_default_socket(tmp_path: Path) -> None:
    assert resolve_endpoint({"HOME": str(tmp_path)}).socket_path == "/var/run/docker.sock"


def test_docker_host_comes_before_every_context(tmp_path: Path) -> None:
    environ = {**context(tmp_path, "far", "ssh://far"), "DOCKER_CONTEXT": "far", "DOCKER_HOST": "unix:///x.sock"}
    assert resolve_endpoint(environ).url == "unix:///x.sock"


def test_the_current_context_and_its_certificates(tmp_path: Path) -> None:
    environ = context(tmp_path, "far", "tcp://far:2376", SkipTLSVerify=True)
    tls = tmp_path / "contexts" / "tls" / hashlib.sha256(b"far").hexdigest() / "docker"
    tls.mkdir(parents=True)
    found = resolve_endpoint(environ)
    assert (found.url, found.tls_folder, found.tls_verify) == ("tcp://far:2376", tls, False)
    assert resolve_endpoint({**environ, "DOCKER_CONTEXT": "default"}).url == "unix:///var/run/docker.sock"


def test_certificates_of_docker_host(tmp_path: Path) -> None:
    found = resolve_endpoint({"DOCKER_HOST": "tcp://h:1", "DOCKER_CERT_PATH": "/c", "DOCKER_TLS_VERIFY": "1"})
    assert (found.tls_folder, found.tls_verify) == (Path("/c"), True)
    assert found.environ == {"DOCKER_HOST": "tcp://h:1", "DOCKER_CERT_PATH": "/c", "DOCKER_TLS_VERIFY": "1"}


def test_a_context_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="'nowhere' does not exist") as caught:
        resolve_endpoint({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "nowhere"})
    assert "docker context ls" in caught.value.hint


@pytest.mark.parametrize("ask", [image_exists, lambda tag, environ: DockerEngine.connect(environ).inspect(tag)])
class TestAsking:
    """The light look-up and the SDK's must agree."""

    def test_an_image_that_is_there(self, tmp_path: Path, ask) -> None:  # type: ignore[no-untyped-def]
        with fake_daemon(tmp_path, {**PING, "/images/a/b:c/json": (200, IMAGE)}) as host:
            found = ask("a/b:c", {"DOCKER_HOST": host})
        assert (found.id, found.tags, found.diff_ids) == (IMAGE["Id"], ("a/b:c",), ("sha256:" + "2" * 64,))
        assert found.labels == {"x": "y"}

    def test_an_image_that_is_not(self, tmp_path: Path, ask) -> None:  # type: ignore[no-untyped-def]
        with fake_daemon(tmp_path, {**PING, "/images/a:b/json": (404, {"message": "No such image"})}) as host:
            assert ask("a:b", {"DOCKER_HOST": host}) is None

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            ((500, {"message": "database is on fire"}), "database is on fire"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "daemon"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", "not a Docker daemon"),
            (None, "went away"),
        ],
        ids=["refusal", "not http", "not json", "closed"],
    )
    def test_an_answer_that_is_none(self, tmp_path: Path, ask, answer: object, text: str) -> None:  # type: ignore[no-untyped-def]
        answers: Answers = {**PING, "/images/a:b/json": answer}  # type: ignore[dict-item]
        with fake_daemon(tmp_path, answers) as host, pytest.raises(EngineError, match=text) as caught:
            ask("a:b", {"DOCKER_HOST": host})
        assert "fake.sock" in caught.value.where

    def test_no_daemon(self, tmp_path: Path, ask) -> None:  # type: ignore[no-untyped-def]
        dead = tmp_path / "dead.sock"
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(dead))
        for path in (tmp_path / "none.sock", dead):
            with pytest.raises(EngineError, match="no Docker daemon is running") as caught:
                ask("a:b", {"DOCKER_HOST": f"unix://{path}"})
            assert "systemctl start docker" in caught.value.hint
            assert caught.value.exit_code == 69


def test_a_socket_of_somebody_else() -> None:
    """As root no test can be refused by a socket, so the error is made by hand."""
    error = cannot_connect(Endpoint("unix:///x", "DOCKER_HOST"), PermissionError(13, "Permission denied"))
    assert "usermod -aG docker" in error.hint


def test_a_daemon_that_is_too_old(tmp_path: Path) -> None:
    answers: Answers = {"/_ping": b"HTTP/1.1 200 OK\r\nApi-Version: 1.39\r\nConnection: close\r\n\r\nOK"}
    with fake_daemon(tmp_path, answers) as host, pytest.raises(EngineError, match="too old") as caught:
        DockerEngine.connect({"DOCKER_HOST": host})
    assert "20.10" in caught.value.hint


def test_a_full_disk_of_the_daemon_is_named(tmp_path: Path) -> None:
    message = {"message": "write /var/lib/docker/tmp/x: no space left on device"}
    answers: Answers = {**PING, "/images/a:b/json": (500, message)}
    with fake_daemon(tmp_path, answers) as host, pytest.raises(EngineError) as caught:
        DockerEngine.connect({"DOCKER_HOST": host}).inspect("a:b")
    assert "docker system prune" in caught.value.hint


def test_the_look_up_imports_nothing_heavy() -> None:
    code = (
        "import sys; import himl_container.image.probe; "
        "print(sorted({'docker', 'requests', 'urllib3', 'http.client', 'ssl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_image_is_found_tagged_and_run_without_the_sdk(tmp_path: Path) -> None:
    """What a build of a changed wheel asks of the daemon; the SDK takes a third of a second."""
    code = (
        "import sys; from himl_container.image.docker_engine import DockerEngine;"
        "from himl_container.image import engine_run, engine_stream, engine_load;"
        "engine = DockerEngine.connect(); engine.info(); engine.inspect('a/b:c'); engine.known_chain_ids();"
        "print(sorted({'docker', 'requests', 'urllib3', 'http.client', 'ssl', 'email'} & set(sys.modules)))"
    )
    answers: Answers = {
        **PING,
        "/info": (200, {"ID": "x", "ServerVersion": "20.10"}),
        "/images/a/b:c/json": (200, IMAGE),
        f"/images/{IMAGE['Id']}/json": (200, IMAGE),
        "/images/json": (200, [{"Id": IMAGE["Id"]}]),
    }
    with fake_daemon(tmp_path, answers) as host:
        environ = {**os.environ, "DOCKER_HOST": host}
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_buildx_is_found_where_docker_looks(tmp_path: Path) -> None:
    environ = {"DOCKER_CONFIG": str(tmp_path / "config")}
    before = find_buildx(environ)
    extra = tmp_path / "extra"
    extra.mkdir()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(extra)]}))
    assert find_buildx(environ) == before
    plugin = extra / "docker-buildx"
    plugin.write_text("")
    assert find_buildx(environ) == before, "not executable"
    plugin.chmod(0o755)
    assert find_buildx(environ) == plugin


@pytest.mark.parametrize(
    ("text", "repository", "tag"),
    [
        ("python", "python", ""),
        ("python:3.11", "python", "3.11"),
        ("localhost:5000/a/b_c", "localhost:5000/a/b_c", ""),
        (
            "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:2024",
            "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04",
            "2024",
        ),
        ("[::1]:5000/a:b", "[::1]:5000/a", "b"),
    ],
)
def test_names_of_images(text: str, repository: str, tag: str) -> None:
    found = parse_reference(text)
    assert (found.repository, found.tag) == (repository, tag)


@given(st.text(max_size=30))
def test_no_text_becomes_another_request(text: str) -> None:
    if is_image(text):
        assert not set(text) & set(" \t\r\n?#%\\") and ".." not in text.split("/") and not text.startswith("/")
    else:
        with pytest.raises(InputError):
            DockerEngine(None, {}).inspect(text)  # type: ignore[arg-type]


def test_a_build_with_nothing_to_do_imports_little(tmp_path: Path) -> None:
    settings = load_settings({"cache_dir": tmp_path / "cache", "image_name": "a/b"}, cwd=tmp_path, environ={})
    fingerprint.remember(settings, [], "0" * 64, Cache(settings.cache_dir))
    code = (
        "import sys; from himl_container.cli.main import run; code = run(sys.argv[1:]);"
        "heavy = {'docker', 'http.client', 'ssl', 'socket', 'subprocess', 'tempfile', 'logging', 'platformdirs',"
        " 'yaml', 'rattler', 'packaging', 'jinja2', 'rich', 'himl_container.image.model',"
        " 'himl_container.publish.build'};"
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "build", "--cache-dir", settings.cache_dir, "--image-name", "a/b"]
    with fake_daemon(tmp_path, {f"/images/a/b:{'0' * 32}/json": (200, IMAGE)}) as host:
        environ = {name: text for name, text in os.environ.items() if not name.startswith(("HIML_", "XDG_"))}
        environ["DOCKER_HOST"] = host
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert "Nothing has changed" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"

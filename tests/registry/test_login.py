"""Each way of logging in, tried against a real registry that lets nobody in without it."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from kit import ROOT
from registry_server import Host, registry
from token_server import TokenServer, token_server

from himl_container.errors import RegistryError
from himl_container.registry.answers import Request
from himl_container.registry.azure_admin import ArmWorkspace
from himl_container.registry.azure_registry import AzureExchange
from himl_container.registry.client import RegistryClient
from himl_container.registry.credentials import Credentials
from himl_container.registry.login import LoginRefusedError
from himl_container.registry.model import OCI_MANIFEST, Descriptor, canonical_json, sha256_of

pytestmark = pytest.mark.registry

SECRET = "canary-secret-51ab"
IDENTITY = "canary-identity-0c7f"
Environ = Mapping[str, str]


def client(
    host: str, environ: Environ, *, name: str = "himl/train", registry: str = "", credentials: Credentials | None = None
) -> RegistryClient:
    given = credentials or Credentials.of(environ, registry=registry or host)
    return RegistryClient.connect(f"{host}/{name}", environ=environ, credentials=given, chunk=1 << 20)


@contextlib.contextmanager
def guarded(folder: Path, **options: Any) -> Iterator[tuple[TokenServer, Host]]:
    """Run a registry that wants tokens, and the server that gives them; ``options`` are the server's."""
    with token_server(folder / "tokens", **options) as tokens, registry(folder, token=tokens.service) as host:
        yield tokens, host


def push(repository: RegistryClient, text: bytes = b"{}") -> str:
    """Store an image without layers and return its digest, as the registry says it."""
    config = repository.upload_bytes(text)
    kind = "application/vnd.oci.image.config.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(kind, config, len(text)).as_json(),
        "layers": [],
    }
    return repository.put_manifest(canonical_json(manifest), OCI_MANIFEST, "tag")


def file_login(folder: Path, host: str, entry: Mapping[str, str]) -> dict[str, str]:
    """Write Docker's configuration and return the environment in which it is used."""
    (folder / "docker").mkdir(parents=True, exist_ok=True)
    (folder / "docker/config.json").write_text(json.dumps({"auths": {host: entry}}))
    return {"HOME": str(folder), "DOCKER_CONFIG": str(folder / "docker"), "PATH": os.defpath}


def coded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def variables(folder: Path, password: str = SECRET) -> dict[str, str]:
    return {
        "HOME": str(folder),
        "HIML_CONTAINER_REGISTRY_USER": "ada",
        "HIML_CONTAINER_REGISTRY_PASSWORD": password,
    }


def by_variables(folder: Path, host: str) -> dict[str, str]:
    return variables(folder)


def by_docker(folder: Path, host: str) -> dict[str, str]:
    return file_login(folder, host, {"auth": coded("ada", SECRET)})


def by_podman(folder: Path, host: str) -> dict[str, str]:
    (folder / "auth.json").write_text(json.dumps({"auths": {host: {"auth": coded("ada", SECRET)}}}))
    return {"HOME": str(folder), "REGISTRY_AUTH_FILE": str(folder / "auth.json")}


def by_helper(folder: Path, host: str) -> dict[str, str]:
    environ = file_login(folder, host, {})
    (folder / "docker/config.json").write_text(json.dumps({"credHelpers": {host: "vault"}}))
    program = folder / "docker-credential-vault"
    answer = json.dumps({"ServerURL": host, "Username": "ada", "Secret": SECRET})
    program.write_text(f"#!/bin/sh\n[ \"$(cat)\" = '{host}' ] && echo '{answer}'\n")
    program.chmod(0o755)
    return {**environ, "PATH": f"{folder}:{os.defpath}"}


@pytest.mark.parametrize("way", [by_variables, by_docker, by_podman, by_helper])
@pytest.mark.parametrize("kind", ["password", "token"])
def test_a_push_with_each_login(tmp_path: Path, way: Callable[[Path, str], dict[str, str]], kind: str) -> None:
    with token_server(tmp_path / "tokens", users={"ada": SECRET}) as tokens:
        given = {"htpasswd": {"ada": SECRET}} if kind == "password" else {"token": tokens.service}
        with registry(tmp_path / "registry", **given) as host:  # type: ignore[arg-type]
            repository = client(host, way(tmp_path, host))
            digest = push(repository)
            found = client(host, way(tmp_path, host)).manifest("tag")
            assert found is not None
            assert found.digest == digest
            with pytest.raises(LoginRefusedError):
                push(client(host, {"HOME": str(tmp_path / "nobody")}))


def test_the_login_of_the_registry_is_not_sent_to_another(tmp_path: Path) -> None:
    with registry(tmp_path, htpasswd={"ada": SECRET}) as host:
        with pytest.raises(LoginRefusedError, match="none is known"):
            client(host, variables(tmp_path), registry="team.azurecr.io").head("tag")
        assert client(host, variables(tmp_path)).head("tag") is None


def test_an_identity_token_of_docker_login(tmp_path: Path) -> None:
    with token_server(tmp_path / "tokens") as tokens, registry(tmp_path / "registry", token=tokens.service) as host:
        refresh = tokens.refresh_token("ada")
        push(client(host, file_login(tmp_path, host, {"auth": coded("x", ""), "identitytoken": refresh})))
        assert {(asked.way, asked.user) for asked in tokens.asked} == {("post", "ada")}


def test_everybody_may_read_where_the_registry_says_so(tmp_path: Path) -> None:
    with token_server(tmp_path / "tokens", users={"ada": SECRET}) as tokens:
        tokens.public = {"pull"}
        with registry(tmp_path / "registry", token=tokens.service) as host:
            push(client(host, by_docker(tmp_path, host)))
            nobody = client(host, {"HOME": str(tmp_path / "nobody")})
            assert nobody.head("tag") is not None
            with pytest.raises(LoginRefusedError, match="wants a login for 'repository:himl/train:pull,push'"):
                push(nobody, b'{"a": 1}')


def test_a_stale_login_of_docker_leaves_it_to_podmans(tmp_path: Path) -> None:
    with registry(tmp_path / "registry", htpasswd={"ada": SECRET}) as host:
        stale = file_login(tmp_path, host, {"auth": coded("ada", "yesterdays")})
        push(client(host, {**stale, **by_podman(tmp_path, host)}))


# Renewal

SHORT = 5.0  # seconds; a new token that has run out before it was used for the first time is a login that is refused


def run_out(host: Host, token: str) -> None:
    """Wait until the registry refuses a token."""
    request = urllib.request.Request(
        f"{host.url}/v2/himl/train/tags/list", headers={"Authorization": f"Bearer {token}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            opener.open(request, timeout=60).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 401:
                return
        time.sleep(0.02)
    raise AssertionError("the registry goes on taking the token")


def test_a_token_that_runs_out_in_mid_push_is_renewed(tmp_path: Path) -> None:
    """The registry refuses the token before the time that its server has announced, between two chunks of a blob."""
    content = os.urandom(5 << 20)
    (tmp_path / "blob").write_bytes(content)
    descriptor = Descriptor("application/octet-stream", sha256_of(content), len(content))
    with guarded(tmp_path, users={"ada": SECRET}, lifetime=SHORT, announced=600) as (tokens, host):
        repository = client(host, by_docker(tmp_path, host))
        waited: list[int] = []

        def sent(count: int) -> None:
            if not waited:
                waited.append(count)
                run_out(host, tokens.issued[-1])
                tokens.lifetime = 600

        repository.upload(tmp_path / "blob", descriptor, sent=sent)
        assert 0 < waited[0] < len(content), "the upload was under way"
        assert len(tokens.issued) >= 2
        assert host.blob_file(descriptor.digest).read_bytes() == content


def test_many_threads_renew_a_token_once(tmp_path: Path) -> None:
    with guarded(tmp_path, users={"ada": SECRET}, lifetime=SHORT, announced=600) as (tokens, host):
        repository = client(host, by_docker(tmp_path, host))
        digest = repository.upload_bytes(b"text")
        run_out(host, tokens.issued[-1])
        tokens.lifetime = 600
        before = len(tokens.issued)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(repository.blob_exists, [digest] * 16))
        assert len(tokens.issued) == before + 1


# Azure


@dataclass
class Identity:
    """An Azure identity, as ``azure-identity`` would give it."""

    value: str = IDENTITY

    def token(self, scope: str) -> str:
        assert scope.endswith("/.default")
        return self.value


def azure(tokens: TokenServer, *, identity: str = IDENTITY) -> Credentials:
    """The sources of a workspace whose registry is the one behind a server of tokens."""
    variables = {"HIML_SUBSCRIPTION_ID": "s", "HIML_RESOURCE_GROUP": "g", "HIML_WORKSPACE_NAME": "w"}
    given = Identity(identity)
    return Credentials(
        [
            AzureExchange({"HIML_TENANT_ID": "the-tenant"}, given, hosts=[tokens.host]),
            ArmWorkspace(variables, given, hosts=[(tokens.host, tokens.url)]),
        ]
    )


def test_an_azure_identity(tmp_path: Path) -> None:
    with guarded(tmp_path, identities={IDENTITY: "ada"}) as (tokens, host):
        tokens.upstream = host
        repository = client(tokens.host, {}, credentials=azure(tokens))
        push(repository)
        assert [(one.way, one.user, one.status) for one in tokens.asked[:2]] == [
            ("exchange", "ada", 200),
            ("post", "ada", 200),
        ]
        assert tokens.asked[0].tenant == "the-tenant"
        assert [one.way for one in tokens.asked].count("exchange") == 1
        assert client(host, {}, credentials=Credentials([])).host == host
        with pytest.raises(LoginRefusedError, match="does not accept the Azure identity"):
            push(client(tokens.host, {}, credentials=azure(tokens, identity="another")), b"[]")


def test_a_refresh_token_of_azure_that_has_run_out_is_exchanged_anew(tmp_path: Path) -> None:
    with guarded(tmp_path, identities={IDENTITY: "ada"}, lifetime=SHORT, announced=600) as (tokens, host):
        tokens.upstream = host
        repository = client(tokens.host, {}, credentials=azure(tokens))
        digest = repository.upload_bytes(b"text")
        run_out(host, tokens.issued[-1])
        tokens.refresh_tokens.clear()
        tokens.lifetime = 600
        assert repository.blob_exists(digest)
        assert [one.way for one in tokens.asked].count("exchange") == 2


def test_the_administrators_login_where_the_identity_may_only_read(tmp_path: Path) -> None:
    with token_server(tmp_path / "tokens", identities={IDENTITY: "ada"}, users={"team": SECRET}) as tokens:
        tokens.rights["ada"] = {"pull"}
        with registry(tmp_path / "registry", token=tokens.service) as host:
            tokens.upstream = host
            repository = client(tokens.host, {}, credentials=azure(tokens))
            assert repository.head("tag") is None
            assert tokens.given("team") == 0
            with pytest.raises(LoginRefusedError, match=r"(?s)of the Azure identity.*status 403, AuthorizationFailed"):
                push(repository)
            tokens.administrator = ("team", SECRET)
            push(client(tokens.host, {}, credentials=azure(tokens)))
            assert tokens.given("team") > 0


# Secrets

CHILD = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from himl_container.registry.api import connect
from himl_container.registry.model import sha256_of
name, wanted = sys.argv[1:]
repository = connect(name)
try:
    print(repository.upload_bytes(b"text"), repr(repository), vars(repository))
except Exception:
    if wanted == "refused":
        logging.exception("the push failed")
    else:
        raise
else:
    assert wanted == "taken"
input()
"""


@pytest.mark.parametrize("kind", ["password", "token"])
@pytest.mark.parametrize("wanted", ["taken", "refused"])
@pytest.mark.parametrize("way", [by_variables, by_docker, by_helper])
def test_no_secret_is_printed_logged_or_in_the_list_of_processes(
    tmp_path: Path, way: Callable[[Path, str], dict[str, str]], wanted: str, kind: str
) -> None:
    users = {"ada": SECRET if wanted == "taken" else "another"}
    with token_server(tmp_path / "tokens", users=users) as tokens:
        tokens.echo = True
        given = {"htpasswd": users} if kind == "password" else {"token": tokens.service}
        with registry(tmp_path / "registry", **given) as host:  # type: ignore[arg-type]
            environ = {**way(tmp_path, host), "HIML_CONTAINER_REGISTRY_HOST": host, "PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(
                [sys.executable, "-c", CHILD, f"{host}/himl/train", wanted],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environ,
            )
            lists: list[bytes] = []
            looked = threading.Event()
            watcher = threading.Thread(target=watch, args=(process, lists, looked))
            watcher.start()
            assert looked.wait(60)  # the process ends when it gets its line, and not before it was looked at
            output, _ = process.communicate(b"\n", timeout=60)
            watcher.join()
            assert process.returncode == 0, output.decode()
            needles = [SECRET, coded("ada", SECRET), quote(SECRET), *tokens.issued]
            seen = output + b"".join(lists)
            assert [needle for needle in needles if needle.encode() in seen] == []
            assert (b"refuses the login of" in output) == (wanted == "refused")
            assert str(host).encode() in b"".join(lists), "the list of processes was looked at"


class Echo(http.server.BaseHTTPRequestHandler):
    """A registry that quotes the login in its errors."""

    def log_message(self, *arguments: object) -> None:
        """Be silent."""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        login = self.headers.get("Authorization", "")
        message = f"{login} {base64.b64decode(login.rpartition(' ')[2]).decode()}"
        self._answer(json.dumps({"errors": [{"code": "UNSUPPORTED", "message": message}]}).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(int(self.path.rpartition("/")[2]) if "Authorization" in self.headers else 401)
        self.send_header("WWW-Authenticate", "Basic")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_registry_that_quotes_the_login(tmp_path: Path, status: int) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        repository = client(host, by_docker(tmp_path, host))
        access = repository._access
        with pytest.raises(RegistryError) as caught:
            access.transport.request(Request("GET", f"/v2/himl/train/{status}", "A request", scope=access.pull))
        server.shutdown()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert [needle for needle in (SECRET, coded("ada", SECRET)) if needle in shown] == []


def watch(process: subprocess.Popen[bytes], lists: list[bytes], looked: threading.Event) -> None:
    """Collect the command lines of a process and of what it starts, until it ends; say when that was done once."""
    seen: set[bytes] = set()
    while process.poll() is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended in the meantime
                seen.add(path.read_bytes())
        looked.set()
        time.sleep(0.05)
    lists.extend(seen)

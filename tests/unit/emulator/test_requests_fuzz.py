"""Requests that nobody would send on purpose, to the whole emulator without its network: never a fault of its own."""

from __future__ import annotations

import asyncio
import json
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.emulator.memory_blobs import MemoryBlobs

from himl_container.emulator.app import Application, Surroundings, build
from himl_container.emulator.asgi import LARGEST_BODY, EmulatorApp
from himl_container.emulator.config import EmulatorConfig
from himl_container.emulator.forward import Forwarder
from himl_container.emulator.hosts import Hosts
from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.installation import open_installation
from himl_container.emulator.job_network import Way
from himl_container.emulator.names import AAD_HOST, API_HOST, ARM_HOST
from himl_container.errors import EngineError

_HOSTS = {
    "aad": AAD_HOST,
    "arm": ARM_HOST,
    "api": API_HOST,
    "studio": "ml.azure.com",
    "telemetry": "dc.services.visualstudio.com",
}
_RUNS = ("run-1", "run-2", "parent")


@dataclass(frozen=True)
class Heard:
    """What the application answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Rig:
    """An emulator whose application is called as a server would call it."""

    application: Application
    app: EmulatorApp
    blobs: MemoryBlobs
    folder: Path

    def token(self, identity: Identity, audience: str = "https://ml.azure.com") -> str:
        return self.application.tokens.issue(identity, audience)[0]

    def ask(
        self, method: str, host: str, path: str, body: bytes = b"", *, token: str = "", query: bytes = b"", **more: str
    ) -> Heard:
        headers = {"host": host, "content-type": "application/json", **more}
        if token:
            headers["authorization"] = f"Bearer {token}"
        scope = {
            "type": "http",
            "scheme": "https",
            "method": method,
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "query_string": query,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(dict(message))

        asyncio.run(self.app(scope, receive, send))  # type: ignore[arg-type]
        head = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Heard(sent[0]["status"], head, b"".join(part.get("body", b"") for part in sent[1:]))


def _no_way() -> Way:
    raise EngineError("there is no Docker in these tests")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("fuzz")
    installation = open_installation(folder / "data", workspace_name="ws", resource_group="group")
    (installation.folder / "bundle.pem").write_text("")
    blobs = MemoryBlobs()
    around = Surroundings(blobs, "http://127.0.0.1:1", "http://127.0.0.1:2", _no_way)
    application = build(installation, EmulatorConfig(), around)
    for run in _RUNS:
        application.runs.create("experiment", run)
    nowhere = Forwarder("http://127.0.0.1:1")
    app = EmulatorApp(application, Hosts(installation.workspace), nowhere, nowhere)
    yield Rig(application, app, blobs, folder)
    application.close()


USER = Identity(Kind.USER, "somebody")
JOB = Identity(Kind.JOB, "run-1", "run-1")

_NASTY = r"""
.. . ../../etc/passwd /etc/passwd a\b ..\.. %2e%2e %00 ' " ;DROP_TABLE_runs;-- {ws} {name*} null None -1 1 1e999 ü 💥
99999999999999999999 11111111-2222-3333-4444-555555555555 default workspaceblobstore cpu-cluster _all latest
ExperimentRun dcid.run-1 dcid.parent run-1 run-2 parent experiment azureml azureml_globaldatasets AzureBlob
"""
nasty = st.one_of(
    st.sampled_from([*_NASTY.split(), "a\0b", "a\nb", "\ud800", " ", "", "x" * 300, "x" * 3000]),
    st.text(string.printable, max_size=20),
)
_KEYS = """
name runId status value values data filter orderBy top continuationToken paths path snapshotId files fileNames
FileNames Configuration SnapshotId ParentRunId DirTreeNode FileRevisionList tags properties metricId columns
createdUtc Name python docker dockerImage dataStoreType azureStorageSection accountName containerName latest dataflow
datasetType secrets contentType id children startTimeUtc endTimeUtc parentRunId events blobUri prefix origin container
resource scope grant_type version urls artifacts artifactPaths modelName mimeType Environment Target Script Arguments
NodeCount Data OutputData Mpi MaxRunDurationSeconds History Communicator Framework savedDatasetId metricKey cells body
root nextLink
"""
keys = st.one_of(st.sampled_from(_KEYS.split()), nasty)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), nasty)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5), max_leaves=12
)
bodies = st.one_of(
    values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(keys, values, max_size=8).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"", b"{", b"[", b'"', b"{" * 5000, b"\xff\xfe", b"null", b"NaN", b'{"a":1e999}', b"\0" * 50]),
    st.binary(max_size=50),
)


@st.composite
def requests(draw: st.DrawFn, routes: Any, workspace: str) -> tuple[Any, str]:
    """A route, and a path for it whose parameters are anything."""
    import re

    route = draw(st.sampled_from(routes))
    path = route.pattern.replace("{ws}", workspace)
    return route, re.sub(r"\{\w+\*?\}", lambda _: str(draw(nasty)), path)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_request_is_a_fault(rig: Rig, data: st.DataObject) -> None:
    routes = [route for route in rig.application.router.routes if route.host in _HOSTS]
    route, path = data.draw(requests(routes, rig.application.installation.workspace.path))
    verbs = st.sampled_from([route.method] * 4 + ["GET", "POST", "DELETE", "PATCH", "OPTIONS", "BREW"])
    who = data.draw(st.sampled_from([USER, JOB, None]))
    audience = "https://management.azure.com" if route.host == "arm" else "https://ml.azure.com"
    heard = rig.ask(
        data.draw(verbs),
        _HOSTS[route.host],
        path,
        data.draw(bodies),
        token="" if who is None else rig.token(who, audience),
        query=data.draw(st.sampled_from([b"", b"%24top=x", b"a=%ff&a=&=", b"runId=..%2F..&path=%00", b"&" * 50])),
    )
    assert 200 <= heard.status < 500, heard.body.decode(errors="replace")
    if who is None and not route.public:
        assert heard.status in {400, 401, 414}
    if heard.status >= 400 and route.host in {"api", "arm"} and heard.body:
        assert set(json.loads(heard.body)["error"]) >= {"code", "message"}


def test_nothing_was_written_elsewhere(rig: Rig) -> None:
    """After all of the above: no file beside the emulator's own, and no blob outside its containers' names."""
    assert {path.name for path in rig.folder.iterdir()} == {"data"}
    assert set(rig.blobs.content) <= {"azureml", "azureml-blobstore", "snapshots"}
    for names in rig.blobs.content.values():
        for name in names:
            assert not name.startswith("/")
            assert ".." not in name.split("/")
            assert "\0" not in name


@settings(max_examples=100, deadline=None)
@given(path=st.text(max_size=60), method=st.text("GETPOSHAD", min_size=1, max_size=8))
def test_any_path_at_all(rig: Rig, path: str, method: str) -> None:
    for host in (*_HOSTS.values(), "another.example"):
        heard = rig.ask(method, host, f"/{path}")
        assert 200 <= heard.status < 500
        assert host != "another.example" or heard.status in {400, 404}


def test_limits(rig: Rig) -> None:
    token = rig.token(USER)
    path = f"/credential/v2.0/{rig.application.installation.workspace.path}/secrets"
    assert rig.ask("PUT", API_HOST, path, b"x" * (LARGEST_BODY + 1), token=token).status == 413
    assert rig.ask("GET", API_HOST, f"{path}/{'x' * 9000}", token=token).status == 414
    assert rig.ask("GET", API_HOST, f"{path}/a\0b", token=token).status == 400
    assert rig.ask("GET", API_HOST, path, token=token, query=b"&".join([b"a=1"] * 2000)).status == 400


def test_a_job_changes_no_resources(rig: Rig) -> None:
    workspace = f"/{rig.application.installation.workspace.path}"
    token = rig.token(JOB, "https://management.azure.com")
    assert rig.ask("GET", ARM_HOST, workspace, token=token).status == 200
    assert rig.ask("POST", ARM_HOST, f"{workspace}/listKeys", token=token).status == 403


def test_another_workspace(rig: Rig) -> None:
    names = rig.application.installation.workspace
    token = rig.token(USER)
    for old, new in ((names.name, "other"), (names.resource_group, "other"), (names.subscription_id, "other")):
        path = names.path.replace(f"/{old}", f"/{new}")
        assert rig.ask("GET", API_HOST, f"/credential/v2.0/{path}/secrets", token=token).status == 404
        # As in Azure, names do not distinguish case.
        assert rig.ask("GET", API_HOST, f"/credential/v2.0/{names.path.upper()}/secrets", token=token).status == 200


def test_a_fault_is_answered_and_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    from himl_container.emulator.routes import Route, Router

    def fail(request: Any) -> Any:
        raise RuntimeError("of the test")

    before = rig.application.router
    rig.application.router = Router([Route("GET", "/fail", fail, "Test.Fail", "")])
    try:
        heard = rig.ask("GET", API_HOST, "/fail", token=rig.token(USER))
    finally:
        rig.application.router = before
    assert heard.status == 500
    document = json.loads(heard.body)
    assert "of the test" not in heard.body.decode()
    assert document["correlation"]["operation"] in caplog.text
    assert "RuntimeError: of the test" in caplog.text

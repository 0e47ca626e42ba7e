"""Run history, metrics, artifacts and snapshots behind a router, without a server: a dictionary is their storage."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qs, unquote, urlsplit

from unit.emulator.memory_blobs import MemoryBlobs

from himl_container.emulator.access import Access
from himl_container.emulator.http import Answer, Refusal, Request
from himl_container.emulator.identity import Identity, Kind
from himl_container.emulator.names import API_HOST, Workspace
from himl_container.emulator.routes import Router
from himl_container.emulator.services.artifacts import ArtifactService
from himl_container.emulator.services.experiments import ExperimentService
from himl_container.emulator.services.history import RunHistory
from himl_container.emulator.services.metrics import MetricService
from himl_container.emulator.services.snapshots import SnapshotService
from himl_container.emulator.state.artifacts import Artifacts
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.metrics import Metrics
from himl_container.emulator.state.runs import Run, Runs
from himl_container.emulator.state.snapshots import Snapshots
from himl_container.emulator.tokens import Tokens

WORKSPACE = Workspace("tenant", "s", "g", "w", "id", "account", "registry", "vault")
USER = Identity(Kind.USER, "somebody")


def job(run_id: str) -> Identity:
    return Identity(Kind.JOB, run_id, run_id)


class Clock:
    """A clock that a test sets; every look at it is a millisecond later."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@dataclass
class Rig:
    clock: Clock = field(default_factory=Clock)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    database: Database = field(default_factory=lambda: Database(":memory:"))

    def __post_init__(self) -> None:
        self.runs = Runs(self.database, self.clock)
        self.artifacts = Artifacts(self.database, self.blobs, self.clock)
        self.metrics = Metrics(self.database, self.clock)
        self.snapshots = Snapshots(self.database, self.blobs, self.clock)
        tokens = Mock(spec=Tokens)
        tokens.issue.side_effect = lambda identity, audience, lifetime: (f"token of {identity.run_id}", 1_900_000_000)
        access = Access(self.runs, tokens)
        services = (
            ExperimentService(self.runs, access),
            RunHistory(self.runs, self.artifacts, access, WORKSPACE),
            MetricService(self.metrics, self.runs, access, self.clock),
            ArtifactService(self.artifacts, self.blobs, access),
            SnapshotService(self.snapshots),
        )
        self.router = Router([route for service in services for route in service.routes()])

    def ask(self, method: str, path: str, body: object = None, identity: Identity = USER) -> Answer:
        """Ask a service; ``path`` is behind the name of the service, as in ``history/v1.0:/experiments/e``."""
        service, _, rest = path.partition(":/")
        address = urlsplit(f"/{service}/{WORKSPACE.path}/{rest}")
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        query = {name: tuple(values) for name, values in parse_qs(address.query).items()}
        request = Request(method, API_HOST, unquote(address.path), query, body=data, identity=identity)
        found = self.router.find("api", request)
        return found.route.handler(found.request)

    def json(self, method: str, path: str, body: object = None, identity: Identity = USER) -> Any:
        answer = self.ask(method, path, body, identity)
        assert isinstance(answer.body, bytes)
        return json.loads(answer.body)

    def status(self, method: str, path: str, body: object = None, identity: Identity = USER) -> int:
        """The status of an answer or of a refusal."""
        try:
            return self.ask(method, path, body, identity).status
        except Refusal as refusal:
            return refusal.status

    def run(self, run_id: str = "r1", experiment: str = "e", **values: Any) -> Run:
        return self.runs.create(experiment, run_id, **values)

"""Datastores, datasets, models and the data of jobs behind a router, without a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from unit.emulator.history_rig import WORKSPACE, Rig

from himl_container.emulator.access import Access
from himl_container.emulator.blobs import FILES_CONTAINER, RUNS_CONTAINER, SNAPSHOTS_CONTAINER
from himl_container.emulator.data.credentials import Credentials
from himl_container.emulator.data.dataflow import Form, Source, dataflow_of
from himl_container.emulator.data.jobs import WorkspaceData
from himl_container.emulator.data.reach import Reach
from himl_container.emulator.data.resolve import Resolver
from himl_container.emulator.data.shared_files import SharedFiles
from himl_container.emulator.installation import Installation
from himl_container.emulator.routes import Router
from himl_container.emulator.services.artifacts import ArtifactService
from himl_container.emulator.services.datasets import DatasetService
from himl_container.emulator.services.datastores import DatastoreService
from himl_container.emulator.services.models import ModelService
from himl_container.emulator.state.datasets import Datasets
from himl_container.emulator.state.datastores import Datastores
from himl_container.emulator.state.models import Models
from himl_container.emulator.tokens import Tokens

KEY = "a2V5"
INSTALLATION = Installation(
    Path("/nowhere"), "01234567", WORKSPACE, "client", "object", "secret", KEY, ("first", "second")
)
STORE = "workspaceblobstore"

TREE = ("p/.hidden", "p/a.txt", "p/a/.h/x", "p/a/b.txt", "p/a/c/d.csv", "p/a/c/e.txt", "p/ab/x.csv", "p/ü ber/s p.txt")
"""Blobs of a datastore."""

PATTERNS: tuple[tuple[str, list[str]], ...] = (
    ("p/a", [".h/x", "b.txt", "c/d.csv", "c/e.txt"]),
    ("p/a/", [".h/x", "b.txt", "c/d.csv", "c/e.txt"]),
    ("p/a.txt", ["a.txt"]),
    ("p/*", [".hidden", "a.txt"]),
    ("p/a/**", [".h/x", "b.txt", "c/d.csv", "c/e.txt"]),
    ("p/**/*.txt", ["a.txt", "a/b.txt", "a/c/e.txt", "ü ber/s p.txt"]),
    ("p/*/*.txt", ["a/b.txt", "ü ber/s p.txt"]),
    ("p/a*", ["a.txt"]),
    ("p/a**", ["a.txt", "a/.h/x", "a/b.txt", "a/c/d.csv", "a/c/e.txt", "ab/x.csv"]),
    ("p/a/**.txt", ["b.txt", "c/e.txt"]),
    ("p/a/c/d*", ["d.csv"]),
    ("p/**/c/**", ["a/c/d.csv", "a/c/e.txt"]),
    ("p/ü ber", ["s p.txt"]),
    ("", list(TREE)),
)
"""Paths of a dataset, and which files of :data:`TREE` the SDK's native engine finds there."""


@dataclass
class DataRig(Rig):
    def __post_init__(self) -> None:
        super().__post_init__()
        for container in (RUNS_CONTAINER, FILES_CONTAINER, SNAPSHOTS_CONTAINER):
            self.blobs.make_container(container)
        access = Access(self.runs, Mock(spec=Tokens))
        self.stores = Datastores(self.database, WORKSPACE.storage_account, self.clock)
        self.datasets, self.models = Datasets(self.database, self.clock), Models(self.database, self.clock)
        credentials = Credentials(INSTALLATION, self.blobs, self.clock)
        resolver = Resolver(self.stores, credentials, self.blobs, WORKSPACE, Reach(self.runs))
        self.data = WorkspaceData(self.datasets, self.runs, resolver, self.blobs, WORKSPACE)
        services = (
            DatastoreService(self.stores, credentials, access),
            DatasetService(self.datasets, access),
            ModelService(self.models, access),
            ArtifactService(self.artifacts, self.blobs, access, SharedFiles(self.models)),
        )
        self.router = Router([route for service in services for route in service.routes()])

    def put(self, *names: str, container: str = FILES_CONTAINER) -> None:
        """Store blobs whose bytes are their names."""
        for name in names:
            self.blobs.put(container, name, name.encode())

    def save(self, *paths: str, kind: Any = "file", form: Form = "pattern", store: str = STORE) -> str:
        """Save a dataset of paths in a datastore; returns its id."""
        return self.datasets.save(kind, flow(*paths, form=form, store=store), {}).saved_id


def flow(*paths: str, form: Form = "pattern", store: str = STORE, steps: tuple[Any, ...] = ()) -> str:
    return dataflow_of(tuple(Source(store, path, form, ("s", "g", "w")) for path in paths), steps)


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }

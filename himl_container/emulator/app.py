"""The emulator without its network: its state, its services, and the router that leads to them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from himl_container.emulator.access import Access
from himl_container.emulator.blobs import FILES_CONTAINER, RUNS_CONTAINER, SNAPSHOTS_CONTAINER, Blobs
from himl_container.emulator.compute.model import JobVariables
from himl_container.emulator.compute.no_containers import connect_or_tell
from himl_container.emulator.compute.scheduler import LocalCompute
from himl_container.emulator.compute.workshop import Workshop
from himl_container.emulator.config import EmulatorConfig
from himl_container.emulator.data.credentials import Credentials
from himl_container.emulator.data.jobs import WorkspaceData
from himl_container.emulator.data.reach import Reach
from himl_container.emulator.data.resolve import Resolver
from himl_container.emulator.data.shared_files import SharedFiles
from himl_container.emulator.http import Answer, Request
from himl_container.emulator.hyperdrive.controller import Surroundings as SearchParts
from himl_container.emulator.hyperdrive.journal import Journal
from himl_container.emulator.hyperdrive.searches import Searches
from himl_container.emulator.hyperdrive.store import SearchStore
from himl_container.emulator.images.assemble import job_images
from himl_container.emulator.images.builds import Builds
from himl_container.emulator.installation import BUNDLE, Installation
from himl_container.emulator.job_network import Way
from himl_container.emulator.job_variables import EmulatorVariables
from himl_container.emulator.page.access import PageKey
from himl_container.emulator.page.files import RunFiles
from himl_container.emulator.page.routes import Page
from himl_container.emulator.routes import Route, Router
from himl_container.emulator.services.arm import ResourceManager
from himl_container.emulator.services.artifacts import ArtifactService
from himl_container.emulator.services.client_assertion import client_certificate
from himl_container.emulator.services.compute import ComputeService
from himl_container.emulator.services.container_registry import ContainerRegistry
from himl_container.emulator.services.datasets import DatasetService
from himl_container.emulator.services.datastores import DatastoreService
from himl_container.emulator.services.discovery import Discovery
from himl_container.emulator.services.environments import EnvironmentService
from himl_container.emulator.services.execution import ExecutionService
from himl_container.emulator.services.experiments import ExperimentService
from himl_container.emulator.services.history import RunHistory
from himl_container.emulator.services.hyperdrive import HyperDriveService
from himl_container.emulator.services.keyvault import KeyVault
from himl_container.emulator.services.login import Login
from himl_container.emulator.services.metrics import MetricService
from himl_container.emulator.services.models import ModelService
from himl_container.emulator.services.registry_login import RegistryLogin
from himl_container.emulator.services.snapshots import SnapshotService
from himl_container.emulator.services.telemetry import Telemetry
from himl_container.emulator.state.artifacts import Artifacts
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.datasets import Datasets
from himl_container.emulator.state.datastores import Datastores
from himl_container.emulator.state.environments import Environments
from himl_container.emulator.state.jobs import Jobs
from himl_container.emulator.state.metrics import Metrics
from himl_container.emulator.state.models import Models
from himl_container.emulator.state.registry_account import RegistryAccount
from himl_container.emulator.state.runs import Runs
from himl_container.emulator.state.secrets import Secrets
from himl_container.emulator.state.snapshots import Snapshots
from himl_container.emulator.tokens import Tokens, token_key

log = logging.getLogger("himl_container.emulator")


@dataclass(frozen=True)
class Surroundings:
    """What an emulator is given from outside.

    :param blobs: its storage; :param registry: address of the image registry behind ``azurecr.io``
        (``http://127.0.0.1:PORT``).
    :param studio: address of the page, as a browser on this machine opens it.
    :param way: how a job's container reaches the emulator; asked for when a job starts.
    :param clock: seconds since the epoch.
    """

    blobs: Blobs
    registry: str
    studio: str
    way: Callable[[], Way]
    clock: Callable[[], float] = time.time


@dataclass
class Application:
    """A running emulator's parts.

    :param registry_gate: lets a request for the registry pass (None), or answers it (without or with a bad token).
    :param starters: called when requests may come; :param closers: called at the end, the last one first.
    """

    installation: Installation
    config: EmulatorConfig
    access: Access
    tokens: Tokens
    runs: Runs
    router: Router
    job_variables: JobVariables
    registry_gate: Callable[[Request], Answer | None] = lambda request: None
    starters: list[Callable[[], None]] = field(default_factory=list)
    closers: list[Callable[[], None]] = field(default_factory=list)

    def start(self) -> None:
        """Take up what an earlier emulator left, and begin to run jobs and searches."""
        for starter in self.starters:
            starter()

    def close(self) -> None:
        """Stop what runs and close the state; a part that fails is logged and keeps no other waiting."""
        while self.closers:
            try:
                self.closers.pop()()
            except Exception:  # noqa: PERF203 - whatever it is, the other parts are stopped too
                log.exception("stopping")


def build(installation: Installation, config: EmulatorConfig, around: Surroundings) -> Application:
    """Put an emulator together."""
    clock = around.clock
    path = installation.folder / "emulator.db"
    database = Database(path)
    path.chmod(0o600)
    for container in (RUNS_CONTAINER, FILES_CONTAINER, SNAPSHOTS_CONTAINER):
        around.blobs.make_container(container)

    tokens = Tokens(token_key(installation.folder), installation, clock, config.token_lifetime)
    runs = Runs(database, clock)
    artifacts, metrics = Artifacts(database, around.blobs, clock), Metrics(database, clock)
    snapshots = Snapshots(database, around.blobs, clock)
    access = Access(runs, tokens, config.job_token_lifetime)
    created = (installation.folder / "state.json").stat().st_mtime
    certificate = client_certificate(installation.folder).read_bytes()

    bundle = installation.folder / BUNDLE
    variables = EmulatorVariables(installation.workspace, runs, access, around.way, bundle)

    credentials = Credentials(installation, around.blobs, clock)
    stores = Datastores(database, installation.workspace.storage_account, clock)
    datasets, models = Datasets(database, clock), Models(database, clock)

    account, environments = RegistryAccount(database, installation), Environments(database, clock)
    registry_login = RegistryLogin(installation, tokens, account, clock, config.token_lifetime)
    images = job_images(installation, environments, around.blobs, around.registry, base_image=config.base_image)
    builds = Builds(environments, images, around.blobs)

    resolver = Resolver(stores, credentials, around.blobs, installation.workspace, Reach(runs))
    data = WorkspaceData(datasets, runs, resolver, around.blobs, installation.workspace)
    workshop = Workshop(
        runs=runs,
        jobs=Jobs(database),
        files=artifacts,
        snapshots=snapshots,
        data=data,
        images=images,
        variables=variables,
        containers=connect_or_tell(),
        folder=installation.folder / "jobs",
        emulator_id=installation.workspace.workspace_id,
    )
    compute = LocalCompute(config.clusters, workshop)
    journal = Journal(runs, metrics, artifacts, clock)
    search_parts = SearchParts(database, runs, SearchStore(database), compute, metrics, journal, clock)
    searches = Searches(search_parts)
    page_key = PageKey(installation.client_secret, installation.short_id)
    services = (
        Login(installation, tokens, certificate, clock),
        ResourceManager(installation, access, created, account.passwords),
        Discovery(around.studio, installation.discovery_ticket, f"{around.studio}{page_key.prefix}"),
        Page(
            runs,
            metrics,
            RunFiles(artifacts, around.blobs),
            page_key,
            workspace=installation.workspace,
            clock=clock,
        ),
        KeyVault(Secrets(database, clock), access),
        ExperimentService(runs, access),
        RunHistory(runs, artifacts, access, installation.workspace),
        MetricService(metrics, runs, access, clock),
        ArtifactService(artifacts, around.blobs, access, SharedFiles(models)),
        SnapshotService(snapshots),
        DatastoreService(stores, credentials, access),
        DatasetService(datasets, access),
        ModelService(models, access),
        EnvironmentService(installation, environments, images, builds, account),
        ContainerRegistry(installation, account, access, created),
        registry_login,
        ComputeService(installation.workspace, compute, created),
        ExecutionService(database, runs, snapshots, compute, access, data=data, environments=environments),
        HyperDriveService(searches, snapshots, compute, access, data),
        Telemetry(),
    )
    routes: list[Route] = []
    for service in services:
        routes += service.routes()
    return Application(
        installation,
        config,
        access,
        tokens,
        runs,
        Router(routes),
        variables,
        registry_gate=registry_login.gate,
        starters=[compute.start, searches.start],
        closers=[database.close, builds.close, compute.stop, searches.stop],
    )

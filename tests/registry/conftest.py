"""One real registry for all tests that need no special one; each uses repositories of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from fault_proxy import FaultProxy, misbehaving
from registry_client import Told
from registry_server import Host, registry


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A registry without a login."""
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def proxy(host: Host) -> Iterator[FaultProxy]:
    """The same registry behind a proxy of this test alone."""
    with misbehaving(host) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A repository's name of this test alone."""
    return f"himl/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def told() -> Told:
    """Keeps what is told, and how long was waited."""
    return Told()

"""``build --push`` and ``push`` to a registry that misbehaves: what the user sees, and what is under the tag then.

What becomes of an image by each fault is in ``tests/registry/test_push_faults.py``; here it is the commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import kit
import pytest
from fault_proxy import FaultProxy, error, misbehaving
from registry_server import Host, registry
from whole_pushes import image_at

pytestmark = pytest.mark.docker


@pytest.fixture
def cache_dir(warm_cache_dir: Path) -> Path:
    return warm_cache_dir


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with registry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def proxy(host: Host) -> Iterator[FaultProxy]:
    with misbehaving(host) as running:
        yield running


def test_build_and_push_fail_in_words_and_go_on_later(
    run_cli: kit.Cli, project: kit.ProjectFolder, host: Host, proxy: FaultProxy, image_name: str
) -> None:
    at = {"HIML_CONTAINER_REGISTRY": proxy.host}
    project.environment("python =3.11", "tinytool", "tinylib =1.0")
    run_cli("lock")
    tag = run_cli("cache", "key", environ=at).stdout.strip()[:32]
    busy = {"headers": {"Retry-After": "0"}}

    proxy.on("PUT", "/manifests/", error(429, "TOOMANYREQUESTS", **busy), times=None)  # type: ignore[arg-type]
    failed = run_cli("build", "--push", "--no-test", environ=at, expect=75)
    assert "tried 6 times: the registry answered 429" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert image_at(host, image_name, tag) == ""

    proxy.behave()
    proxy.every(3, error(503, "UNAVAILABLE", **busy))  # type: ignore[arg-type]
    done = run_cli("build", "--push", "--no-test", "--json", environ=at)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["image"] == f"{proxy.host}/{image_name}:{tag}"
    assert image_at(host, image_name, tag)
    assert 0 < result["pushed"]["bytes"] < 100_000  # layers had arrived with the first

    proxy.behave()
    proxy.on(".*", error(500, "UNKNOWN", **busy), times=None)  # type: ignore[arg-type]
    for command in (["build", "--push", "--no-test"], ["push"]):
        assert "the registry answered 500" in run_cli(*command, environ=at, expect=75).stderr

"""``build --push`` as a pipeline runs it: on agents that have nothing, against a real registry, by the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kit
import pytest
from fault_proxy import FaultProxy
from registry_server import Host
from runnable import remove

from himl_container.progress import SilentReporter
from himl_container.publish.layer_index import TAG, LayerIndex
from himl_container.registry.client import RegistryClient

pytestmark = pytest.mark.docker

OTHERS = ("python =3.11", "prefix-text", "activation", "clash-a", "clash-b")
PACKAGES = (*OTHERS, "tinylib =1.0")


@pytest.fixture
def cache_dir(warm_cache_dir: Path) -> Path:
    return warm_cache_dir


class Agent:
    """A machine that has nothing but the project: no cache, and no daemon unless it is said."""

    def __init__(self, cli: kit.Cli, folder: Path, *, daemon: bool = False, registry: str = "") -> None:
        self.cli = cli
        self.folder = folder
        self.environ = {
            "HIML_CONTAINER_CACHE_DIR": str(folder / "himl"),
            "RATTLER_CACHE_DIR": str(folder / "rattler"),
            "UV_CACHE_DIR": str(folder / "uv"),
            "HOME": str(folder),
            "DOCKER_CONFIG": str(folder),
        }
        if not daemon:
            self.environ["DOCKER_HOST"] = f"unix://{folder / 'none.sock'}"
        if registry:
            self.environ["HIML_CONTAINER_REGISTRY"] = registry

    def __call__(self, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        return self.cli(*arguments, environ=self.environ, expect=expect)

    def result(self, *arguments: str) -> dict[str, Any]:
        lines = self("build", "--locked", "--json", *arguments).stdout.splitlines()
        return next(event for line in lines if (event := json.loads(line))["event"] == "result")

    @property
    def blobs(self) -> list[str]:
        """Digests of the layers that are on this machine."""
        return [path.name for path in (self.folder / "himl" / "blobs" / "sha256").glob("*")]

    @property
    def packages(self) -> set[str]:
        """Names of the Conda packages that were fetched here."""
        return {path.name.rsplit("-", 2)[0] for path in (self.folder / "rattler").glob("pkgs/*-*") if path.is_dir()}


@pytest.fixture
def pushed(cli: kit.Cli, project: kit.ProjectFolder) -> dict[str, Any]:
    """The result of a first push, from a machine with everything."""
    project.environment(*PACKAGES)
    done = cli("build", "--push", "--json")
    return next(event for line in done.stdout.splitlines() if (event := json.loads(line))["event"] == "result")


def without(cli: kit.Cli, image_name: str) -> kit.Cli:
    """The command line without a registry, under another image name: nothing of the registry's can be in its result."""
    return kit.Cli(
        cli.cwd, {**cli.environ, "HIML_CONTAINER_REGISTRY": "", "HIML_CONTAINER_IMAGE_NAME": f"{image_name}-local"}
    )


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return next(event for line in done.stdout.splitlines() if (event := json.loads(line))["event"] == "result")


def client(host: str, image_name: str) -> RegistryClient:
    return RegistryClient.connect(f"{host}/{image_name}")


def test_fresh_agent_with_a_warm_registry_asks_once_and_is_done(
    cli: kit.Cli, pushed: dict[str, Any], proxy: FaultProxy, tmp_path: Path
) -> None:
    assert (pushed["built"], pushed["tested"]) == (True, True)
    agent = Agent(cli, tmp_path / "agent", registry=proxy.host)
    result = agent.result("--push")
    assert (result["built"], result["tested"], result["digest"]) == (False, True, pushed["digest"])
    assert len(proxy.seen) <= 2
    assert (agent.blobs, agent.packages) == ([], set())
    # As GitHub Actions sees it, and what its caches are named after.
    agent.environ |= {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    agent("build", "--locked", "--push")
    output, summary = (tmp_path / "output").read_text(), (tmp_path / "summary").read_text()
    assert all(text in output for text in (pushed["digest"], pushed["fingerprint"], "\nfalse\n"))
    assert pushed["digest"] in summary
    # As Azure Pipelines sees it.
    agent.environ["TF_BUILD"] = "True"
    lines = agent("build", "--locked", "--push").stdout.splitlines()
    for name, value in (("digest", pushed["digest"]), ("fingerprint", pushed["fingerprint"]), ("built", "false")):
        assert f"##vso[task.setvariable variable={name};isOutput=true]{value}" in lines
    assert agent("cache", "key").stdout.strip() == pushed["fingerprint"]
    fresh = Agent(cli, tmp_path / "fresh")
    assert fresh("cache", "key").stdout.strip() == pushed["fingerprint"]
    assert fresh.packages == set()


def test_image_built_without_its_test_is_tested_by_the_next_build(
    cli: kit.Cli, project: kit.ProjectFolder, image_name: str
) -> None:
    project.environment("python =3.11")
    project.write("pyproject.toml", '[tool.himl-container]\ntest = ["false"]\n')
    local = without(cli, image_name)
    first = result_of(local("build", "--no-test", "--json"))
    assert (first["built"], first["tested"]) == (True, False)
    again = local("build", "--no-test")
    assert "NOT TESTED" in again.stdout
    local("build", expect=72)
    remove(f"{image_name}-local")


def test_fresh_agent_makes_and_sends_only_what_has_changed(
    cli: kit.Cli,
    project: kit.ProjectFolder,
    pushed: dict[str, Any],
    proxy: FaultProxy,
    tmp_path: Path,
    image_name: str,
) -> None:
    project.environment(*OTHERS, "tinylib =1.1")
    cli("lock")
    agent = Agent(cli, tmp_path / "agent", registry=proxy.host)
    assert "would be pushed" in cli("build", "--dry-run", "--push").stdout
    result = agent.result("--push", "--no-test")
    assert "is there already, untested" in cli("build", "--dry-run", "--push").stdout
    assert (result["built"], result["tested"]) == (True, False)
    assert len(result["made"]) == 2  # the bin of the package, and the generated layer
    assert "himl" in result["made"]
    assert len(result["reused"]) == len(result["layers"]) - 2
    assert len(agent.blobs) <= 3  # the bin is made again when its new package turns out to share paths
    kept = {layer["digest"] for layer in pushed["layers"]}
    assert len({layer["digest"] for layer in result["layers"]} - kept) == 2
    assert result["pushed"]["bytes"] < 100_000
    assert {"tinylib", "python"} <= agent.packages
    assert len(agent.packages) < 10
    layers = [path for path in proxy.paths("GET", "/blobs/") if any(layer in path for layer in kept)]
    assert layers == []
    # A machine with everything makes the same image, in its own way.
    local = result_of(without(cli, image_name)("build", "--json"))
    assert local["layers"] == result["layers"]
    manifest = client(str(cli.environ["HIML_CONTAINER_REGISTRY"]), image_name).manifest(result["digest"])
    assert manifest is not None
    assert manifest.content["annotations"]["io.himl.tested"] == "false"
    assert manifest.content["config"]["digest"] == local["id"]


def test_untested_image_is_tested_by_the_next_push_that_may_test_and_keeps_its_digest(
    cli: kit.Cli, project: kit.ProjectFolder, tmp_path: Path
) -> None:
    project.environment("python =3.11", "tinylib")
    cli("lock")
    first = Agent(cli, tmp_path / "first").result("--push", "--no-test")
    assert not first["tested"]
    again = Agent(cli, tmp_path / "second").result("--push", "--no-test")
    assert (again["built"], again["tested"], again["digest"]) == (False, False, first["digest"])
    tested = Agent(cli, tmp_path / "third", daemon=True).result("--push")
    assert (tested["built"], tested["tested"], tested["digest"]) == (False, True, first["digest"])
    assert Agent(cli, tmp_path / "fourth").result("--push")["tested"]


def test_failing_test_of_an_untested_image_is_told_and_not_attached(
    cli: kit.Cli, project: kit.ProjectFolder, tmp_path: Path
) -> None:
    project.environment("python =3.11")
    project.write("pyproject.toml", '[tool.himl-container]\ntest = ["false"]\n')
    cli("lock")
    Agent(cli, tmp_path / "first").result("--push", "--no-test")
    failed = Agent(cli, tmp_path / "second", daemon=True)("build", "--push", expect=72)
    assert "pushed untested" in failed.stderr
    assert not Agent(cli, tmp_path / "third").result("--push", "--no-test")["tested"]


def test_build_takes_the_image_of_the_registry_instead_of_making_it(
    cli: kit.Cli, pushed: dict[str, Any], tmp_path: Path
) -> None:
    remove(str(pushed["tag"]).partition(":")[0])
    agent = Agent(cli, tmp_path / "agent", daemon=True)
    result = agent.result()
    assert (result["built"], result["pulled"], result["tested"], result["id"]) == (False, True, True, pushed["id"])
    assert agent.packages == set()
    assert result["digest"] == pushed["digest"]
    assert "there already" in agent("build").stdout


def test_agent_with_a_daemon_downloads_the_layers_that_the_registry_has(
    cli: kit.Cli, project: kit.ProjectFolder, pushed: dict[str, Any], tmp_path: Path, image_name: str
) -> None:
    project.environment(*OTHERS, "tinylib =1.1")
    cli("lock")
    agent = Agent(cli, tmp_path / "agent", daemon=True)
    result = agent.result("--push")
    assert (result["built"], result["tested"]) == (True, True)
    assert len(result["made"]) == 2
    assert len(result["downloaded"]) == len(result["layers"]) - 2
    assert result["layers"] == result_of(without(cli, image_name)("build", "--json"))["layers"]
    assert agent.result("--push")["digest"] == result["digest"]


def test_missing_or_damaged_index_costs_time_and_nothing_else(
    cli: kit.Cli, project: kit.ProjectFolder, host: Host, tmp_path: Path, image_name: str
) -> None:
    project.environment("python =3.11", "tinylib =1.0")
    first = result_of(cli("build", "--push", "--json"))
    repository = client(host, image_name)
    manifest = repository.manifest(TAG)
    assert manifest is not None
    files = [host.blob_file(layer["digest"]) for layer in manifest.content["layers"]]
    sound = [file.read_bytes() for file in files]
    for file in files:
        file.write_bytes(b"damaged")
    project.environment("python =3.11", "tinylib =1.1")
    cli("lock")
    agent = Agent(cli, tmp_path / "agent")
    done = agent("build", "--push", "--no-test", "--locked", "--json")
    for file, data in zip(files, sound, strict=True):  # other tests share the registry's storage
        file.write_bytes(data)
    result = result_of(done)
    assert "damaged" in done.stdout
    assert len(result["made"]) == len(result["layers"])
    assert {layer["digest"] for layer in first["layers"]} & {layer["digest"] for layer in result["layers"]}
    # What was pushed then repairs it.
    project.environment("python =3.11", "tinylib =1.0", "prefix-text")
    cli("lock")
    after = Agent(cli, tmp_path / "other")("build", "--push", "--no-test", "--locked", "--json")
    assert "damaged" not in after.stdout
    assert "conda:python" in result_of(after)["reused"]


def test_layer_that_the_registry_has_lost_is_made_again(
    cli: kit.Cli, project: kit.ProjectFolder, host: Host, tmp_path: Path, image_name: str
) -> None:
    project.environment("python =3.11", "tinylib =1.0")
    cli("build", "--push")
    index = LayerIndex.fetch(client(host, image_name), reporter=SilentReporter())
    python = next(entry for document in index._documents() for entry in document.layers.values() if entry.facts)
    lost = python.blobs["gzip"].digest
    repository_link = host.folder / f"docker/registry/v2/repositories/{image_name}/_layers/sha256" / lost[7:]
    shutil.rmtree(repository_link)
    project.environment("python =3.11", "tinylib =1.1")
    cli("lock")
    result = Agent(cli, tmp_path / "agent").result("--push", "--no-test")
    assert {layer["digest"] for layer in result["layers"]}
    assert 2 <= len(result["made"]) <= 3


def test_without_a_daemon_the_error_says_what_needs_it(
    cli: kit.Cli, project: kit.ProjectFolder, base_image: str, tmp_path: Path
) -> None:
    project.environment("python =3.11", "activation")
    cli("lock")
    scripts = Agent(cli, tmp_path / "scripts")("build", "--push", "--no-test", expect=69)
    assert "Activation scripts" in scripts.stderr
    tested = Agent(cli, tmp_path / "tested")("build", "--push", expect=69)
    assert "none.sock" in tested.stderr
    local = kit.Cli(cli.cwd, {**cli.environ, "HIML_CONTAINER_BASE_IMAGE": base_image})
    local("lock")
    base = Agent(local, tmp_path / "base")("build", "--push", "--no-test", expect=69)
    assert "no registry" in base.stderr


def test_docker_made_image_is_pushed_as_it_is(cli: kit.Cli, project: kit.ProjectFolder, tmp_path: Path) -> None:
    project.environment("python =3.11")
    pushed = result_of(cli("build", "--push", "--builder", "docker", "--json"))
    remove(str(pushed["tag"]).partition(":")[0])
    result = Agent(cli, tmp_path / "agent", daemon=True).result()
    assert (result["pulled"], result["id"]) == (True, pushed["id"])


def test_push_without_a_registry_says_how_to_set_one(cli: kit.Cli, project: kit.ProjectFolder) -> None:
    project.environment("python =3.11")
    done = kit.Cli(cli.cwd, {**cli.environ, "HIML_CONTAINER_REGISTRY": ""})("build", "--push", expect=65)
    assert "--registry" in done.stderr

"""inspect, diff and verify by the command line: two images in a real registry and the real daemon."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import kit
import pytest
from registry_server import Host

from himl_container import __version__
from himl_container.publish.proof import LOCK_TYPE, attached_documents
from himl_container.publish.sbom import SBOM_TYPE
from himl_container.registry.client import RegistryClient

pytestmark = pytest.mark.docker

OTHERS = ("python =3.11", "prefix-text")


@pytest.fixture
def cache_dir(warm_cache_dir: Path) -> Path:
    return warm_cache_dir


def result(cli: kit.Cli, *arguments: str, expect: int = 0, **environ: str) -> dict[str, Any]:
    lines = cli(*arguments, "--json", expect=expect, environ=environ).stdout.splitlines()
    return next(event for line in lines if (event := json.loads(line))["event"] == "result")


def pushed(cli: kit.Cli, **environ: str) -> dict[str, Any]:
    """Build into the daemon, then push."""
    return result(cli, "build") | result(cli, "push", **environ)


def attached(host: Host, image_name: str, digest: str) -> dict[str, bytes]:
    """What a registry gives to who asks for what refers to an image, by its type."""
    repository = RegistryClient.connect(f"{host}/{image_name}")
    subject = repository.head(digest)
    assert subject is not None
    listed = {one.artifact_type for one in repository.referrers(digest)}
    assert listed >= {LOCK_TYPE, SBOM_TYPE}
    (lock,), (bill,) = (attached_documents(repository, subject, kind) for kind in (LOCK_TYPE, SBOM_TYPE))
    return {LOCK_TYPE: lock, SBOM_TYPE: bill}


def partings(found: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["what"], one["name"]) for one in found["partings"]}


def test_two_images_from_push_to_proof(
    cli: kit.Cli, project: kit.ProjectFolder, host: Host, image_name: str, tmp_path: Path
) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path / 'none.sock'}", "HIML_CONTAINER_CACHE_DIR": str(tmp_path / "empty")}
    project.environment(*OTHERS, "tinylib =1.0")
    old = pushed(cli, SOURCE_DATE_EPOCH="1700000000")
    first_lock = (project.path / "pylock.himl.toml").read_bytes()

    documents = attached(host, image_name, old["digest"])
    assert documents[LOCK_TYPE] == first_lock
    bill = json.loads(documents[SBOM_TYPE])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    listed = {one["name"]: one for one in bill["components"]}
    assert listed["tinylib"]["licenses"] == [{"license": {"id": "MIT"}}]

    seen = result(cli, "inspect", f"{host}/{image_name}@{old['digest']}", **nowhere)
    assert (seen["source"], seen["digest"], seen["packages_from"]) == ("registry", old["digest"], "lock")
    assert seen["config_digest"] == old["id"]
    packages = {one["name"]: one for one in seen["packages"]}
    assert (packages["tinylib"]["version"], packages["tinylib"]["license"]) == ("1.0", "MIT")
    assert all(one["license"] and one["size"] > 0 for one in seen["packages"])
    stated = seen["annotations"]
    assert stated["io.himl.fingerprint"] == seen["fingerprint"] == old["fingerprint"]
    assert stated["io.himl.lock"] == f"sha256:{hashlib.sha256(first_lock).hexdigest()}"
    assert stated["io.himl.version"] == __version__
    assert stated["org.opencontainers.image.base.name"] == f"{host}/base:1"
    assert host.blob_file(stated["org.opencontainers.image.base.digest"]).is_file()
    assert stated["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z"
    assert {one["layer"] for one in seen["packages"]} <= {one["name"] for one in seen["layers"]}
    weights = {one["digest"]: one["size"] for one in old["layers"] if one["digest"].startswith("sha256")}
    assert {one["size"] for one in seen["layers"]} == set(weights.values())
    assert "tinylib" in cli("inspect", f"{image_name}:{old['tag'].rpartition(':')[2]}").stdout

    agreed = result(cli, "verify", "--deep")
    assert agreed["agree"]
    assert {one["part"]: one["state"] for one in agreed["parts"]} == dict.fromkeys(
        ("registry", "daemon", "lock"), "found"
    )
    assert agreed["layers"] == len(seen["layers"])
    assert agreed["hashed"] == sum(one["size"] for one in seen["layers"])

    project.write("script.py", "print('ran')\n")
    cli("run", "--local", "script.py")
    agreed = result(cli, "verify", "latest")
    assert {one["state"] for one in agreed["parts"]} == {"found"}
    assert agreed["agree"]
    assert len(agreed["compared"]) == 6

    project.environment(*OTHERS, "tinylib =1.1")
    new = pushed(cli)
    for environ in ({}, nowhere):  # by the layers of the cache, and as streams from the registry
        found = result(cli, "diff", old["reference"], new["reference"], **environ)
        assert [(one["kind"], one["name"], one["change"]) for one in found["packages"]] == [
            ("conda", "tinylib", "changed")
        ]
        assert len(found["layers"]) == 2
        assert found["same_layers"] == len(seen["layers"]) - 2
        files = {one["package"]: one for one in found["files"]}
        assert files["conda tinylib"]["changed"] > 0
        assert files.keys() >= {"conda tinylib"}
        assert "conda prefix-text" not in files
        assert "Labels himl.fingerprint" in found["settings"]
    by_daemon = result(cli, "diff", old["reference"], new["id"], HIML_CONTAINER_CACHE_DIR=str(tmp_path / "empty"))
    assert by_daemon["new"]["source"] == "daemon"
    assert {one["package"]: one for one in by_daemon["files"]}["conda tinylib"] == files["conda tinylib"]

    # The run used the first image; the project has gone on to the second one.
    parted = result(cli, "verify", "latest", expect=76)
    assert ("package", "conda tinylib") in partings(parted)
    assert {tuple(one["parts"]) for one in parted["partings"]} == {("registry", "lock")}
    (project.path / "pylock.himl.toml").write_bytes(first_lock)
    assert result(cli, "verify", "latest")["agree"]
    alone = result(cli, "verify", new["reference"], "--lock-file", str(tmp_path / "no.toml"), expect=76, **nowhere)
    assert alone["compared"] == []

    # A blob of it rots on the registry's disk.
    file = host.blob_file(seen["layers"][-1]["digest"])
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert result(cli, "verify", old["reference"])["agree"]
    rotten = result(cli, "verify", old["reference"], "--deep", expect=76)
    assert partings(rotten) == {("blob", seen["layers"][-1]["name"])}

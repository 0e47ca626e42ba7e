"""The image's configuration file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from himl_container.environment.model import BasePin
from himl_container.errors import BuildError
from himl_container.image.archive import docker_archive, oci_archive
from himl_container.image.compose import compose
from himl_container.image.model import ImageInfo, ImagePlan, Layer, SystemPlan, chain_ids
from himl_container.registry.model import Descriptor

BELOW = ("sha256:" + "1" * 64, "sha256:" + "2" * 64)
DAEMON_CONFIG = {
    "Hostname": "b26a1927572c",
    "Image": "sha256:" + "9" * 64,
    "AttachStdin": False,
    "Env": ["PATH=/usr/bin", "LANG=C"],
    "Cmd": ["bash"],
    "Entrypoint": ["/start"],
    "WorkingDir": "/w",
    "OnBuild": None,
    "Labels": None,
}


def system(**values: object) -> ImageInfo:
    info = ImageInfo(
        id="sha256:" + "3" * 64,
        tags=("base:1",),
        repo_digests=(),
        diff_ids=BELOW,
        architecture="amd64",
        os="linux",
        size=1,
        config=DAEMON_CONFIG,
    )
    return replace(info, **values)  # type: ignore[arg-type]


def plan(**values: object) -> ImagePlan:
    value = ImagePlan(
        fingerprint="ab" * 32,
        repository="himl",
        base=BasePin("base:1"),
        system=SystemPlan(),
        layers=(),
        environment=(("GREETING", "hëllo"),),
        labels=(("himl.fingerprint", "ab" * 32),),
    )
    return replace(value, **values)  # type: ignore[arg-type]


def layers(folder: Path, *names: str) -> tuple[Layer, ...]:
    made = []
    for name in names:
        digest = hashlib.sha256(name.encode()).hexdigest()
        (folder / digest).write_bytes(name.encode())
        made.append(Layer(name, digest, f"sha256:{digest}", len(name), 1, folder / digest))
    return tuple(made)


def test_layers_history_and_settings(tmp_path: Path) -> None:
    ours = layers(tmp_path, "conda:python", "himl")
    image = compose(plan=plan(), system=system(), layers=ours, activation={"PROJ": "/opt/himl/p"})
    content = json.loads(image.config)
    assert image.tag == f"himl:{'ab' * 16}"
    assert content["rootfs"] == {"type": "layers", "diff_ids": [*BELOW, *(one.digest for one in ours)]}
    assert [step["created_by"] for step in content["history"]] == [
        "himl-container: base:1, layer 1",
        "himl-container: base:1, layer 2",
        "himl-container: conda:python",
        "himl-container: himl",
    ]
    assert {step["created"] for step in content["history"]} == {content["created"]} == {"1980-01-01T00:00:00Z"}
    config = content["config"]
    assert config["Env"][0] == "PATH=/opt/himl/bin:/usr/bin"
    assert {"LANG=C", "CONDA_PREFIX=/opt/himl", "GREETING=hëllo", "PROJ=/opt/himl/p"} <= set(config["Env"])
    assert config["WorkingDir"] == "/w"
    assert "Entrypoint" not in config, "what is run is what the caller names"
    assert not {"Hostname", "Image", "AttachStdin", "OnBuild"} & set(config)


def test_the_bytes_do_not_depend_on_the_daemon(tmp_path: Path) -> None:
    """Two stores describe one base in different words; the id must not show it."""
    ours = layers(tmp_path, "a")
    other = {key: DAEMON_CONFIG[key] for key in reversed(["Env", "Cmd", "Entrypoint", "WorkingDir"])}
    first = compose(plan=plan(), system=system(), layers=ours, activation={})
    second = compose(
        plan=plan(),
        system=system(id="sha256:" + "4" * 64, tags=(), size=2, config=other, repo_digests=("base@sha256:5",)),
        layers=ours,
        activation={},
    )
    assert first.config == second.config
    assert first.id == "sha256:" + hashlib.sha256(first.config).hexdigest()
    assert b" " not in first.config.split(b'"history"')[0]


@pytest.mark.parametrize("values", [{"diff_ids": ()}, {"os": "windows"}])
def test_what_is_no_ground_to_build_on(values: dict[str, object]) -> None:
    with pytest.raises(BuildError, match="not a Linux image") as caught:
        compose(plan=plan(), system=system(**values), layers=(), activation={})
    assert caught.value.where == "base:1"


def test_chain_ids_are_those_of_the_specification() -> None:
    second = hashlib.sha256(f"{BELOW[0]} {BELOW[1]}".encode()).hexdigest()
    assert chain_ids(BELOW) == (BELOW[0], f"sha256:{second}")


def unpack(chunks: bytes) -> dict[str, bytes]:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(chunks)) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def test_a_docker_archive_names_all_layers_and_holds_those_given(tmp_path: Path) -> None:
    ours = layers(tmp_path, "a", "b")
    image = compose(plan=plan(), system=system(), layers=ours, activation={})
    sent: list[tuple[str, int]] = []
    shipment = docker_archive(image, ours[1:])
    files = unpack(b"".join(shipment.chunks(lambda layer, amount: sent.append((layer.name, amount)))))
    (manifest,) = json.loads(files["manifest.json"])
    assert manifest["Layers"] == [f"{digest.removeprefix('sha256:')}.tar" for digest in image.diff_ids]
    assert manifest["RepoTags"] is None, "the name comes after the check"
    assert files[manifest["Config"]] == image.config
    assert set(files) == {"manifest.json", manifest["Config"], f"{ours[1].key}.tar"}
    assert sent == [("b", 1)]
    assert shipment.id == image.id


def test_an_oci_archive_describes_the_base_as_the_store_has_it(tmp_path: Path) -> None:
    ours = layers(tmp_path, "a", "b")
    image = compose(plan=plan(), system=system(), layers=ours, activation={})
    below = tuple(Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", f"sha256:{n}" * 1, n) for n in (7, 8))
    shipment = oci_archive(image, below, ours)
    files = unpack(b"".join(shipment.chunks(lambda _layer, _amount: None)))
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["digest"] == shipment.id
    assert "annotations" not in entry, "the name comes after the check"
    manifest = json.loads(files["blobs/" + shipment.id.replace(":", "/")])
    assert [one["digest"] for one in manifest["layers"]] == ["sha256:7", "sha256:8", *(one.digest for one in ours)]
    assert manifest["config"]["digest"] == image.id
    assert files["blobs/" + image.id.replace(":", "/")] == image.config

"""Layers taken out of real daemons: the machine's own, and a current one with each image store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import engines
import kit
import pytest
from runnable import layer, load, remove

from himl_container.cache import Cache
from himl_container.image.docker_engine import DockerEngine
from himl_container.progress import SilentReporter
from himl_container.publish.engine_layers import export_layers

CURRENT = (pytest.mark.engine26, pytest.mark.network)
KINDS = ["machine", pytest.param("26.1 classic", marks=CURRENT), pytest.param("26.1 containerd", marks=CURRENT)]

pytestmark = pytest.mark.docker


@pytest.fixture
def environ(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Variables that lead to a daemon of each kind."""
    if request.param == "machine":
        yield dict(os.environ)
        return
    if engines.available():
        kit.lacking(f"a second engine {engines.available()}")
    with engines.current_engine(containerd_store="containerd" in request.param) as engine:
        yield engine.environ


@pytest.mark.parametrize("environ", KINDS, indirect=True)
def test_layers_and_configuration_come_out_as_they_went_in(
    environ: dict[str, str], image_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONFIG"):
        if name in environ:
            monkeypatch.setenv(name, environ[name])
    layers = tmp_path / "layers"
    layers.mkdir()
    below, above = layer(layers, {"/below": os.urandom(50_000)}), layer(layers, {"/above": bytes(9 << 20)})
    engine = DockerEngine.connect(environ, cache=Cache(tmp_path / "builder"))
    image = load(engine, f"{image_name}:1", below, above)
    with contextlib.ExitStack() as stack:
        if environ.get("DOCKER_HOST") is None:
            stack.callback(remove, image_name)
        cache = Cache(tmp_path / "cache")
        exported = export_layers(
            image.id,
            {below.digest: "base 1", above.digest: "base 2"},
            cache=cache,
            reporter=SilentReporter(),
            config_of=image.diff_ids,
        )
        assert image.diff_ids == (below.digest, above.digest)
        for one in (below, above):
            assert hashlib.sha256(exported.layers[one.digest].read_bytes()).hexdigest() == one.digest[7:]
        assert json.loads(exported.config)["rootfs"]["diff_ids"] == list(image.diff_ids)

        # What Docker's builder makes of it, by name: containerd's store packs that layer.
        context = tmp_path / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {image_name}:1\nCOPY file /file\n")
        (context / "file").write_text("content")
        built = f"{image_name}:2"
        subprocess.run(["docker", "build", "-q", "-t", built, context], env=environ, check=True, capture_output=True)
        found = engine.inspect(built)
        assert found is not None
        own = found.diff_ids[-1]
        exported = export_layers(built, {own: "system 1"}, cache=cache, reporter=SilentReporter())
        assert "sha256:" + hashlib.sha256(exported.layers[own].read_bytes()).hexdigest() == own

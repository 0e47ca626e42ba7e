"""Pulling into a current engine whose images live in containerd's store: other ids, other archives, the same layers."""

from __future__ import annotations

import os
from pathlib import Path

import engines
import kit
import pytest
from registry_server import registry
from runnable import load, noise, push, remove, removed_afterwards, shell

from himl_container.cache import Cache
from himl_container.image.docker_engine import DockerEngine
from himl_container.progress import SilentReporter
from himl_container.publish.known_names import names_of
from himl_container.publish.pull import pull_image

pytestmark = [pytest.mark.docker, pytest.mark.engine26, pytest.mark.network]


def test_only_the_missing_layer_travels(tmp_path: Path, image_name: str) -> None:
    if engines.available():
        kit.lacking(f"a second engine {engines.available()}")
    layers = tmp_path / "layers"
    layers.mkdir()
    machine = DockerEngine.connect(os.environ, cache=Cache(tmp_path / "builder"))
    with registry(tmp_path / "registry") as host, removed_afterwards(name := f"{host}/{image_name}"):
        ground, wheel = shell(layers), noise(layers, "wheel", 100_000)
        load(machine, f"{name}:1", ground)
        both = load(machine, f"{name}:2", ground, wheel)
        push(f"{name}:1")
        digest = push(f"{name}:2")
        remove(name)
        with engines.current_engine(containerd_store=True) as current:

            def pull(reference: str, cache: str) -> object:
                kept = Cache(tmp_path / cache)
                engine = DockerEngine.connect(current.environ, cache=kept)
                pulled = pull_image(reference, engine=engine, cache=kept, reporter=SilentReporter())
                assert names_of(kept, pulled.image.id) == pulled.names
                return pulled.fetched, pulled.existed, pulled.image.diff_ids

            assert pull(f"{name}:1", "a") == (1, False, both.diff_ids[:1])
            assert pull(f"{name}:2", "b") == (1, False, both.diff_ids)  # an empty store; the daemon has the other one
            assert pull(f"{name}@{digest}", "b") == (0, True, both.diff_ids)
            engine = DockerEngine.connect(current.environ)
            done = engine.run(f"{name}:2", ["sh", "-c", "echo hello"])
            assert done.output == b"hello\n"

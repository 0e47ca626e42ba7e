"""The build context as a folder: complete, ours, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from himl_container.cache import Cache
from himl_container.errors import InputError, StorageError
from himl_container.image import context
from himl_container.image.context import write_context
from himl_container.image.model import Layer
from himl_container.progress import SilentReporter
from image import plans


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Layer, ...]:
    cache = Cache(tmp_path / "cache")
    return (
        plans.stored_layer(cache, "conda:python", {"/opt/himl/bin/python": "#!"}),
        plans.stored_layer(cache, "himl", {"/opt/himl/conda-meta/history": ""}),
    )


def write(folder: Path, layers: tuple[Layer, ...], **values: object) -> None:
    write_context(folder, dockerfile="FROM x\n", layers=layers, reporter=SilentReporter(), **values)  # type: ignore[arg-type]


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_everything_that_docker_needs(tmp_path: Path, layers: tuple[Layer, ...]) -> None:
    lock = tmp_path / "pylock.himl.toml"
    lock.write_text("lock")
    folder = tmp_path / "deep" / "context"
    write(folder, layers, lock=lock, tag="himl:1")
    assert names(folder) == {
        "Dockerfile",
        ".dockerignore",
        "README.md",
        "himl-context.json",
        "layers.sha256",
        "pylock.himl.toml",
        "layers/000-conda-python.tar",
        "layers/001-himl.tar",
    }
    for line, layer in zip((folder / "layers.sha256").read_text().splitlines(), layers, strict=True):
        digest, file = line.split("  ")
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest == layer.digest[7:]
    assert (folder / "Dockerfile").read_text() == "FROM x\n"
    assert (folder / ".dockerignore").read_text().splitlines()[1:] == ["*", "!layers/*.tar"]
    assert "docker build" in (folder / "README.md").read_text()
    assert json.loads((folder / "himl-context.json").read_text())["layers"][0]["name"] == "conda:python"
    assert entries(folder.parent) == ["context"]


def test_layers_are_not_copied_on_one_file_system(tmp_path: Path, layers: tuple[Layer, ...]) -> None:
    write(tmp_path / "context", layers)
    file = tmp_path / "context" / "layers" / "000-conda-python.tar"
    linked = file.stat().st_ino == layers[0].path.stat().st_ino
    assert linked or file.stat().st_blocks <= layers[0].path.stat().st_blocks  # a link, or shared blocks


def test_our_own_folder_is_replaced(tmp_path: Path, layers: tuple[Layer, ...]) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    write(folder, layers)
    write(folder, layers[:1])
    assert "layers/001-himl.tar" not in names(folder)
    assert entries(tmp_path / "context" / "layers") == ["000-conda-python.tar"]


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path, layers: tuple[Layer, ...]) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not from himl-container"):
        write(folder, layers)
    assert names(folder) == {"thesis.tex"}


def test_a_file_in_the_way(tmp_path: Path, layers: tuple[Layer, ...]) -> None:
    (tmp_path / "context").write_text("")
    with pytest.raises(InputError, match="a file, not a folder"):
        write(tmp_path / "context", layers)


def test_a_failure_leaves_the_folder_as_it_was(
    tmp_path: Path, layers: tuple[Layer, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "context"
    write(folder, layers)
    before = names(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(context, "_share", full)
    with pytest.raises(StorageError, match="No space left"):
        write(folder, layers[:1])
    assert names(folder) == before
    assert entries(tmp_path) == ["cache", "context"]

"""The layers below ours: as the base's registry has them, and out of exports of each kind of engine."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import zstandard
from memory_registry import MemoryRegistry, MemoryRepository

from himl_container.cache import Cache
from himl_container.environment.model import BasePin
from himl_container.errors import EngineError, RegistryError
from himl_container.image.model import ImagePlan, Layer, SystemPlan
from himl_container.image.prune import list_cache
from himl_container.progress import SilentReporter
from himl_container.publish.base_layers import registry_base
from himl_container.publish.compose import below_of, compose_push, lower_layers
from himl_container.publish.engine_layers import export_layers
from himl_container.publish.model import RemoteBlob
from himl_container.registry.model import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    DOCKER_TAR_GZIP,
    OCI_TAR_GZIP,
    canonical_json,
    sha256_of,
)

TARS = (b"first layer's tar" * 100, b"second layer's tar" * 100)
DIFF_IDS = tuple(sha256_of(tar) for tar in TARS)
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["PATH=/usr/bin"], "Cmd": ["sh"]},
    "rootfs": {"type": "layers", "diff_ids": list(DIFF_IDS)},
    "history": [{"created_by": "x"}],
}


@pytest.fixture
def hub() -> MemoryRegistry:
    return MemoryRegistry("docker.io")


def put_base(repository: MemoryRepository, *, index: bool = False, media_types: tuple[str, ...] = ()) -> BasePin:
    """Put a base of two layers into a repository, as Docker does, and return its pin."""
    config = canonical_json(CONFIG)
    layers = [gzip.compress(tar, mtime=0) for tar in TARS]
    repository.blobs |= {sha256_of(data): data for data in (config, *layers)}
    kinds = media_types or (DOCKER_TAR_GZIP, DOCKER_TAR_GZIP)
    content = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": sha256_of(config),
            "size": len(config),
        },
        "layers": [
            {"mediaType": kind, "digest": sha256_of(data), "size": len(data)}
            for kind, data in zip(kinds, layers, strict=True)
        ],
    }
    digest = repository.put(canonical_json(content), DOCKER_MANIFEST, sha256_of(canonical_json(content)))
    if index:
        entry = {"mediaType": DOCKER_MANIFEST, "digest": digest, "size": 1}
        listed = {
            "schemaVersion": 2,
            "mediaType": DOCKER_INDEX,
            "manifests": [{**entry, "platform": {"os": "linux", "architecture": "amd64"}}],
        }
        digest = repository.put(canonical_json(listed), DOCKER_INDEX, sha256_of(canonical_json(listed)))
    return BasePin("debian:12", digest=digest)


@pytest.mark.parametrize("index", [False, True])
def test_base_of_a_registry_is_known_by_position_and_asked_for_once(
    tmp_path: Path, hub: MemoryRegistry, index: bool
) -> None:
    repository = hub.repository("library/debian")
    pin = put_base(repository, index=index)
    asked: list[str] = []

    def connect(name: str) -> MemoryRepository:
        asked.append(name)
        return repository

    cache = Cache(tmp_path)
    base = registry_base(pin, cache=cache, connect_to=connect)
    assert base is not None
    assert (base.info.diff_ids, base.info.architecture, base.info.os) == (DIFF_IDS, "amd64", "linux")
    assert base.info.config == CONFIG["config"]
    for layer, tar in zip(base.layers, TARS, strict=True):
        (remote,) = layer.remotes
        assert (remote.host, remote.repository) == ("docker.io", "library/debian")
        assert gzip.decompress(repository.blobs[remote.descriptor.digest]) == tar
        assert (layer.diff_id, layer.path) == (sha256_of(tar), None)
    hub.forget()
    assert registry_base(pin, cache=cache, connect_to=connect) == base
    assert (asked, hub.calls) == (["docker.io/library/debian"], [])


def test_names_of_docker_and_of_foreign_layers_become_those_of_oci(tmp_path: Path, hub: MemoryRegistry) -> None:
    repository = hub.repository("library/debian")
    pin = put_base(repository, media_types=(DOCKER_TAR_GZIP, FOREIGN))
    base = registry_base(pin, cache=Cache(tmp_path), connect_to=lambda _: repository)
    assert base is not None
    assert [layer.remotes[0].descriptor.media_type for layer in base.layers] == [OCI_TAR_GZIP, OCI_TAR_GZIP]


def test_damaged_record_of_a_base_is_asked_for_again(tmp_path: Path, hub: MemoryRegistry) -> None:
    repository = hub.repository("library/debian")
    pin = put_base(repository)
    cache = Cache(tmp_path)
    base = registry_base(pin, cache=cache, connect_to=lambda _: repository)
    (record,) = (tmp_path / "memo" / "registry-base").iterdir()
    whole = json.loads(record.read_text())
    for damaged in ("", "[]", "{}", {**whole, "format": 0}, {**whole, "config": "{}"}, {**whole, "layers": []}):
        record.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
        hub.forget()
        assert registry_base(pin, cache=cache, connect_to=lambda _: repository) == base
        assert hub.calls


def test_base_of_one_daemon_only_and_base_for_other_machines(tmp_path: Path, hub: MemoryRegistry) -> None:
    def never(_: str) -> MemoryRepository:
        raise AssertionError("no registry is named")

    assert (
        registry_base(BasePin("base:1", rootfs="sha256:" + "0" * 64), cache=Cache(tmp_path), connect_to=never) is None
    )
    repository = hub.repository("library/debian")
    pin = put_base(repository)
    with pytest.raises(RegistryError, match="linux/amd64, not for linux/arm64"):
        registry_base(pin, cache=Cache(tmp_path), platform="linux-aarch64", connect_to=lambda _: repository)


def test_lower_layers_are_the_bases_then_the_system_parts(tmp_path: Path, hub: MemoryRegistry) -> None:
    repository = hub.repository("library/debian")
    base = registry_base(put_base(repository), cache=Cache(tmp_path), connect_to=lambda _: repository)
    system = sha256_of(b"system")
    found = lower_layers((*DIFF_IDS, system), base, cache=Cache(tmp_path))
    assert [(layer.name, layer.diff_id, bool(layer.remotes)) for layer in found] == [
        ("base 1", DIFF_IDS[0], True),
        ("base 2", DIFF_IDS[1], True),
        ("system 1", system, False),
    ]
    # An image that does not begin with the base: nothing of it is taken from the base's registry.
    other = lower_layers((DIFF_IDS[1], DIFF_IDS[0]), base, cache=Cache(tmp_path))
    assert [layer.remotes for layer in other] == [(), ()]


def test_image_is_composed_without_a_daemon_and_without_the_layers_files(tmp_path: Path, hub: MemoryRegistry) -> None:
    repository = hub.repository("library/debian")
    pin = put_base(repository)
    cache = Cache(tmp_path)
    base = registry_base(pin, cache=cache, connect_to=lambda _: repository)
    assert base is not None
    ours = sha256_of(b"ours")
    plan = ImagePlan("ab" * 32, "himl/train", pin, SystemPlan(), (), (), ())
    layer = Layer("conda:python", "cd" * 32, ours, 10, 1, cache.blob(ours))
    remote = RemoteBlob("registry.example", "team/train", base.layers[0].remotes[0].descriptor)
    image = compose_push(
        plan,
        below_of(base.info, base, cache=cache),
        (layer,),
        {"VARIABLE": "value"},
        annotations={"a": "b"},
        remotes={ours: (remote,)},
    )
    content = json.loads(image.config)
    assert content["rootfs"]["diff_ids"] == [*DIFF_IDS, ours]
    assert "VARIABLE=value" in content["config"]["Env"]
    assert [one.path for one in image.layers] == [None, None, None]
    assert image.layers[2].remotes == (remote,)
    assert (image.layers[2].key, image.annotations) == ("cd" * 32, {"a": "b"})


class Engine:
    """An engine's export, made of files; counts how often it is asked, and how far it was read."""

    def __init__(self, files: Mapping[str, bytes], *, cut: int | None = None) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                if name.endswith("/"):
                    entry.type = tarfile.DIRTYPE
                elif data.startswith(b"-> "):
                    entry.type, entry.linkname = tarfile.SYMTYPE, data[3:].decode()
                else:
                    entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        self.data = buffer.getvalue()[:cut]
        self.asked: list[str] = []
        self.position = 0

    @contextlib.contextmanager
    def open(self, image: str) -> Iterator[Engine]:
        self.asked.append(image)
        self.position = 0
        yield self

    def read(self, size: int) -> bytes:
        found = self.data[self.position : self.position + size]
        self.position += len(found)
        return found


def classic(tars: tuple[bytes, ...] = TARS) -> dict[str, bytes]:
    """The form of Engine 20.10: nothing in a layer's name says which one it is."""
    files: dict[str, bytes] = {}
    for number, tar in enumerate(tars):
        folder = hashlib.sha256(b"old id" + bytes([number])).hexdigest()
        files |= {f"{folder}/": b"", f"{folder}/VERSION": b"1.0", f"{folder}/json": b'{"id":"x"}'}
        files[f"{folder}/layer.tar"] = tar
    config = json.dumps(CONFIG).encode()
    files["0" * 64 + "/layer.tar"] = b"-> ../elsewhere/layer.tar"
    files[hashlib.sha256(config).hexdigest() + ".json"] = config
    files["manifest.json"] = json.dumps([{"Config": "x", "Layers": []}]).encode()
    return files


def layout(pack: str) -> dict[str, bytes]:
    """The form of current engines; containerd's store keeps what a registry gave, compressed."""
    packers = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}
    config = json.dumps(CONFIG).encode()
    blobs = [packers[pack](tar) for tar in TARS] + [config, b'{"layers": []}', b'{"rootfs": {"diff_ids": ["x"]}}']
    files = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in blobs}
    return {**files, "index.json": b"{}", "oci-layout": b"{}"}


FORMS = {"classic": classic(), **{pack: layout(pack) for pack in ("plain", "gzip", "zstd")}}


@pytest.mark.parametrize("form", FORMS)
def test_export_of_each_form_gives_the_layers_once_and_for_all(tmp_path: Path, form: str) -> None:
    engine, cache, reporter = Engine(FORMS[form]), Cache(tmp_path), SilentReporter()
    wanted = {DIFF_IDS[0]: "base 1", DIFF_IDS[1]: "base 2"}
    found = export_layers("image", wanted, cache=cache, reporter=reporter, open_archive=engine.open)
    assert [found.layers[diff_id].read_bytes() for diff_id in DIFF_IDS] == list(TARS)
    again = export_layers("image", wanted, cache=cache, reporter=reporter, open_archive=engine.open)
    assert again.layers == found.layers
    assert engine.asked == ["image"]
    assert {item.name for item in list_cache(cache) if item.kind == "layers"} == {"base 1", "base 2"}
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("form", FORMS)
def test_configuration_is_found_by_its_layers(tmp_path: Path, form: str) -> None:
    engine = Engine(FORMS[form])
    found = export_layers(
        "image", {}, cache=Cache(tmp_path), reporter=SilentReporter(), config_of=DIFF_IDS, open_archive=engine.open
    )
    assert json.loads(found.config) == CONFIG


def test_only_wanted_layers_are_kept_and_the_stream_ends_with_the_last(tmp_path: Path) -> None:
    filler = bytes(9 << 20)
    engine = Engine({**classic((*TARS, filler)), "more": filler, "still more": filler})
    found = export_layers(
        "image", {DIFF_IDS[1]: "base 2"}, cache=Cache(tmp_path), reporter=SilentReporter(), open_archive=engine.open
    )
    assert list(found.layers) == [DIFF_IDS[1]]
    assert [path.name for path in (tmp_path / "blobs" / "sha256").iterdir()] == [DIFF_IDS[1][7:]]
    assert engine.position < len(engine.data) - len(filler)


@pytest.mark.parametrize("cut", [100, 5000, 12000])
def test_export_that_breaks_off_is_told_and_leaves_nothing_half(tmp_path: Path, cut: int) -> None:
    engine = Engine(layout("gzip") if cut == 100 else classic((b"other" * 4000, *TARS)), cut=cut)
    with pytest.raises(EngineError):
        export_layers(
            "image",
            dict.fromkeys(DIFF_IDS, "base"),
            cache=Cache(tmp_path),
            reporter=SilentReporter(),
            open_archive=engine.open,
        )
    assert not list(tmp_path.glob("tmp/*"))
    assert not list(tmp_path.glob("blobs/sha256/*"))


def test_export_that_lacks_a_layer_names_it(tmp_path: Path) -> None:
    engine = Engine(classic((TARS[0],)))
    wanted = {DIFF_IDS[0]: "base 1", DIFF_IDS[1]: "system 1"}
    with pytest.raises(EngineError, match="lacks system 1"):
        export_layers("image", wanted, cache=Cache(tmp_path), reporter=SilentReporter(), open_archive=engine.open)


def test_damaged_blob_of_an_export_is_told(tmp_path: Path) -> None:
    files = layout("gzip")
    name = next(iter(files))
    files[name] = files[name][:30] + b"\0\0\0\0" + files[name][34:]
    with pytest.raises(EngineError):
        export_layers(
            "image",
            dict.fromkeys(DIFF_IDS, "base"),
            cache=Cache(tmp_path),
            reporter=SilentReporter(),
            open_archive=Engine(files).open,
        )

"""Pinning the base image, moving the pin, and what a created base is made from; with an engine made of plain data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from himl_container.cache import Cache
from himl_container.environment.model import BasePin
from himl_container.errors import BuildError, EngineError, InputError, RegistryError
from himl_container.image.base import pin_base, resolve_base
from himl_container.image.base_bump import bump, change_lines, difference
from himl_container.image.base_create import DebianBase, check_base, create_base
from himl_container.image.engine import ContainerResult, EngineInfo
from himl_container.image.model import ImageInfo, SystemPlan
from himl_container.image.system import ensure_system, system_tag
from himl_container.progress import Reporter, SilentReporter
from image import plans

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
REFERENCE = "registry.example/base:1"


def image(*, digest: str = "", layers: Sequence[str] = (A,), **config: object) -> ImageInfo:
    return ImageInfo(
        id="sha256:" + "c" * 64,
        tags=(REFERENCE,),
        repo_digests=(f"registry.example/base@{digest}",) if digest else (),
        diff_ids=tuple(layers),
        architecture="amd64",
        os="linux",
        size=1_000_000,
        config=config,
    )


@dataclass
class FakeEngine:
    """A daemon with some images, and a registry behind it that knows some digests."""

    images: dict[str, ImageInfo] = field(default_factory=dict)
    registry: Mapping[str, str] = field(default_factory=dict)
    containerd_store: bool = False
    inside: Mapping[str, str] = field(default_factory=dict)
    built: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def info(self) -> EngineInfo:
        return EngineInfo("1", "1.41", self.containerd_store, False, "amd64")

    def inspect(self, reference: str) -> ImageInfo | None:
        return self.images.get(reference)

    def registry_digest(self, reference: str) -> str:
        self.asked.append(reference)
        if reference not in self.registry:
            raise RegistryError("the registry does not give the image", where=reference)
        return self.registry[reference]

    def pull(self, reference: str, reporter: Reporter) -> ImageInfo:
        if reference.rpartition("@")[2] not in self.registry.values():
            raise RegistryError("the registry does not give the image", where=reference)
        self.images[reference] = image(digest=reference.rpartition("@")[2])
        return self.images[reference]

    def run(self, image: str, command: Sequence[str], **_: object) -> ContainerResult:
        if image not in self.inside:
            raise EngineError("there is no /bin/sh")
        return ContainerResult(0, self.inside[image].encode())

    def build(self, context: Path, *, tag: str, reporter: Reporter, **_: object) -> ImageInfo:
        self.built.append((context / "Dockerfile").read_text())
        self.images[tag] = image(layers=(A, B))
        return self.images[tag]


def pin(engine: FakeEngine, reference: str = REFERENCE, *, fresh: bool = False) -> BasePin:
    return pin_base(reference, engine=engine, fresh=fresh)  # type: ignore[arg-type]


def resolve(wanted: BasePin, engine: FakeEngine) -> ImageInfo:
    return resolve_base(wanted, engine=engine, reporter=SilentReporter())  # type: ignore[arg-type]


def test_a_pulled_image_is_pinned_without_asking_anybody() -> None:
    engine = FakeEngine({REFERENCE: image(digest=A)}, {REFERENCE: B})
    assert pin(engine) == BasePin(REFERENCE, digest=A)
    assert engine.asked == []


def test_a_fresh_pin_is_what_the_registry_says_today() -> None:
    assert pin(FakeEngine({REFERENCE: image(digest=A)}, {REFERENCE: B}), fresh=True) == BasePin(REFERENCE, digest=B)


def test_an_image_that_only_a_registry_has_is_pinned_unpulled() -> None:
    engine = FakeEngine(registry={REFERENCE: B})
    assert pin(engine) == BasePin(REFERENCE, digest=B)
    assert engine.images == {}


@pytest.mark.parametrize("fresh", [False, True])
def test_without_a_registry_the_layers_are_the_pin(fresh: bool) -> None:
    assert pin(FakeEngine({REFERENCE: image()}), fresh=fresh) == BasePin(REFERENCE, rootfs=A)


def test_a_digest_that_containerd_made_up_is_no_pin() -> None:
    """Its store shows a digest for every image; only a registry's can be fetched elsewhere."""
    made_up = FakeEngine({REFERENCE: image(digest=A)}, containerd_store=True)
    assert pin(made_up) == BasePin(REFERENCE, rootfs=A)
    pulled = FakeEngine({REFERENCE: image(digest=A)}, {REFERENCE: A}, containerd_store=True)
    assert pin(pulled) == BasePin(REFERENCE, digest=A)


def test_a_missing_base_is_pulled_by_digest() -> None:
    engine = FakeEngine(registry={REFERENCE: A})
    assert resolve(BasePin(REFERENCE, digest=A), engine).repo_digests == (f"registry.example/base@{A}",)


def test_a_base_that_was_carried_here_can_be_taken_on_purpose() -> None:
    engine = FakeEngine({REFERENCE: image()})
    with pytest.raises(BuildError, match="cannot be pulled") as caught:
        resolve(BasePin(REFERENCE, digest=B), engine)
    assert "base bump" in caught.value.hint


OLD = 'PRETTY_NAME="Debian 12"\n==packages==\nbash 5.1\nzlib 1\n'
NEW = 'PRETTY_NAME="Debian 13"\n==packages==\nbash 5.2\nopenssl 3\n'


def test_a_bump_moves_the_base_alone_and_tells_what_changes() -> None:
    lock = plans.lock([plans.conda("numpy")])
    before = replace(image(layers=(A,), Env=["PATH=/bin", "OLD=1"]), id="before")
    after = replace(image(layers=(A, B), Env=["PATH=/usr/bin"]), id="after", size=3_000_000)
    new = BasePin("team/base:2", digest=B)
    engine = FakeEngine(
        {f"debian@{plans.DIGEST}": before, f"team/base@{B}": after}, inside={"before": OLD, "after": NEW}
    )
    moved, change = bump(lock, "team/base:2", new, engine=engine)  # type: ignore[arg-type]
    assert moved == replace(lock, base=new, declared=replace(lock.declared, base="team/base:2"))
    assert change_lines(change) == [
        f"- debian:12 {plans.DIGEST}",
        f"+ team/base:2 {B}",
        "layers: 1 before, 2 after, 1 shared",
        "size: 1.0 MB before, 3.0 MB after",
        "system: Debian 12 -> Debian 13",
        "~ package bash 5.1 -> 5.2",
        "+ package openssl 3",
        "- package zlib 1",
        "- variable OLD 1",
        "~ variable PATH /bin -> /usr/bin",
    ]


def test_a_bump_without_the_old_image_says_so() -> None:
    engine = FakeEngine({REFERENCE: image()})
    _, change = bump(plans.lock(), REFERENCE, BasePin(REFERENCE, rootfs=A), engine=engine)  # type: ignore[arg-type]
    assert change_lines(change)[-1] == "The daemon does not have the old image, so its contents cannot be compared."


def test_nothing_differs_between_equal_mappings() -> None:
    assert difference("package", {"a": "1"}, {"a": "1"}) == []


def test_the_system_part_is_built_when_its_words_or_its_base_change(tmp_path: Path) -> None:
    engine, cache = FakeEngine(), Cache(tmp_path)

    def ensure(base: ImageInfo, text: str, plan: SystemPlan) -> ImageInfo:
        return ensure_system(plan, base, text, engine=engine, cache=cache, reporter=SilentReporter())  # type: ignore[arg-type]

    plan = SystemPlan(apt=("curl",))
    first = ensure(image(), "FROM x\nRUN 1\n", plan)
    assert ensure(image(), "FROM x\nRUN 1\n", plan) is first
    assert engine.built == ["FROM x\nRUN 1\n"]
    ensure(image(), "FROM x\nRUN 2\n", plan)
    ensure(image(layers=(B,)), "FROM x\nRUN 2\n", plan)
    assert len(engine.built) == 3
    assert ensure(image(), "", SystemPlan()) == image()
    assert system_tag(image(), "a") != system_tag(image(layers=(B,)), "a")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"mirror": "http://user:secret@mirror/debian"}, "stored in the image"),
        ({"security_mirror": "https://token@mirror/debian"}, "stored in the image"),
        ({"mirror": "http://mirror/debian main\ndeb http://evil/ x y"}, "not the address"),
        ({"mirror": "ftp://mirror/debian"}, "not the address"),
        ({"mirror": "file:///mirror/debian"}, "not the address"),
        ({"suite": "--hook-dir=/x"}, "not the name of a suite"),
        ({"include": ("vim,evil",)}, "not the name of a package"),
        ({"include": ("$(id)",)}, "not the name of a package"),
        ({"components": ("main [trusted=yes]",)}, "not the name of a component"),
        ({"platform": "win-64"}, "no Debian for"),
    ],
)
def test_a_base_is_made_from_plain_names_only(tmp_path: Path, values: dict[str, object], text: str) -> None:
    base = replace(DebianBase(), **values)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=text) as caught:
        create_base("b:1", base, cache=Cache(tmp_path), reporter=SilentReporter())
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)


def test_without_mmdebstrap_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="mmdebstrap") as caught:
        create_base("b:1", DebianBase(), cache=Cache(tmp_path / "c"), reporter=SilentReporter())
    assert "apt-get install mmdebstrap" in caught.value.hint


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that writes down how it was called and makes the archive that it finds beside itself."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "mmdebstrap"
    program.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" > "$0.arguments"; env > "$0.environment"\n'
        'for one in "$@"; do case "$one" in */base.tar) printf content > "$one";; esac; done\n'
        'test ! -e "$0.fails" || { echo "E: Failed to fetch http://u:secret@mirror/x"; exit 25; }\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return program


def test_what_mmdebstrap_is_told(tmp_path: Path, mmdebstrap: Path) -> None:
    cache = Cache(tmp_path / "c")
    base = DebianBase(
        suite="trixie", mirror="http://mirror.example/debian", include=("hello",), platform="linux-aarch64"
    )
    made = create_base("b", base, cache=cache, reporter=SilentReporter())
    told = Path(f"{mmdebstrap}.arguments").read_text().splitlines()
    assert {"--architectures=arm64", "--include=hello", "--components=main"} <= set(told)
    assert told[-2:] == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
    ]
    assert "SOURCE_DATE_EPOCH=315532800" in Path(f"{mmdebstrap}.environment").read_text()
    assert made.tag == "b:latest"
    assert made.layers[0].path.read_bytes() == b"content"
    assert list((tmp_path / "c" / "tmp").iterdir()) == []


def test_a_mirror_that_fails(tmp_path: Path, mmdebstrap: Path) -> None:
    Path(f"{mmdebstrap}.fails").touch()
    with pytest.raises(BuildError, match="ended with 25") as caught:
        create_base("b:1", DebianBase(), cache=Cache(tmp_path / "c"), reporter=SilentReporter())
    assert "--mirror" in caught.value.hint
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "c" / "blobs").exists()


def test_without_a_mirror_the_sources_are_left_to_mmdebstrap() -> None:
    assert DebianBase().sources == ()
    assert len(DebianBase(mirror="http://mirror.example/debian").sources) == 2


def test_a_security_mirror_alone_is_refused() -> None:
    with pytest.raises(InputError, match="no mirror of Debian"):
        check_base(DebianBase(security_mirror="http://mirror.example/security"))

"""What is attached to an image: the bill of materials and the lock, and what is believed of it."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_images import NAME, World, conda, lock, wheel

from himl_container.cache import Cache
from himl_container.environment.lockfile import lock_text
from himl_container.environment.model import BasePin
from himl_container.errors import InputError, RegistryError
from himl_container.progress import SilentReporter
from himl_container.publish.proof import LOCK_TYPE, attach_proof, read_lock_of
from himl_container.publish.sbom import SBOM_TYPE, make_sbom
from himl_container.publish.sbom_library import clean, made_by_library

LOCK = lock(
    conda("numpy", "1.26.4", depends=("python >=3.11", "blas"), license="BSD-3-Clause AND MIT"),
    wheels=[wheel("ours", "0.1", private=True), wheel("requests", "2.31.0")],
)
DIGEST = "sha256:" + "d" * 64


def gzipped_text(data: bytes) -> bytes:
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else b""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def attach(world: World, made: object, **more: object) -> None:
    values = {"lock": made.lock, "lock_bytes": made.lock_bytes, "settings": world.settings} | more  # type: ignore[attr-defined]
    attach_proof(world.repository, made.subject, reporter=SilentReporter(), **values)  # type: ignore[attr-defined, arg-type]


def components(document: bytes) -> dict[str, dict[str, object]]:
    return {one["bom-ref"]: one for one in json.loads(document)["components"]}


def assert_valid(document: bytes) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode()) is None


def test_the_bill_names_every_package_the_base_and_the_tool() -> None:
    document = make_sbom(LOCK, name=NAME, digest=DIGEST, environ={})
    assert_valid(document)
    found = components(document)
    assert found.keys() == {"base", "conda:python", "conda:numpy", "pip:requests", "pip:ours"}
    numpy = found["conda:numpy"]
    assert numpy["purl"].startswith("pkg:conda/numpy@1.26.4?build=h1_0&channel=")  # type: ignore[attr-defined]
    assert numpy["licenses"] == [{"expression": "BSD-3-Clause AND MIT"}]
    assert numpy["hashes"] == [{"alg": "SHA-256", "content": LOCK.conda[1].sha256}]
    properties = {one["name"]: one["value"] for one in numpy["properties"]}  # type: ignore[attr-defined]
    assert properties["himl:size"] == "6000000"
    assert properties["himl:layer"] == "conda:numpy"
    assert found["conda:python"]["licenses"] == [{"license": {"id": "MIT"}}]
    assert found["pip:requests"]["purl"] == "pkg:pypi/requests@2.31.0"
    # A package of the private wheel's name on PyPI would be somebody else's.
    assert str(found["pip:ours"]["purl"]).startswith("pkg:generic/ours@0.1?")
    assert found["base"]["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    whole = json.loads(document)
    assert whole["metadata"]["component"]["purl"].startswith(f"pkg:oci/train@{DIGEST}")
    assert whole["metadata"]["tools"]["components"][0]["name"] == "himl-container"
    depends = {one["ref"]: one.get("dependsOn", []) for one in whole["dependencies"]}
    assert depends["conda:numpy"] == ["conda:python"]
    assert depends["image"] == ["base", "conda:numpy", "conda:python", "pip:ours", "pip:requests"]


def test_the_same_lock_gives_the_same_bytes_and_its_own_time() -> None:
    first = make_sbom(LOCK, name=NAME, digest=DIGEST, environ={})
    assert make_sbom(LOCK, name=NAME, digest=DIGEST, environ={}) == first
    assert json.loads(first)["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    dated = json.loads(make_sbom(LOCK, name=NAME, digest=DIGEST, environ={"SOURCE_DATE_EPOCH": "86400"}))
    assert dated["metadata"]["timestamp"] == "1970-01-02T00:00:00+00:00"
    other = json.loads(make_sbom(lock(conda("numpy", "1.26.5")), name=NAME, digest=DIGEST, environ={}))
    assert len({json.loads(first)["serialNumber"], dated["serialNumber"], other["serialNumber"]}) == 3
    with pytest.raises(InputError, match="SOURCE_DATE_EPOCH"):
        make_sbom(LOCK, environ={"SOURCE_DATE_EPOCH": "yesterday"})


def test_what_is_kept_of_a_bill_gives_the_bytes_that_a_new_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    make_sbom(LOCK, name=NAME, digest=DIGEST, environ={}, cache=cache)
    changed = replace(LOCK, wheels=(wheel("mine", "2+local.1", private=True), *LOCK.wheels[1:]))
    expected = make_sbom(changed, name=NAME, digest=DIGEST, environ={})
    moved = lock(conda("numpy", "1.26.5"), wheels=changed.wheels)
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "cyclonedx.model.bom", None)  # its import fails
        assert make_sbom(changed, name=NAME, digest=DIGEST, environ={}, cache=cache) == expected
        with pytest.raises(ImportError):
            make_sbom(moved, name=NAME, digest=DIGEST, environ={}, cache=cache)
        with pytest.raises(ImportError):
            make_sbom(changed, name=NAME, digest=DIGEST, environ={"SOURCE_DATE_EPOCH": "86400"}, cache=cache)
    assert_valid(expected)
    for file in tmp_path.glob("memo/sbom/*.json"):
        file.write_text("{")
    assert make_sbom(changed, name=NAME, digest=DIGEST, environ={}, cache=cache) == expected


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=20), st.text(min_size=1, max_size=20), st.sampled_from(["1.0", "1!2.0+ab.1", "0.1.dev1"]))
def test_a_private_wheel_is_written_as_the_library_writes_it(name: str, filename: str, version: str) -> None:
    private = replace(wheel("ours", version, private=True), name=f"o{clean(name)}", filename=filename)
    document = make_sbom(lock(wheels=[private]), environ={})
    layers = {f"{private.sha256} {private.name}": f"wheel:{private.name}"}
    expected = made_by_library(lock(wheels=[private]), layers, "1980-01-01T00:00:00Z", [])
    reference = f"pip:{private.name}"
    assert components(document)[reference] == components(json.dumps(expected).encode())[reference]


def test_a_base_that_is_only_in_a_daemon_is_named_by_its_layers() -> None:
    local = lock(base=BasePin("local/base:1", rootfs="sha256:" + "e" * 64))
    document = make_sbom(local, environ={})
    assert_valid(document)
    base = components(document)["base"]
    assert "purl" not in base
    assert {"name": "himl:rootfs", "value": "sha256:" + "e" * 64} in base["properties"]  # type: ignore[operator]


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["(" * 4000, "MIT OR", "\x1b[31mMIT\x00", "\ud800", "NONE", " ", "mit", "a" * 5000, "LicenseRef-x"]
    ),
)


@settings(max_examples=40, deadline=None)
@given(HOSTILE)
def test_hostile_licences_break_nothing(text: str) -> None:
    document = make_sbom(lock(conda("odd", license=text)), environ={})
    found = components(document)["conda:odd"]
    assert not set(map(chr, [*range(9), *range(11, 32), 127])) & set(document.decode())
    for one in found.get("licenses", []):  # type: ignore[attr-defined]
        assert one.get("expression") or one["license"].get("id") or one["license"]["name"]


def test_hostile_licences_give_a_valid_document() -> None:
    texts = ["(" * 4000, "\x1b[31mMIT\x00\ud800", "MIT OR (", "apache-2.0", "MIT OR Apache-2.0", "Their Own, Inc."]
    packages = [conda(f"odd{number}", license=text) for number, text in enumerate(texts)]
    document = make_sbom(lock(*packages), environ={})
    assert_valid(document)
    assert components(document)["conda:odd3"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert components(document)["conda:odd5"]["licenses"] == [{"license": {"name": "Their Own, Inc."}}]


def test_lock_and_bill_are_attached_once(world: World) -> None:
    made = world.push(LOCK)
    attach(world, made)
    kinds = [one.artifact_type for one in world.repository.referrers(made.subject.digest)]
    assert sorted(kinds) == [SBOM_TYPE, LOCK_TYPE]
    assert read_lock_of(world.repository, made.subject) == LOCK
    world.registry.forget()
    attach(world, made)
    assert world.registry.calls == [("referrers", made.subject.digest)]


def test_what_a_cut_push_left_out_is_added(world: World) -> None:
    made = world.push(LOCK)

    def cut(name: str, argument: str) -> None:
        if name == "put_manifest" and world.registry.named("put_manifest").count(argument) == 1:
            attached.append(argument)
            if len(attached) == 2:
                raise RegistryError("the connection was cut")

    attached: list[str] = []
    world.registry.before = cut
    with pytest.raises(RegistryError, match="cut"):
        attach(world, made)
    world.registry.before = None
    assert len(world.repository.referrers(made.subject.digest)) == 1
    attach(world, made)
    assert len(world.repository.referrers(made.subject.digest)) == 2


def test_a_registry_that_lists_no_annotations_gets_nothing_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = world.push(LOCK)
    attach(world, made)
    listed = world.repository.referrers
    monkeypatch.setattr(
        type(world.repository),
        "referrers",
        lambda self, digest, kind="": tuple(replace(one, annotations={}) for one in listed(digest, kind)),
    )
    world.registry.forget()
    attach(world, made)
    assert not world.registry.uploaded


@pytest.mark.parametrize("annotated", [True, False])
def test_a_lock_that_somebody_else_attached_is_not_believed(world: World, annotated: bool) -> None:
    made = world.push(LOCK, annotated=annotated)
    forged = lock_text(lock(conda("numpy", "9.9.9"))).encode()
    for document in (forged, b"\xff\xfe", b"not = toml ["):
        world.repository.attach(made.subject, document, artifact_type=LOCK_TYPE, media_type=LOCK_TYPE)
    assert read_lock_of(world.repository, made.subject) is None
    attach(world, made)
    assert read_lock_of(world.repository, made.subject) == LOCK


def test_documents_are_compressed_and_those_of_an_earlier_version_are_read(world: World) -> None:
    made = world.push(LOCK)
    attach(world, made)
    texts = [text for data in world.repository.blobs.values() if (text := gzipped_text(data))]
    assert made.lock_bytes in texts
    [bill] = [text for text in texts if b'"bomFormat"' in text]
    assert_valid(bill)

    plain = World(world.settings.root / "plain")
    made = plain.push(LOCK)
    plain.repository.attach(made.subject, made.lock_bytes, artifact_type=LOCK_TYPE, media_type=LOCK_TYPE)
    assert read_lock_of(plain.repository, made.subject) == LOCK


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"x" * 1000)[:-9], gzip.compress(bytes(70 << 20), 1)])
def test_a_document_that_is_damaged_or_too_large_is_passed_over(world: World, data: bytes) -> None:
    made = world.push(LOCK)
    world.repository.attach(made.subject, data, artifact_type=LOCK_TYPE, media_type=f"{LOCK_TYPE}+gzip")
    assert read_lock_of(world.repository, made.subject) is None


def test_an_image_without_a_lock_has_none(world: World) -> None:
    made = world.push(LOCK)
    assert read_lock_of(world.repository, made.subject) is None
    assert read_lock_of(world.repository, replace(made.subject, digest=DIGEST)) is None


def test_no_credential_is_attached(tmp_path: Path) -> None:
    """What goes into the registry is read by everybody who may pull: the lock's own rule, seen from the other end."""
    from himl_container.environment.declare import load_environment
    from himl_container.environment.declared import declared

    (tmp_path / "environment.yml").write_text(
        "name: x\nchannels:\n  - conda-forge\ndependencies:\n  - python =3.11\n"
        "  - pip:\n    - --extra-index-url https://user:CANARY@index.example/simple?token=CANARY\n    - requests\n"
    )
    world = World(tmp_path)
    wanted = replace(
        world.settings,
        conda_files=(tmp_path / "environment.yml",),
        pip_index_url="https://user:CANARY@main.example/simple",
    )
    spec = load_environment(wanted, SilentReporter())
    made_from = replace(LOCK, declared=declared(spec, base="b", platform="linux-64", virtual_packages=()))
    made = world.push(made_from)
    attach(world, made)
    assert "index.example" in lock_text(made_from)
    for data in world.repository.blobs.values():
        assert b"CANARY" not in (gzipped_text(data) or data)
    for data, _ in world.repository.manifests.values():
        assert b"CANARY" not in data

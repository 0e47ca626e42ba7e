"""Whether run, registry, daemon and lock have one image; how they can part; what counts as not compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from proof_images import HOST, NAME, Made, World, conda, lock

from himl_container.cache import Cache
from himl_container.cli.verify import as_text
from himl_container.environment.lockfile import write_lock
from himl_container.errors import InputError, RegistryError, VerifyError
from himl_container.launch.run_images import LocalRuns
from himl_container.progress import SilentReporter
from himl_container.publish.known_names import remember
from himl_container.publish.proof import attach_proof
from himl_container.publish.verify import RunImage, Verification, verify
from himl_container.registry.api import Repository
from himl_container.registry.model import OCI_MANIFEST, Descriptor
from himl_container.settings import Settings

LOCK = lock(conda("blas"), conda("numpy", "1.0"))
OTHER = lock(conda("blas"), conda("numpy", "1.1"))


class Recorded:
    """Runs that are recorded elsewhere, as a workspace's are."""

    def __init__(self, *runs: RunImage) -> None:
        self._runs = {run.run: run for run in runs}

    def image_of(self, run: str) -> RunImage | None:
        return self._runs.get(run)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def made(world: World) -> Made:
    """The image of the lock: pushed with its proof, in the daemon, and the lock in the working folder."""
    image = world.push(LOCK)
    attach_proof(
        world.repository,
        image.subject,
        lock=LOCK,
        lock_bytes=image.lock_bytes,
        settings=world.settings,
        reporter=SilentReporter(),
    )
    write_lock(LOCK, world.settings.lock_file)
    world.images[f"team/train:{image.tag}"] = image.in_daemon(f"team/train:{image.tag}")
    world.images[image.in_daemon().id] = image.in_daemon()
    return image


def run_verify(
    world: World,
    reference: str = "",
    *,
    runs: Sequence[RunImage] = (),
    settings: Settings | None = None,
    deep: bool = False,
    repository: Repository | None = None,
) -> Verification:
    return verify(
        reference,
        settings or world.settings,
        reporter=SilentReporter(),
        runs=(Recorded(*runs),),
        deep=deep,
        connect=(lambda _: repository) if repository is not None else world.connect,
        connect_engine=world.engine,  # type: ignore[arg-type, return-value]
    )


def states(found: Verification) -> dict[str, str]:
    return {one.part: one.state for one in found.parts}


def whats(found: Verification) -> set[tuple[str, str, str]]:
    return {("/".join(one.parts), one.what, one.name) for one in found.partings}


def test_all_four_agree(world: World, made: Made) -> None:
    run = RunImage(
        "run_1", f"team/train:{made.tag}", made.in_daemon().id, f"{NAME}@{made.subject.digest}", made.fingerprint
    )
    found = run_verify(world, "run_1", runs=[run])
    assert found.agree, found
    assert states(found) == dict.fromkeys(("run", "registry", "daemon", "lock"), "found")
    assert len(found.compared) == 6
    assert found.layers == len(made.tars)
    assert "Run, registry, daemon and lock have the same image" in as_text(found)
    found.check()
    json.dumps(found.as_json())


def test_without_a_name_it_is_the_image_of_the_lock(world: World, made: Made) -> None:
    found = run_verify(world)
    assert found.agree
    assert found.reference == f"team/train:{made.tag}"
    world.settings.lock_file.unlink()
    with pytest.raises(InputError, match="no lock"):
        run_verify(world)


def test_another_package_in_the_lock_is_named(world: World, made: Made) -> None:
    write_lock(OTHER, world.settings.lock_file)
    found = run_verify(world, made.name)
    assert not found.agree
    assert whats(found) >= {
        ("registry/lock", "fingerprint", ""),
        ("registry/lock", "lock", ""),
        ("registry/lock", "package", "conda numpy"),
    }
    assert {one.parts for one in found.partings} == {("registry", "lock")}  # the daemon's is the same as the registry's
    assert "conda numpy" in as_text(found)
    with pytest.raises(VerifyError, match="do not have the same image") as caught:
        found.check()
    assert caught.value.exit_code == 76


def test_the_same_lock_under_other_settings_has_another_fingerprint(world: World, made: Made) -> None:
    found = run_verify(world, made.name, settings=world.with_settings(apt=("curl",)))
    assert whats(found) == {("registry/lock", "fingerprint", ""), ("registry/lock", "tag", "")}


def test_a_daemon_with_another_layer_under_the_tag(world: World, made: Made) -> None:
    wrong = (*made.diff_ids[:2], "sha256:" + "0" * 64, *made.diff_ids[3:])
    world.images[f"team/train:{made.tag}"] = made.in_daemon(id="sha256:" + "1" * 64, diff_ids=wrong)
    found = run_verify(world, made.name)
    assert whats(found) == {("registry/daemon", "layer", "conda:blas")}


def test_a_daemon_with_other_settings_under_the_tag(world: World, made: Made) -> None:
    local = made.in_daemon(id="sha256:" + "1" * 64)
    world.images[f"team/train:{made.tag}"] = replace(local, config={**local.config, "Cmd": ["sh"]})
    assert whats(run_verify(world, made.name)) == {("registry/daemon", "setting", "Cmd")}
    world.images[f"team/train:{made.tag}"] = local
    assert whats(run_verify(world, made.name)) == {("registry/daemon", "configuration", "")}


def test_containerds_store_has_ids_of_its_own(world: World, made: Made) -> None:
    """There the id is the digest of a manifest that the store made; the layers and settings decide, or what we saw."""
    world.containerd = True
    local = made.in_daemon(id="sha256:" + "2" * 64)
    world.images[f"team/train:{made.tag}"] = local
    assert run_verify(world, made.name).agree
    world.images[f"team/train:{made.tag}"] = replace(local, diff_ids=made.diff_ids[:-1])
    assert not run_verify(world, made.name).agree
    remember(Cache(world.settings.cache_dir), [local.id], [f"{NAME}@{made.subject.digest}"])
    assert run_verify(world, made.name).agree


@pytest.mark.parametrize("missing", ["daemon", "registry", "lock"])
def test_what_cannot_be_asked_is_not_compared(world: World, made: Made, missing: str) -> None:
    settings = world.settings
    if missing == "daemon":
        world.running = False
    elif missing == "registry":
        settings = world.with_settings(registry="")
    else:
        settings.lock_file.unlink()
    found = run_verify(world, f"team/train:{made.tag}", settings=settings)
    assert found.agree
    assert states(found)[missing] == "not compared"
    assert not any(missing in pair for pair in found.compared)
    shown = as_text(found)
    assert "not compared" in shown
    assert missing not in shown.splitlines()[-2]


def test_nothing_to_compare_with_is_not_agreement(world: World, made: Made) -> None:
    world.running = False
    world.settings.lock_file.unlink()
    found = run_verify(world, made.name)
    assert (found.compared, found.partings) == ((), ())
    assert not found.agree
    with pytest.raises(VerifyError, match="Nothing was compared"):
        found.check()


def test_a_daemon_need_not_have_the_image_and_a_registry_must(world: World, made: Made) -> None:
    world.images.clear()
    found = run_verify(world, made.name)
    assert (found.agree, found.layers) == (True, 0)  # the lock alone names no layer before one was made here
    world.images[f"team/train:{made.tag}"] = made.in_daemon()
    world.repository.tags.clear()
    found = run_verify(world, made.name)
    assert states(found)["registry"] == "missing"
    assert whats(found) == {("registry/daemon", "missing", "")}


def test_a_registry_that_does_not_answer_is_an_error(world: World, made: Made) -> None:
    def refuse(name: str, argument: str) -> None:
        raise RegistryError("the registry does not answer")

    world.registry.before = refuse
    with pytest.raises(RegistryError):
        run_verify(world, made.name)


def test_a_tag_that_moved_since_the_run(world: World, made: Made) -> None:
    run = RunImage("run_1", f"team/train:{made.tag}", made.in_daemon().id, f"{NAME}@{made.subject.digest}")
    other = world.push(LOCK, {"conda:numpy": {"opt/himl/x": b"another"}})
    assert other.tag == made.tag
    found = run_verify(world, "run_1", runs=[run])
    assert whats(found) == {("run/registry", "layer", "conda:numpy"), ("registry/daemon", "layer", "conda:numpy")}


def test_an_image_that_was_pushed_again_at_another_commit_is_the_same(world: World, made: Made) -> None:
    run = RunImage("run_1", f"team/train:{made.tag}", "", f"{NAME}@{made.subject.digest}")
    manifest = json.loads(world.repository.manifests[made.subject.digest][0])
    manifest["annotations"]["org.opencontainers.image.revision"] = "f" * 40
    world.repository.put_manifest(json.dumps(manifest).encode(), OCI_MANIFEST, made.tag)
    found = run_verify(world, "run_1", runs=[run])
    assert found.agree, found.partings


def test_a_run_whose_image_nobody_has_any_more(world: World, made: Made) -> None:
    run = RunImage("run_1", f"team/train:{made.tag}", "sha256:" + "9" * 64, lock="8" * 64)
    found = run_verify(world, "run_1", runs=[run])
    assert ("run/registry", "image", "") in whats(found)
    assert ("run/daemon", "image", "") in whats(found)
    assert ("run/lock", "lock", "") in whats(found)
    unknown = run_verify(world, "run_2", runs=[RunImage("run_2", f"team/train:{made.tag}")])
    assert states(unknown)["run"] == "not compared"
    assert unknown.agree


def test_local_runs_are_found_by_folder_id_and_link(world: World, made: Made, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    folder = runs / "train_1_ab"
    folder.mkdir(parents=True)
    image = {"tag": f"team/train:{made.tag}", "id": made.in_daemon().id, "digest": "", "fingerprint": "f", "odd": 5}
    record = {"id": "train_1_ab", "state": "completed", "launch": {"image": image}, "nodes": []}
    (folder / "run.json").write_text(json.dumps(record))
    (runs / "latest").symlink_to("train_1_ab")
    for name in ("train_1_ab", "latest", str(folder)):
        found = LocalRuns(runs).image_of(name)
        assert found == RunImage("train_1_ab", f"team/train:{made.tag}", made.in_daemon().id, fingerprint="f")
    assert LocalRuns(runs).image_of("another") is None
    (folder / "run.json").write_text("{}")
    with pytest.raises(InputError, match="not the record of a run"):
        LocalRuns(runs).image_of("latest")
    with pytest.raises(InputError, match="no run yet"):
        LocalRuns(tmp_path / "none").image_of("latest")


def test_a_layer_that_was_made_here_by_the_lock_is_compared(
    world: World, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this machine made by the lock's own plan must be what the image has."""
    from himl_container.image import clobber
    from himl_container.image.plan import plan_layers
    from himl_container.image.store import LayerStore
    from himl_container.image.tar import Written
    from himl_container.registry.model import sha256_of

    monkeypatch.setattr(clobber, "all_known", lambda lock, cache: True)
    monkeypatch.setattr(clobber, "excluded_paths", lambda lock, **more: {})
    cache = Cache(world.settings.cache_dir)
    plans = {plan.name: plan for plan in plan_layers(LOCK)}
    names = ["", *plans]

    def keep(name: str, content: bytes) -> None:
        with cache.new_file() as temporary:
            temporary.write_bytes(content)
            written = Written(sha256_of(content), len(content), 1)
            LayerStore(cache).put(plans[name].key, name, written, temporary)

    keep("conda:numpy", made.tars[names.index("conda:numpy")])
    assert run_verify(world, made.name).agree
    keep("conda:numpy", b"made otherwise")
    assert whats(run_verify(world, made.name)) == {("registry/lock", "layer", "conda:numpy")}


class Rotten:
    """The repository, with blobs that rotted on the registry's disk and a client that says so only at their end."""

    def __init__(self, world: World, rotten: dict[str, bytes]) -> None:
        self._inner = world.repository
        self._rotten = rotten

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def stream(self, descriptor: Descriptor) -> object:
        data = self._rotten.get(descriptor.digest)
        if data is None:
            yield from self._inner.stream(descriptor)
            return
        yield data
        raise RegistryError("a blob has another digest")


def test_deep_reads_and_hashes_every_layer(world: World, made: Made) -> None:
    found = run_verify(world, made.name, deep=True)
    assert found.agree
    manifest = json.loads(world.repository.manifests[made.subject.digest][0])
    assert found.hashed == sum(layer["size"] for layer in manifest["layers"])
    assert "hashed" in as_text(found)
    layer = manifest["layers"][2]
    sound = world.repository.blobs[layer["digest"]]
    rotten = Rotten(world, {layer["digest"]: sound[:-1] + bytes([sound[-1] ^ 1])})
    found = run_verify(world, made.name, deep=True, repository=rotten)  # type: ignore[arg-type]
    assert whats(found) == {("registry/registry", "blob", "conda:blas")}
    cut = Rotten(world, {layer["digest"]: sound[:-5]})
    with pytest.raises(RegistryError):  # what did not come whole says nothing about the registry
        run_verify(world, made.name, deep=True, repository=cut)  # type: ignore[arg-type]


def test_deep_gives_up_a_layer_that_unpacks_to_more_than_a_layer_may_be(
    world: World, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("himl_container.publish.verify_deep.plausible_size", lambda compressed: 100)
    found = run_verify(world, made.name, deep=True)
    assert {what for _, what, _ in whats(found)} == {"content"}
    assert found.hashed == sum(
        layer["size"] for layer in json.loads(world.repository.manifests[made.subject.digest][0])["layers"]
    )


def test_deep_finds_a_layer_that_was_pushed_damaged(world: World, made: Made) -> None:
    """Its blob has its digest, and the manifest names it; only unpacking shows that it is another layer."""
    manifest = json.loads(world.repository.manifests[made.subject.digest][0])
    for number, data in ((1, b"\x1f\x8bno gzip at all"), (2, b"no layer")):
        manifest["layers"][number] |= {"digest": world.repository.upload_bytes(data), "size": len(data)}
    world.repository.put_manifest(json.dumps(manifest).encode(), OCI_MANIFEST, made.tag)
    assert run_verify(world, made.name).agree  # by digest of the configuration alone
    found = run_verify(world, made.name, deep=True)
    assert whats(found) == {
        ("registry/registry", "content", "conda:python"),
        ("registry/registry", "content", "conda:blas"),
    }
    assert HOST in as_text(found)

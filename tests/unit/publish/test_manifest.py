"""The manifest and its annotations: what they say, and what they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from assembly import lock_of

from himl_container import __version__
from himl_container.environment.model import BasePin, Lock, LockedConda
from himl_container.errors import InputError
from himl_container.publish.manifest import Origin, created, git_revision, image_annotations, image_manifest
from himl_container.registry.model import OCI_CONFIG, OCI_MANIFEST, OCI_TAR_GZIP, Descriptor, sha256_of

PLAIN = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "SOURCE_DATE"))}


def package(name: str, timestamp: int) -> LockedConda:
    url = f"https://conda.anaconda.org/conda-forge/noarch/{name}.conda"
    return LockedConda(name, "1.0", "0", 0, "noarch", url, "conda-forge", "ab" * 32, 1, timestamp=timestamp)


def lock(*timestamps: int, base: BasePin | None = None) -> Lock:
    found = lock_of([package(f"p{number}", time) for number, time in enumerate(timestamps)])
    return dataclasses.replace(found, base=base or BasePin("base:1", rootfs="sha256:" + "0" * 64))


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *identity, "-C", folder, *arguments], env=PLAIN, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_manifest_is_canonical_and_its_digest_known_beforehand() -> None:
    config = b'{"rootfs":{}}'
    layers = [Descriptor(OCI_TAR_GZIP, sha256_of(b"one"), 3, annotations={"not": "for the manifest"})]
    data, descriptor = image_manifest(config, layers, {"b": "2", "a": "1"})
    assert data == image_manifest(config, layers, {"a": "1", "b": "2"})[0]
    assert descriptor == Descriptor(OCI_MANIFEST, "sha256:" + hashlib.sha256(data).hexdigest(), len(data))
    assert json.loads(data) == {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": sha256_of(config), "size": len(config)},
        "layers": [{"mediaType": OCI_TAR_GZIP, "digest": sha256_of(b"one"), "size": 3}],
        "annotations": {"a": "1", "b": "2"},
    }
    assert "annotations" not in json.loads(image_manifest(config, layers, {})[0])


def test_annotations_say_where_the_image_comes_from(tmp_path: Path) -> None:
    pin = BasePin("mcr.example/base:1@sha256:" + "1" * 64, digest="sha256:" + "1" * 64)
    origin = Origin(lock(1_700_000_000_000, base=pin), b"the lock's bytes", "ab" * 32, tmp_path, tested=True)
    assert image_annotations(origin, PLAIN) == {
        "io.himl.fingerprint": "ab" * 32,
        "io.himl.lock": "sha256:" + hashlib.sha256(b"the lock's bytes").hexdigest(),
        "io.himl.tested": "true",
        "io.himl.version": __version__,
        "org.opencontainers.image.base.digest": "sha256:" + "1" * 64,
        "org.opencontainers.image.base.name": "mcr.example/base:1",
        "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
    }
    untested = image_annotations(dataclasses.replace(origin, tested=False, lock=lock()), PLAIN)
    assert untested["io.himl.tested"] == "false"
    assert "org.opencontainers.image.base.digest" not in untested


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ((1_600_000_000_000, 1_700_000_000_000, 0), "2023-11-14T22:13:20Z"),
        ((1_600_000_000,), "2020-09-13T12:26:40Z"),  # seconds, as very old channels have it
        ((0, -5), "1980-01-01T00:00:00Z"),
        ((), "1980-01-01T00:00:00Z"),
        ((1 << 62,), "9999-12-31T23:59:59Z"),
    ],
)
def test_time_is_that_of_the_newest_package(times: tuple[int, ...], said: str) -> None:
    assert created(lock(*times), {}) == said


def test_source_date_epoch_decides_the_time_and_is_checked() -> None:
    assert created(lock(1_700_000_000_000), {"SOURCE_DATE_EPOCH": "0"}) == "1970-01-01T00:00:00Z"
    assert created(lock(1_700_000_000_000), {"SOURCE_DATE_EPOCH": ""}) == "2023-11-14T22:13:20Z"
    for wrong in ("yesterday", "-1", "1.5", "9" * 40, "253402300800", "१२"):
        with pytest.raises(InputError, match="SOURCE_DATE_EPOCH"):
            created(lock(), {"SOURCE_DATE_EPOCH": wrong})


def test_revision_is_the_commit_and_tells_of_changes(tmp_path: Path) -> None:
    assert git_revision(tmp_path, PLAIN) == ""
    git(tmp_path, "init", "-q")
    assert git_revision(tmp_path, PLAIN) == ""  # nothing is committed yet
    file = tmp_path / "environment.yml"
    file.write_text("one")
    git(tmp_path, "add", "environment.yml")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "notes.txt").write_text("git knows nothing of this file")
    assert git_revision(tmp_path, PLAIN) == head
    below = tmp_path / "below"
    below.mkdir()
    assert git_revision(below, PLAIN) == head
    file.write_text("two")
    assert git_revision(tmp_path, PLAIN) == f"{head}-dirty"
    git(tmp_path, "add", "environment.yml")
    assert git_revision(below, PLAIN) == f"{head}-dirty"


def test_repository_cannot_have_its_own_programs_run(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "config", "core.fsmonitor", f"touch {tmp_path}/ran; false")
    assert git_revision(tmp_path, PLAIN) == git(tmp_path, "-c", "core.fsmonitor=false", "rev-parse", "HEAD")
    assert not (tmp_path / "ran").exists()


def test_machine_without_git_says_nothing(tmp_path: Path) -> None:
    assert git_revision(tmp_path, {"PATH": str(tmp_path)}) == ""

"""A full disk while layers are made: on a small tmpfs, which takes root to mount."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from assembly import build, lock_of, locked, settings_of

from himl_container.cache import Cache
from himl_container.errors import StorageError
from himl_container.image.store import LayerStore

pytestmark = pytest.mark.docker  # where Docker tests run, there is root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("own", [True, False], ids=["our cache", "rattler's cache"])
def test_a_full_disk_is_a_storage_error_and_can_be_made_up_for(
    channel: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    rattler = tmp_path / "rattler" if own else small_disk / "rattler"
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(rattler))
    lock = lock_of(locked(channel, "python", "tinytool"))
    settings = settings_of(channel, small_disk if own else tmp_path)

    with pytest.raises(StorageError) as raised:
        build(lock, settings)

    assert "Free some space" in raised.value.hint
    assert not list((settings.cache_dir / "tmp").iterdir())
    assert not LayerStore(Cache(settings.cache_dir)).verify()

    subprocess.run(["mount", "-o", "remount,size=400m", small_disk], check=True)
    assert build(lock, settings)[0].name == "conda:python"

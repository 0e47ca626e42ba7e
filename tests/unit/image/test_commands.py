"""The commands ``cache`` and ``explain``, without a daemon."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from himl_container.cache import Cache
from himl_container.cli.main import run
from himl_container.settings import Settings
from image import plans
from image.test_explain import layer, record

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def himl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "pyproject.toml").write_text("[tool.himl-container]\n")
    (tmp_path / "environment.yml").write_text("dependencies: []\n")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_cache_ls_and_prune(himl: Run, tmp_path: Path) -> None:
    stored = plans.stored_layer(Cache(tmp_path / "cache"), "conda:mkl", {"/a": os.urandom(100_000)})
    os.utime(tmp_path / "cache" / "layers" / f"{stored.key}.json", (1_000_000_000, 1_000_000_000))
    code, out, _ = himl("cache", "ls")
    assert code == 0
    assert "conda:mkl" in out and "2001-09-0" in out and "in all, in" in out
    listed = json.loads(himl("cache", "ls", "--json")[1])
    assert listed["size"] >= 100_000 and listed["items"][0]["name"] == "conda:mkl"
    assert "would be freed (1 items)" in himl("cache", "prune", "--keep", "0", "--dry-run")[1]
    assert stored.path.exists()
    assert "conda:mkl" in himl("cache", "prune", "--keep", "10 kB")[1]
    assert not stored.path.exists()


@pytest.mark.parametrize("keep", ["20GB", "1.5 gib", "0", "500m", "7T"])
def test_sizes(himl: Run, keep: str) -> None:
    assert himl("cache", "prune", "--keep", keep)[0] == 0


@pytest.mark.parametrize("keep", ["", "-1", "GB", "1 XB", "1e9", "20GB; rm"])
def test_what_is_no_size(himl: Run, keep: str) -> None:
    code, _, err = himl("cache", "prune", "--keep", keep)
    assert code == 2
    assert "is not a size" in err


def test_explain_without_a_build(himl: Run) -> None:
    code, _, err = himl("explain")
    assert code == 65
    assert "no build of this project is recorded" in err


def test_explain_says_why_and_what_would_be_next(himl: Run, tmp_path: Path) -> None:
    settings = Settings(
        root=tmp_path,
        conda_files=(),
        lock_file=tmp_path / "pylock.himl.toml",
        cache_dir=tmp_path / "cache",
        image_name=image_name(tmp_path),
    )
    record(settings, plans.lock([plans.conda("numpy", "1.26.3")]), [layer("conda:numpy", "a", 30_000_000)])
    record(settings, plans.lock([plans.conda("numpy", "1.26.4")]), [layer("conda:numpy", "b", 31_000_000)])
    code, out, _ = himl("explain")
    assert code == 0
    assert "Why: 1 input had changed since the build before." in out
    assert "conda numpy: 1.26.3" in out
    assert "Layers: 1 of 1 made anew, 31.0 MB of 31.0 MB" in out
    assert "The next build is needed:\n  the lock is not current" in out  # there is no lock at all
    result = json.loads(himl("explain", "--json")[1].splitlines()[-1])
    assert result["layers"] == [{"name": "conda:numpy", "size": 31_000_000, "state": "made"}]


def image_name(root: Path) -> str:
    """The name that the settings give an image by default."""
    from himl_container.config.images import repository_for

    return repository_for(root.name)

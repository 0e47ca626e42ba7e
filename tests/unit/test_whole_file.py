from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from himl_container.whole_file import replace_file


@pytest.mark.parametrize(("there", "mode"), [(None, 0o644), (0o600, 0o600), (0o755, 0o755)])
def test_one_that_was_there_keeps_its_mode(tmp_path: Path, there: int | None, mode: int) -> None:
    path = tmp_path / "file"
    if there is not None:
        path.write_text("a longer text than the new one")
        path.chmod(there)
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_link_that_lies_in_wait_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "file").symlink_to("other")
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "other").read_text() == "other"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "os.fchmod"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    (tmp_path / "file").write_text("old")

    def full(*_words: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(call, full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "file", b"new", sync=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"

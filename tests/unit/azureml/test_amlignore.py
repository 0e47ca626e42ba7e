"""What is written into ``.amlignore`` while a snapshot is taken, and that nothing stays of it."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from himl_container.azureml.amlignore import append_to_amlignore, left_out, with_ignored
from himl_container.errors import StorageError
from himl_container.launch.snapshot import scan


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")


def sdk_takes(root: Path) -> list[str]:
    """Which files the SDK would send, by its own code."""
    from azureml._base_sdk_common.merkle_tree import create_merkletree
    from azureml._project.ignore_file import get_project_ignore_file

    found: list[str] = []
    waiting = [("", create_merkletree(str(root), get_project_ignore_file(str(root)).is_file_excluded))]
    while waiting:
        prefix, node = waiting.pop()
        for child in node.children:
            path = f"{prefix}{child.name}"
            if child.is_file():
                found.append(path)
            else:
                waiting.append((f"{path}/", child))
    return sorted(found)


def test_a_missing_file_is_made_and_taken_away(tmp_path: Path) -> None:
    file = tmp_path / ".amlignore"
    with append_to_amlignore(["first", "second"], file):
        assert file.read_text() == "first\nsecond"
    assert not file.exists()


def test_without_lines_nothing_is_made(tmp_path: Path) -> None:
    with append_to_amlignore([], tmp_path / ".amlignore"):
        assert list(tmp_path.iterdir()) == []


def test_the_default_is_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with append_to_amlignore(["a"]):
        assert (tmp_path / ".amlignore").read_text() == "a"


@pytest.mark.parametrize("old", [b"a", b"a\n", b"a\r\nb\r\n", b"", b"\xff\n"])
def test_a_file_is_byte_by_byte_what_it_was(tmp_path: Path, old: bytes) -> None:
    file = tmp_path / ".amlignore"
    file.write_bytes(old)
    file.chmod(0o640)
    with append_to_amlignore(["more"], file):
        assert file.read_bytes().split(b"\n")[-1] == b"more"
        assert file.read_bytes().startswith(old)
    assert file.read_bytes() == old
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == [".amlignore"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_is_put_back_whatever_happens(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / ".amlignore"
    file.write_text("old")
    with pytest.raises(error), append_to_amlignore(["more"], file):
        raise error
    assert file.read_text() == "old"


@pytest.mark.parametrize("old", [None, "old\n"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_put_back_when_the_process_is_ended(tmp_path: Path, number: signal.Signals, old: str | None) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom himl_container.azureml.amlignore import with_ignored\n"
        "Path('data').mkdir()\nPath('.git').mkdir()\n"
        "with with_ignored(Path.cwd(), ['data']):\n    print('begun', flush=True)\n    sys.stdin.read()\n"
    )
    if old is not None:
        (tmp_path / ".amlignore").write_text(old)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        assert "data" in (tmp_path / ".amlignore").read_text()
        process.send_signal(number)
        assert process.wait(60) == -number
    assert ((tmp_path / ".amlignore").read_text() if (tmp_path / ".amlignore").exists() else None) == old


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / ".amlignore").symlink_to("real")
    with append_to_amlignore(["more"], tmp_path / ".amlignore"):
        assert (tmp_path / "real").read_text() == "old\nmore"
    assert (tmp_path / ".amlignore").is_symlink()
    assert (tmp_path / "real").read_text() == "old"


def test_gitignore_is_not_switched_off(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.tmp\n")
    with append_to_amlignore(["more"], tmp_path / ".amlignore"):
        assert (tmp_path / ".amlignore").read_text() == "*.tmp\nmore"


@pytest.mark.parametrize("place", [".amlignore", "nowhere/.amlignore"])
def test_what_cannot_be_read_or_written(tmp_path: Path, place: str) -> None:
    (tmp_path / ".amlignore").mkdir()
    with pytest.raises(StorageError, match=place), append_to_amlignore(["a"], tmp_path / place):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == [".amlignore"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(StorageError, match="Permission denied"), append_to_amlignore(["a"], tmp_path / ".amlignore"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "train.py", ".git/config", "file")
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path / "file"))
    with with_ignored(tmp_path, ["file"]) as snapshot:
        assert sdk_takes(tmp_path) == [file.path for file in snapshot.files] == ["train.py"]


def test_a_line_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line break"), append_to_amlignore(["a\n!b"], tmp_path / ".amlignore"):
        pass


@pytest.mark.parametrize("ignore", [{}, {".gitignore": "*.tmp\n"}, {".amlignore": "*.tmp\n"}])
def test_the_sdk_takes_what_a_local_run_takes(tmp_path: Path, ignore: dict[str, str]) -> None:
    """``.git``, runs on this machine, AzureML's list: the SDK by itself knows none of it."""
    write(tmp_path, "train.py", "src/[a].py", "x.tmp", ".git/config", "src/.git/y", "most_recent_run.txt", "outputs/o")
    for name, text in ignore.items():
        (tmp_path / name).write_text(text)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert ".git/config" in sdk_takes(tmp_path)
    snapshot = scan(tmp_path)
    with with_ignored(tmp_path, []):
        assert sdk_takes(tmp_path) == [file.path for file in snapshot.files]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_where_nothing_is_left_out_no_file_is_touched(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    with with_ignored(tmp_path, []):
        assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


@pytest.mark.parametrize("ignore", [{}, {".gitignore": "*.tmp\n"}, {".amlignore": "*.tmp\n"}])
def test_ignored_folders(tmp_path: Path, ignore: dict[str, str]) -> None:
    write(tmp_path, "train.py", "big/a", "sub/big/b", "other/c", "x.tmp", ".git/config", "outputs/o", "runs/r")
    for name, text in ignore.items():
        (tmp_path / name).write_text(text)
    with with_ignored(tmp_path, ["big", tmp_path / "other"]) as snapshot:
        sent = sdk_takes(tmp_path)
        assert sent == [file.path for file in snapshot.files]
    left = {"x.tmp"} if not ignore else set()
    left |= {"outputs/o"} if ignore else set()
    assert set(sent) == {"train.py", "runs/r", *ignore, *left}
    assert sorted(path.name for path in tmp_path.glob(".*ignore")) == sorted(ignore)


def test_a_submission_does_not_see_what_another_one_has_written(tmp_path: Path) -> None:
    """The second waits; a look at the folder before that would take the first one's file for the user's."""
    write(tmp_path, "train.py", "big/a", ".git/config", "outputs/o")
    first_has_written, second_is_off, sent = threading.Event(), threading.Event(), []

    def second() -> None:
        first_has_written.wait(30)
        second_is_off.set()
        with with_ignored(tmp_path, ["train.py"]):
            sent.extend(sdk_takes(tmp_path))

    thread = threading.Thread(target=second)
    thread.start()
    with with_ignored(tmp_path, ["big"]):
        first_has_written.set()
        assert second_is_off.wait(30)
        thread.join(0.2)
        assert sdk_takes(tmp_path) == ["train.py"]
    thread.join(30)
    assert sent == ["big/a"]
    assert not (tmp_path / ".amlignore").exists()


@given(st.text(st.sampled_from("ab*?[]!#\\ ."), min_size=1, max_size=6).filter(lambda name: name.strip(".") != ""))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_are_not_taken_for_patterns(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("names")
    write(root, "keep/ab", f"{name}.d/.git/x", "a.py")
    snapshot = scan(root)
    with append_to_amlignore(left_out(snapshot), root / ".amlignore"):
        assert sdk_takes(root) == sorted([".amlignore", *(file.path for file in snapshot.files)])

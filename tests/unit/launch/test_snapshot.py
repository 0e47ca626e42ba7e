from __future__ import annotations

import os
from pathlib import Path

import pytest

from himl_container.errors import InputError
from himl_container.launch.snapshot import MAX_BYTES, MAX_FILES, Snapshot, check_limits, scan


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def names(snapshot: Snapshot) -> list[str]:
    return [file.path for file in snapshot.files]


def ignored(snapshot: Snapshot) -> dict[str, str]:
    return {item.path: item.rule for item in snapshot.ignored}


def test_without_rules_azuremls_defaults_leave_out_results_and_history(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "src/a.py", "outputs/x", "docs/y", ".git/config", "src/.ipynb_checkpoints/z")
    snapshot = scan(tmp_path)
    assert names(snapshot) == ["src/a.py", "train.py"]
    assert set(ignored(snapshot)) == {"outputs/", "docs/", ".git/", "src/.ipynb_checkpoints/"}


def test_amlignore_decides_alone_and_says_by_which_line(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "a.log", "b.tmp", "docs/y", "keep.log")
    (tmp_path / ".amlignore").write_text("# comment\n\n*.log\n!keep.log\n")
    (tmp_path / ".gitignore").write_text("*.tmp\n")
    snapshot = scan(tmp_path)
    assert names(snapshot) == [".amlignore", ".gitignore", "b.tmp", "docs/y", "keep.log", "train.py"]
    assert ignored(snapshot) == {"a.log": ".amlignore:3 (*.log)"}
    assert snapshot.why_ignored("a.log") == ".amlignore:3 (*.log)"


def test_the_id_of_the_last_submission_is_not_part_of_the_source(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "most_recent_run.txt", "old/most_recent_run.txt")
    assert [file.path for file in scan(tmp_path).files] == ["old/most_recent_run.txt", "train.py"]


def test_gitignore_counts_where_there_is_no_amlignore_and_only_in_the_root(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "a.tmp", "sub/b.log", ".git/config")
    (tmp_path / ".gitignore").write_text("*.tmp\n")
    (tmp_path / "sub" / ".gitignore").write_text("*.log\n")
    snapshot = scan(tmp_path)
    assert names(snapshot) == [".gitignore", "sub/.gitignore", "sub/b.log", "train.py"]
    assert set(ignored(snapshot)) == {"a.tmp", ".git/"}


def test_a_folder_pattern_leaves_out_all_below(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "data/a", "data/deep/b", "sub/data/c")
    (tmp_path / ".amlignore").write_text("data/\n")
    snapshot = scan(tmp_path)
    assert names(snapshot) == [".amlignore", "train.py"]
    assert snapshot.why_ignored("data/deep/b") == ".amlignore:1 (data/)"


def test_a_file_can_be_taken_back_from_a_folder_pattern(tmp_path: Path) -> None:
    write(tmp_path, "data/a", "data/keep")
    (tmp_path / ".amlignore").write_text("data/\n!data/keep\n.amlignore\n")
    assert names(scan(tmp_path)) == ["data/keep"]


def test_a_pattern_for_the_folder_itself_cannot_be_taken_back_inside(tmp_path: Path) -> None:
    write(tmp_path, "data/a", "data/keep")
    (tmp_path / ".amlignore").write_text("data\n!data/keep\n.amlignore\n")
    assert names(scan(tmp_path)) == []


def test_links_are_followed_and_those_that_lead_out_are_named(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    write(root, "real.py", "sub/x")
    write(other, "lib/y", "one")
    (root / "alias.py").symlink_to("real.py")
    (root / "lib").symlink_to(other / "lib")
    (root / "one").symlink_to(other / "one")
    snapshot = scan(root)
    assert names(snapshot) == ["alias.py", "lib/y", "one", "real.py", "sub/x"]
    assert sorted(snapshot.outside) == ["lib", "one"]


def test_a_neighbour_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "a")
    write(tmp_path, "root2/x")
    (root / "x").symlink_to(tmp_path / "root2" / "x")
    assert scan(root).outside == ("x",)


@pytest.mark.parametrize("kind", ["dangling", "loop", "pipe"])
def test_what_azureml_would_choke_on_is_named_with_the_way_out(tmp_path: Path, kind: str) -> None:
    write(tmp_path, "sub/x")
    if kind == "dangling":
        (tmp_path / "sub" / "odd").symlink_to("nowhere")
    elif kind == "loop":
        (tmp_path / "sub" / "odd").symlink_to(tmp_path)
    else:
        os.mkfifo(tmp_path / "sub" / "odd")
    with pytest.raises(InputError) as caught:
        scan(tmp_path)
    assert "sub/odd" in caught.value.what
    assert ".amlignore" in caught.value.hint
    (tmp_path / ".amlignore").write_text("odd\n")
    assert names(scan(tmp_path)) == [".amlignore", "sub/x"]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    with pytest.raises(InputError, match="not UTF-8"):
        scan(tmp_path)


def test_a_missing_source_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        scan(tmp_path / "nope")


def test_earlier_runs_are_left_out_also_where_their_link_leads_nowhere(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "runs/one/run.json", "runs/mine/data")
    (tmp_path / "runs" / "latest").symlink_to("gone")
    snapshot = scan(tmp_path, skip=[tmp_path / "runs" / "one", tmp_path / "runs" / "latest"])
    assert names(snapshot) == ["runs/mine/data", "train.py"]


def test_too_many_files_name_the_fullest_folder_and_the_variable_that_lifts_the_limit(tmp_path: Path) -> None:
    for index in range(MAX_FILES):
        (tmp_path / f"{index}").touch()
    check_limits(scan(tmp_path), {})
    write(tmp_path, "data/x")
    with pytest.raises(InputError) as caught:
        check_limits(scan(tmp_path), {})
    assert f"{MAX_FILES + 1} files" in caught.value.what
    assert ".amlignore" in caught.value.hint
    check_limits(scan(tmp_path), {"AML_SNAPSHOT_NO_FILE_LIMIT": "1"})


def test_too_many_bytes_name_the_largest(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    (tmp_path / "data").mkdir()
    with open(tmp_path / "data" / "big", "wb") as file:
        file.truncate(MAX_BYTES)  # sparse
    with pytest.raises(InputError) as caught:
        check_limits(scan(tmp_path), {"AML_SNAPSHOT_NO_FILE_LIMIT": "1"})
    assert "data/ (300.0 MB)" in caught.value.what


def test_the_executable_bit_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "a.sh", "b.sh")
    (tmp_path / "a.sh").chmod(0o700)
    assert [file.executable for file in scan(tmp_path).files] == [True, False]


def test_a_rendered_build_context_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    (tmp_path / "himl-context" / "layers").mkdir(parents=True)
    (tmp_path / "himl-context" / "himl-context.json").touch()
    (tmp_path / "himl-context" / "layers" / "000-conda-python.tar").touch()
    snapshot = scan(tmp_path)
    assert [file.path for file in snapshot.files] == ["train.py"]
    assert [item.path for item in snapshot.ignored] == ["himl-context/"]

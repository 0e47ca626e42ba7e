"""The run folder, the snapshot as it is taken, and the working copies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from himl_container.errors import InputError, StorageError
from himl_container.launch.run_folder import NodeRecord, RunFolder, earlier_runs, read_record
from himl_container.launch.snapshot import scan
from himl_container.launch.working_copy import lay_out, prune, strays, take


def create(runs: Path) -> RunFolder:
    return RunFolder.create(runs, "train", {"name": "train"}, {"live": False})


def test_a_new_run_has_its_folders_and_a_whole_record(tmp_path: Path) -> None:
    folder = create(tmp_path / "runs")
    assert sorted(path.name for path in folder.path.iterdir()) == [
        ".gitignore",
        "logs",
        "outputs",
        "run.json",
        "user_logs",
        "work",
    ]
    assert json.loads((folder.path / "run.json").read_text())["state"] == "preparing"
    assert read_record(tmp_path / "runs", folder.id) == folder.record


def test_a_record_follows_the_run(tmp_path: Path) -> None:
    folder = create(tmp_path)
    folder.set_nodes([NodeRecord(1, 0, "b", "l1"), NodeRecord(0, 0, "a", "l0")], state="running")
    folder.set_nodes([NodeRecord(0, 0, "a", "l0", exit_code=3)])
    folder.update(state="failed", exit_code=3)
    record = read_record(tmp_path, folder.id)
    assert (record.state, record.exit_code) == ("failed", 3)
    assert [(node.rank, node.exit_code) for node in record.nodes] == [(0, 3), (1, None)]


def test_a_folder_that_cannot_be_written_is_told_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        create(tmp_path / "file" / "runs")
    assert "--runs-dir" in caught.value.hint


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create(tmp_path)
    before = (folder.path / "run.json").read_text()

    def full(*_words: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StorageError):
        folder.update(state="running")
    assert (folder.path / "run.json").read_text() == before


@pytest.mark.parametrize("run_id", ["../x", "a/b", "", ".", "..", "a\n", "/etc", "-x"])
def test_an_id_with_separators_is_none(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(InputError):
        read_record(tmp_path, run_id)


def test_a_name_that_leads_elsewhere_makes_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        RunFolder.create(tmp_path / "runs", "../x", {}, {})
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_damaged_or_missing_record_is_an_input_error(tmp_path: Path) -> None:
    folder = create(tmp_path)
    (folder.path / "run.json").write_text('{"id": 1}')
    with pytest.raises(InputError, match="not the record"):
        read_record(tmp_path, folder.id)
    with pytest.raises(InputError, match="no run"):
        read_record(tmp_path, "nope")


def test_latest_leads_to_the_newest_run(tmp_path: Path) -> None:
    first, second = create(tmp_path), create(tmp_path)
    first.point_latest()
    second.point_latest()
    assert read_record(tmp_path, "latest").id == second.id
    assert set(earlier_runs(tmp_path)) == {first.path, second.path, tmp_path / "latest"}


def test_a_run_that_never_started_gives_latest_back(tmp_path: Path) -> None:
    first = create(tmp_path)
    first.point_latest()
    second = create(tmp_path)
    second.point_latest()
    second.discard()
    assert read_record(tmp_path, "latest").id == first.id
    first.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_file_called_latest_stays(tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("mine")
    create(tmp_path).point_latest()
    assert (tmp_path / "latest").read_text() == "mine"


def test_logs_have_azuremls_names(tmp_path: Path) -> None:
    folder = create(tmp_path)
    logs = [folder.log(0, 1, 0), folder.log(1, 2, 0), folder.log(0, 1, 2)]
    assert [str(log.relative_to(folder.path)) for log in logs] == [
        "user_logs/std_log.txt",
        "user_logs/std_log_process_01.txt",
        "user_logs/retry_002/std_log.txt",
    ]
    assert logs[2].parent.is_dir()


def test_a_taken_snapshot_is_a_copy_with_plain_modes(source: Path, tmp_path: Path) -> None:
    (source / "run.sh").write_text("true")
    (source / "run.sh").chmod(0o700)
    (source / "alias.py").symlink_to("train.py")
    reference = take(scan(source), tmp_path / "snapshot")
    modes = {path.name: oct(path.lstat().st_mode & 0o7777) for path in (tmp_path / "snapshot").iterdir()}
    assert modes == {"train.py": "0o644", "run.sh": "0o755", "alias.py": "0o644"}
    assert not (tmp_path / "snapshot" / "alias.py").is_symlink()
    assert (reference.files, reference.size) == (3, 2 * len("print('hello')\n") + 4)


def test_the_hash_of_a_snapshot_is_that_of_its_content(source: Path, tmp_path: Path) -> None:
    first = take(scan(source), tmp_path / "1")
    os.utime(source / "train.py", (0, 0))
    assert take(scan(source), tmp_path / "2") == first
    (source / "train.py").chmod(0o755)
    second = take(scan(source), tmp_path / "3")
    (source / "train.py").rename(source / "trai.py")
    third = take(scan(source), tmp_path / "4")
    assert len({first.sha256, second.sha256, third.sha256}) == 3


def test_a_file_that_vanishes_while_the_snapshot_is_taken(source: Path, tmp_path: Path) -> None:
    snapshot = scan(source)
    (source / "train.py").unlink()
    with pytest.raises(InputError) as caught:
        take(snapshot, tmp_path / "snapshot")
    assert caught.value.where == str(source / "train.py")


def test_strays_are_what_a_script_made_or_changed(source: Path, tmp_path: Path) -> None:
    (source / "pkg").mkdir()
    (source / "pkg" / "data.csv").write_text("1")
    snapshot = scan(source)
    take(snapshot, tmp_path / "snapshot")
    work = tmp_path / "work"
    stamps = lay_out(tmp_path / "snapshot", snapshot.files, work)
    for path in ("outputs/result", "pkg/__pycache__/x.pyc", "new/model.pt"):
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text("x")
    (work / "pkg" / "data.csv").write_text("22")
    found = strays(work, stamps, ("outputs", "logs"))
    assert found == ("new/model.pt", "pkg/data.csv")
    prune(work, found)
    left = [str(path.relative_to(work)) for path in sorted(work.rglob("*")) if path.is_file()]
    assert left == ["new/model.pt", "pkg/data.csv"]
    assert (tmp_path / "snapshot" / "pkg" / "data.csv").read_text() == "1"
    prune(work, ())
    assert not work.exists()


def test_pruning_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    work = tmp_path / "work"
    work.mkdir()
    (work / "link").symlink_to(tmp_path / "precious")
    prune(work, ())
    assert not work.exists()
    assert (tmp_path / "precious" / "file").read_text() == "x"

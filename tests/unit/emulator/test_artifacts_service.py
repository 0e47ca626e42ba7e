from __future__ import annotations

import string
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.history_rig import Rig, job

from himl_container.emulator.blobs import RUNS_CONTAINER
from himl_container.emulator.http import Refusal
from himl_container.emulator.state.artifacts import Artifact, blob_name, plain_url
from himl_container.emulator.state.paths import checked_path, write_below

BASE = "artifact/v2.0:/artifacts"
BAD = [
    "",
    "../a",
    "a/../../b",
    "/etc/passwd",
    "a\0b",
    "a\nb",
    "C:\\x",
    "C:/x",
    "a\\..\\b",
    "x" * 901,
    "a//b",
    ".",
    "a/" + "b" * 256,
    "\ud800",
]


def create(rig: Rig, *paths: str, container: str = "dcid.r1") -> Any:
    body = {"paths": [{"path": path} for path in paths]}
    return rig.json("POST", f"{BASE}/batch/metadata/ExperimentRun/{container}", body)


def test_a_file_is_announced_uploaded_and_found() -> None:
    rig = Rig()
    rig.run()
    made = create(rig, "outputs/model.pt", "./plot.png")
    assert made["artifacts"]["./plot.png"]["path"] == "plot.png"
    url = made["artifactContentInformation"]["outputs/model.pt"]["contentUri"]
    assert url.startswith("https://account.blob.core.windows.net/azureml/ExperimentRun/dcid.r1/outputs/model.pt?")
    assert "sp=racw" in url
    rig.blobs.put(RUNS_CONTAINER, "ExperimentRun/dcid.r1/outputs/model.pt", b"weights")
    info = rig.json("GET", f"{BASE}/contentinfo/ExperimentRun/dcid.r1/outputs/model.pt")
    assert "sp=r&" in info["contentUri"]
    assert rig.artifacts.read("r1", "outputs/model.pt", 2, 3) == b"igh"
    assert rig.artifacts.size("r1", "outputs/model.pt") == 7
    assert rig.status("GET", f"{BASE}/contentinfo/ExperimentRun/dcid.r1/none") == 404


def test_a_picture_may_be_called_by_the_absolute_path_of_its_file() -> None:
    rig = Rig()
    rig.run()
    made = create(rig, "/home/me/plot.PNG")
    assert made["artifacts"]["/home/me/plot.PNG"]["path"] == "home/me/plot.PNG"
    assert (
        "azureml/ExperimentRun/dcid.r1/home/me/plot.PNG?"
        in made["artifactContentInformation"]["/home/me/plot.PNG"]["contentUri"]
    )
    assert rig.json("GET", f"{BASE}/metadata/ExperimentRun/dcid.r1//home/me/plot.PNG")["path"] == "home/me/plot.PNG"
    for path in ("/home/../../plot.png", "//home/plot.png", "/", "/.png/../x", "/home/\0.png", "/C:/x.png/"):
        body = {"paths": [{"path": path}]}
        assert rig.status("POST", f"{BASE}/batch/metadata/ExperimentRun/dcid.r1", body) == 400, path


def test_a_name_that_is_taken_is_an_error_in_azures_words() -> None:
    rig = Rig()
    rig.run()
    create(rig, "a.txt")
    again = create(rig, "a.txt", "b.txt")
    message = "Resource Conflict: ArtifactId ExperimentRun/dcid.r1/a.txt already exists."
    assert again["errors"] == {"a.txt": {"error": {"code": "UserError", "message": message}}}
    assert set(again["artifacts"]) == {"b.txt"}


@pytest.mark.parametrize("path", BAD)
def test_a_name_that_leads_out_is_refused_and_nothing_is_made(path: str) -> None:
    rig = Rig()
    rig.run()
    body = {"paths": [{"path": "good"}, {"path": path}]}
    assert rig.status("POST", f"{BASE}/batch/metadata/ExperimentRun/dcid.r1", body) == 400
    assert rig.artifacts.list("r1") == []
    for call in (rig.artifacts.append_log, rig.artifacts.upload):
        with pytest.raises(Refusal):
            call("r1", path, b"x")
    assert rig.blobs.content == {}


@pytest.mark.parametrize("address", ["Other/dcid.r1/x", "ExperimentRun/..%2Fx/y", "ExperimentRun/dcid.none/x"])
def test_bad_places(address: str) -> None:
    rig = Rig()
    rig.run()
    assert rig.status("GET", f"{BASE}/contentinfo/{address}") in (400, 404)


def test_folders_and_pages() -> None:
    rig = Rig()
    rig.run()
    for number in range(1001):
        rig.artifacts.record("r1", f"many/{number:04}")
    rig.artifacts.record("r1", "many.txt")
    rig.artifacts.record("r1", "manyother/x")
    rig.artifacts.record("r1", "many-more/x")
    first = rig.json("GET", f"{BASE}/prefix/contentinfo/ExperimentRun/dcid.r1/many//")
    token = quote(first["continuationToken"])
    second = rig.json("GET", f"{BASE}/prefix/contentinfo/ExperimentRun/dcid.r1/many//?continuationToken={token}")
    paths = [one["path"] for one in first["value"] + second["value"]]
    assert paths == [f"many/{number:04}" for number in range(1001)]
    assert second["continuationToken"] is None
    assert [one.path for one in rig.artifacts.list("r1", "many.txt")] == ["many.txt"]
    assert rig.json("GET", f"{BASE}/prefix/contentinfo/ExperimentRun/dcid.r1/system_logs")["value"] == []
    assert len(rig.artifacts.list("r1")) == 1004
    assert len(rig.json("GET", f"{BASE}/ExperimentRun/dcid.r1")["value"]) == 1000


def test_a_job_has_the_files_of_its_own_run() -> None:
    rig = Rig()
    for run_id, parent in (("mine", ""), ("child", "mine"), ("other", "")):
        rig.run(run_id, parent_id=parent)
        rig.artifacts.upload(run_id, "a.txt", b"data")
    for run_id, status in (("mine", 200), ("child", 200), ("other", 403)):
        place = f"ExperimentRun/dcid.{run_id}"
        for method, path in (
            ("GET", f"contentinfo/{place}/a.txt"),
            ("GET", f"prefix/contentinfo/{place}/"),
            ("GET", f"content/{place}/a.txt"),
            ("GET", f"write/{place}/new.txt"),
            ("GET", place),
            ("POST", f"content/{place}/b.txt"),
            ("DELETE", f"metadata/{place}/a.txt"),
        ):
            assert rig.status(method, f"{BASE}/{path}", None, job("mine")) == status, path
    assert rig.status("GET", f"{BASE}/LocalUpload/somewhere", None, job("mine")) == 403
    body = {"containerUri": "https://account.blob.core.windows.net/azureml", "prefix": ""}
    assert rig.status("POST", f"{BASE}/batch/ingest/containersas/ExperimentRun/dcid.mine", body, job("mine")) == 403


def test_small_content_and_deletion() -> None:
    rig = Rig()
    rig.run()
    file = f"{BASE}/content/ExperimentRun/dcid.r1/notes.txt"
    rig.json("POST", file, b"one")
    rig.json("POST", f"{file}?append=true", b"two")
    assert b"".join(rig.ask("GET", file).body) == b"onetwo"
    rig.json("POST", file, b"three")
    assert rig.artifacts.read("r1", "notes.txt") == b"three"
    assert rig.status("POST", file, b"x" * (32 * 2**20 + 1)) == 413
    rig.json("DELETE", f"{BASE}/metadata/ExperimentRun/dcid.r1/notes.txt")
    assert rig.status("GET", file) == 404
    assert rig.blobs.content[RUNS_CONTAINER] == {}


def test_blobs_of_a_container_become_files() -> None:
    rig = Rig()
    rig.run()
    rig.blobs.put("data", "in/a/b.txt", b"1")
    rig.blobs.put("data", "in/c.txt", b"2")
    body = {
        "containerUri": "https://account.blob.core.windows.net/data",
        "containerSas": "?sig=x",
        "prefix": "in",
        "artifactPrefix": "outputs",
    }
    place = f"{BASE}/batch/ingest/containersas/ExperimentRun/dcid.r1"
    assert [one["path"] for one in rig.json("POST", place, body)["value"]] == ["outputs/a/b.txt", "outputs/c.txt"]
    assert rig.artifacts.read("r1", "outputs/c.txt") == b"2"
    for uri in ("https://elsewhere.com/data", "https://account.blob.core.windows.net/", ""):
        assert rig.status("POST", place, {**body, "containerUri": uri}) == 400


def test_a_folder_is_laid_out_and_links_are_not_followed(tmp_path: Path) -> None:
    rig = Rig()
    rig.run()
    for path in ("outputs/a.txt", "outputs/deep/b.txt", "logs/c.txt"):
        rig.artifacts.upload("r1", path, path.encode())
    rig.artifacts.record("r1", "outputs/never-uploaded")
    folder = tmp_path / "out"
    assert rig.artifacts.download_folder("r1", "outputs", folder) == 2
    assert (folder / "outputs/deep/b.txt").read_bytes() == b"outputs/deep/b.txt"
    assert not (folder / "logs").exists()
    assert not (folder / "outputs/never-uploaded").exists()
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, trap in (("t1", "outputs"), ("t2", "outputs/deep")):
        place = tmp_path / name / trap
        place.parent.mkdir(parents=True)
        place.symlink_to(outside)
        with pytest.raises(Refusal):
            rig.artifacts.download_folder("r1", "outputs", tmp_path / name)
    secret = outside / "secret"
    secret.write_text("kept")
    (tmp_path / "t3/outputs").mkdir(parents=True)
    (tmp_path / "t3/outputs/a.txt").symlink_to(secret)
    with pytest.raises(Refusal):
        rig.artifacts.download_folder("r1", "outputs", tmp_path / "t3")
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert secret.read_text() == "kept"


@given(st.text(max_size=30) | st.text(alphabet="./\\a\0", max_size=12))
def test_a_path_that_passes_stays_below(path: str) -> None:
    try:
        checked = checked_path(path)
    except Refusal as refusal:
        assert refusal.status == 400
        return
    parts = Path("/base").joinpath(checked).parts
    assert parts[:2] == ("/", "base")
    assert ".." not in parts
    assert "\0" not in checked
    assert checked_path(checked) == checked


def test_a_file_and_a_folder_of_one_name(tmp_path: Path) -> None:
    write_below(tmp_path, "a", iter([b"1"]))
    with pytest.raises(Refusal):
        write_below(tmp_path, "a/b", iter([b"2"]))
    write_below(tmp_path, "c/d", iter([]))
    with pytest.raises(Refusal):
        write_below(tmp_path, "c", iter([b"3"]))
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "c/d").read_bytes() == b""


LETTERS = string.ascii_letters + " %?#~&+=äé"


@given(st.text(LETTERS, min_size=1, max_size=8), st.text(LETTERS, min_size=1, max_size=8))
def test_two_files_are_two_blobs_and_addresses_can_be_read_by_the_sdk(one: str, two: str) -> None:
    first, second = (blob_name(Artifact("ExperimentRun", "c", path, 0)) for path in (one, two))
    assert (first == second) == (one == two)
    # The SDK takes what is between the host and the question mark for the blob's name.
    signed = f"https://account.blob.core.windows.net/azureml/{quote(first)}?sig=a%2Fb"
    path, _, query = plain_url(signed).partition("?")
    assert path == f"https://account.blob.core.windows.net/azureml/{first}"
    assert query == "sig=a%2Fb"

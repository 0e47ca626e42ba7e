from __future__ import annotations

import json
import os
import re
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unit.emulator.data_rig import PATTERNS, TREE, DataRig, files_of, flow

from himl_container.emulator.blobs import FILES_CONTAINER, RUNS_CONTAINER, Blob
from himl_container.emulator.compute.model import JobInput, JobOutput
from himl_container.emulator.data.glob import matcher
from himl_container.emulator.data.resolve import DatasetFile
from himl_container.emulator.data.transfer import download
from himl_container.emulator.data.transformations import is_tabular, transformations_of
from himl_container.emulator.http import Refusal
from himl_container.errors import InputError, StorageError


@pytest.fixture
def rig() -> DataRig:
    made = DataRig()
    made.put(*TREE)
    return made


def laid_out(rig: DataRig, folder: Path, saved_id: str, mode: str = "download") -> list[str]:
    folder.mkdir(exist_ok=True)
    rig.data.fetch(JobInput("x", mode, dataset_id=saved_id), folder)
    return sorted(files_of(folder))


# --- which files (the same table is shown to the SDK's engine in tests/emulator/test_job_data.py) ---


@pytest.mark.parametrize(("pattern", "found"), PATTERNS)
def test_a_pattern_finds_what_the_engine_finds(rig: DataRig, tmp_path: Path, pattern: str, found: list[str]) -> None:
    assert laid_out(rig, tmp_path / "in", rig.save(pattern)) == sorted(found)


@pytest.mark.parametrize("pattern", ["p/none", "p/none/*", "P/a", "p/[a].txt", "p/{a,b}.txt", "p//a", "./p", "p/../p"])
def test_a_pattern_that_finds_nothing_is_told(rig: DataRig, tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="has no files there"):
        laid_out(rig, tmp_path, rig.save(pattern))


def test_several_sources_keep_their_datastores_or_their_common_folder(rig: DataRig, tmp_path: Path) -> None:
    several = rig.save("p/a/c", "p/a/b.txt", "p/a/c/*.csv")
    where = "workspaceblobstore/p/a/"
    names = ["b.txt", "c/d.csv", "c/e.txt"]
    assert laid_out(rig, tmp_path / "1", several, "download") == [where + name for name in names]
    assert laid_out(rig, tmp_path / "2", several, "mount") == names
    rig.put("r", container=RUNS_CONTAINER)
    sources = [json.loads(flow("p/a/c")), json.loads(flow("r", store="workspaceartifactstore"))]
    paths = [yaml.safe_load(item["meta"]["RsDataflow"])["paths"][0] for item in sources]
    two = rig.datasets.save("file", json.dumps({"meta": {"RsDataflow": yaml.safe_dump({"paths": paths})}}), {}).saved_id
    for mode in ("mount", "download"):
        assert laid_out(rig, tmp_path / mode, two, mode) == [
            "workspaceartifactstore/r",
            where + "c/d.csv",
            where + "c/e.txt",
        ]


def test_files_are_taken_skipped_and_chosen_by_nothing_else(rig: DataRig, tmp_path: Path) -> None:
    def saved(*steps: Any) -> str:
        return rig.datasets.save("file", flow("p/a", steps=steps), {}).saved_id

    harmless = {"extract_columns_from_partition_format": {"path_column": "Path"}}
    assert laid_out(rig, tmp_path / "1", saved({"skip": 1}, {"take": 2}, harmless)) == ["b.txt", "c/d.csv"]
    for step in ({"take": -1}, {"take": "x"}, {"take": True}, {"filter": {}}, {"sample": {}}):
        with pytest.raises(InputError):
            laid_out(rig, tmp_path / "2", saved(step))


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/a.csv?sig=secret",
        "azureml://subscriptions/s/resourcegroups/g/workspaces/other/datastores/workspaceblobstore/paths/p",
        "azureml://datastores/none/paths/p",
        "azureml://datastores/workspacefilestore/paths/p",
        "azureml://datastores/elsewhere/paths/p",
    ],
)
def test_what_a_job_cannot_reach_is_told(rig: DataRig, tmp_path: Path, address: str) -> None:
    rig.stores.create("elsewhere", "AzureBlob", {"accountName": "far", "containerName": "azureml-blobstore"}, {})
    text = yaml.safe_dump({"paths": [{"pattern": address}]})
    with pytest.raises(InputError) as caught:
        laid_out(rig, tmp_path, rig.datasets.save("file", text, {}).saved_id)
    assert "secret" not in str(caught.value)


def test_forms_name_a_file_or_a_folder(rig: DataRig, tmp_path: Path) -> None:
    rig.put("p/a/b.txt/inner", "star*", "starfish")
    assert laid_out(rig, tmp_path / "1", rig.save("p/a/b.txt", form="file")) == ["b.txt"]
    assert laid_out(rig, tmp_path / "2", rig.save("p/a/b.txt", form="folder")) == ["inner"]
    assert laid_out(rig, tmp_path / "3", rig.save("star*", form="file")) == ["star*"]
    with pytest.raises(InputError):
        laid_out(rig, tmp_path / "4", rig.save("p/ab", form="file"))


def test_marks_of_folders_are_no_files(rig: DataRig, tmp_path: Path) -> None:
    for mark in ("m", "m/", "m/sub/"):
        rig.blobs.put(FILES_CONTAINER, mark, b"")
    rig.put("m/sub/x")
    assert laid_out(rig, tmp_path / "1", rig.save("m")) == ["sub/x"]
    assert laid_out(rig, tmp_path / "2", rig.save("m/**")) == ["sub/x"]


def slow_match(pattern: str, name: str) -> bool:
    """The meaning of patterns, said in the plainest way."""
    if not pattern:
        return not name
    for mark, fits in (("**", lambda letter: True), ("*", lambda letter: letter != "/")):
        if pattern.startswith(mark):
            rest = pattern[len(mark) :].lstrip("*") if mark == "**" else pattern[1:]
            end = 0
            while True:
                if slow_match(rest, name[end:]):
                    return True
                if end == len(name) or not fits(name[end]):
                    return False
                end += 1
    return bool(name) and name[0] == pattern[0] and slow_match(pattern[1:], name[1:])


def slow_meaning(pattern: str, name: str) -> bool:
    """As :func:`slow_match`; at the beginning of a part, ``**/`` may also be nothing."""
    variants = {pattern}
    for _ in range(4):
        variants |= {
            item[: at.start()] + item[at.end() :] for item in variants for at in re.finditer(r"(?<![^/])\*\*/", item)
        }
    return any(slow_match(item, name) for item in variants)


@settings(max_examples=400)
@example("/**", "")
@given(st.text("ab/*", max_size=8), st.text("ab/", max_size=8))
def test_patterns_mean_what_they_say(pattern: str, name: str) -> None:
    assert matcher(pattern)(name) is slow_meaning(pattern, name)
    # Long patterns are matched in another way.
    longer, found = pattern + "/*" * 5, name + "/x" * 5
    assert matcher(longer)(found) is slow_meaning(longer, found)


def test_a_pattern_of_many_wildcards_is_quick() -> None:
    fits = matcher("**/a*" * 40 + "b")
    assert not fits("a/" * 500)
    assert fits("x/a" * 40 + "b")


# --- in ---


def test_every_way_to_ask_for_an_input(rig: DataRig) -> None:
    saved = rig.save("p/a")
    named = [rig.datasets.register("d", "file", flow("p"), new_version=True).saved.saved_id for _ in range(2)]
    table = rig.save("p/ab", kind="tabular")
    definition = {
        "data": {
            "id": {"dataLocation": {"dataset": {"id": saved}}, "mechanism": "Mount", "pathOnCompute": "/data"},
            "latest": {"dataLocation": {"dataset": {"name": "d", "version": "latest"}}, "mechanism": "download"},
            "Old": {"DataLocation": {"Dataset": {"Name": "d", "Version": "1"}}, "Mechanism": "Direct"},
            "table": {"data_location": {"dataset": {"id": table}}},
            "uri": {
                "dataLocation": {"uri": {"path": "azureml://datastores/s/paths/x", "isFile": True}},
                "mechanism": "mount",
            },
        },
        "dataReferences": {
            "ref": {"dataStoreName": "S", "pathOnDataStore": "a", "mode": "download", "pathOnCompute": "/x"},
            "up": {"dataStoreName": "s", "mode": "upload"},
        },
    }
    found = rig.data.inputs(definition)
    assert [(item.name, item.mode, item.path, item.dataset_id, item.value) for item in found] == [
        ("id", "mount", "/data", saved, saved),
        ("latest", "download", "", named[1], named[1]),
        ("Old", "direct", "", named[0], named[0]),
        ("table", "direct", "", table, table),
        ("uri", "mount", "", "", "azureml://datastores/s/paths/x"),
        ("ref", "download", "/x", "", ""),
    ]


@pytest.mark.parametrize(
    "item",
    [
        {"dataLocation": {"dataset": {"id": "TABLE"}}, "mechanism": "mount"},
        {"dataLocation": {"dataset": {"id": "FILES"}}, "mechanism": "hdfs"},
        {"dataLocation": {"dataset": {"name": "d", "version": "x"}}},
        {"dataLocation": {"dataset": {"name": 3}}},
        {"dataLocation": {"dataset": {"id": "a\0b"}}},
        {"dataLocation": {}},
        {"dataLocation": 3},
        {"dataLocation": {"dataset": {"id": "none"}}},
        {"dataLocation": {"dataset": {"name": "none"}}},
        3,
    ],
)
def test_an_input_that_cannot_be_is_told_before_the_job_runs(rig: DataRig, item: Any) -> None:
    ids = {"TABLE": rig.save("p", kind="tabular"), "FILES": rig.save("p")}
    text = json.dumps(item)
    for name, saved in ids.items():
        text = text.replace(name, saved)
    with pytest.raises((InputError, Refusal)):
        rig.data.inputs({"data": {"x": json.loads(text)}})


def test_a_single_file_is_told(rig: DataRig, tmp_path: Path) -> None:
    def told(item: JobInput) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return rig.data.fetch(item, folder)

    assert told(JobInput("x", "mount", dataset_id=rig.save("p/a.txt"))) == "a.txt"
    assert told(JobInput("x", "download", dataset_id=rig.save("p/a.txt"))) == ""
    assert told(JobInput("x", "mount", dataset_id=rig.save("p/ab"))) == ""
    assert told(JobInput("x", "mount", dataset_id=rig.save("p/a/c/d*"))) == ""
    assert told(JobInput("x", "mount", dataset_id=rig.save("p/a.txt", "p/a.txt"))) == ""
    (reference,) = rig.data.inputs(
        {"dataReferences": {"r": {"dataStoreName": "WorkspaceBlobStore", "pathOnDataStore": "p/a.txt"}}}
    )
    assert told(reference) == "a.txt"
    uri = {"dataLocation": {"uri": {"path": "azureml://datastores/workspaceblobstore/paths/p/a"}}, "mechanism": "mount"}
    (folder,) = rig.data.inputs({"data": {"u": uri}})
    assert told(folder) == ""
    assert files_of(tmp_path / "6")["b.txt"] == "p/a/b.txt"


@pytest.mark.parametrize(
    "name",
    ["h/../x", "h/../../x", "h//x", "h/./x", "h/a\\b", "h/a\0b", "h/a\nb", "h//etc/passwd", "h/" + "n" * 256, "h/C:/x"],
)
def test_no_name_of_a_blob_leads_out_of_the_folder(rig: DataRig, tmp_path: Path, name: str) -> None:
    rig.put("h/fine", name)
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with pytest.raises(InputError):
        rig.data.fetch(JobInput("x", "mount", dataset_id=rig.save("h")), folder)
    # Not even the file whose name is fine: all names are looked at first.
    assert files_of(tmp_path) == {}


def test_a_file_and_a_folder_of_one_name_are_refused(rig: DataRig, tmp_path: Path) -> None:
    rig.put("h/a", "h/a/b")
    with pytest.raises(InputError, match="once as a file and once as a folder"):
        laid_out(rig, tmp_path, rig.save("h"))


@given(names=st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_whatever_blobs_are_called_nothing_is_written_outside(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rig = DataRig()
    rig.put(*(f"h/{name}" for name in names if all(not 0xD800 <= ord(letter) < 0xE000 for letter in name)), "h/x")
    outside = tmp_path_factory.mktemp("out")
    folder = outside / "folder"
    folder.mkdir()
    try:
        rig.data.fetch(JobInput("x", "mount", dataset_id=rig.save("h")), folder)
    except InputError:
        assert list(folder.iterdir()) == []
    assert [path.name for path in outside.iterdir()] == ["folder"]


def test_a_link_in_the_folder_is_not_followed(rig: DataRig, tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "c").symlink_to(outside)
    with pytest.raises(InputError):
        rig.data.fetch(JobInput("x", "mount", dataset_id=rig.save("p/a/c/d.csv", "p/a/b.txt")), folder)
    assert list(outside.iterdir()) == []


class Changed:
    """Blobs whose bytes are others than the storage said."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data

    def stream(self, container: str, name: str) -> Iterator[bytes]:
        if self.data is None:
            raise FileNotFoundError(name)
        return iter([self.data])


@pytest.mark.parametrize(
    ("data", "digest", "why"),
    [
        (b"abc", b"", "has 4 bytes, and 3 came"),
        (b"abcde", b"", "has 4 bytes, and 5 came"),
        (b"abcd", b"0" * 16, "digest differs"),
        (None, b"", "has gone"),
    ],
)
def test_what_arrives_is_checked(data: bytes | None, digest: bytes, why: str, tmp_path: Path) -> None:
    file = DatasetFile("c", Blob("x", 4, 0.0, digest), "x")
    with pytest.raises(StorageError, match=why):
        download(Changed(data), [file], tmp_path)  # type: ignore[arg-type]


class Large:
    """A large file that is made while it is read."""

    def __init__(self, size: int) -> None:
        self.size = size

    def stream(self, container: str, name: str) -> Iterator[bytes]:
        return (bytes(1 << 20) for _ in range(self.size >> 20))


def test_large_files_are_not_held_in_memory(tmp_path: Path) -> None:
    files = [DatasetFile("c", Blob(str(n), 32 << 20, 0.0), str(n)) for n in range(6)]
    tracemalloc.start()
    try:
        assert download(Large(32 << 20), files, tmp_path) == 6  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 192 << 20


def test_a_disk_that_is_full_is_told(rig: DataRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, path: str, data: Iterable[bytes]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("himl_container.emulator.data.transfer.write_below", full)
    with pytest.raises(StorageError, match="No space left"):
        laid_out(rig, tmp_path, rig.save("p/a"))


# --- out ---


def output(rig: DataRig, mode: str = "mount", name: str = "out", **values: Any) -> JobOutput:
    (found,) = rig.data.outputs("r1", {"outputData": {name: {"mechanism": mode, **values}}})
    return found


def place(store: str = "workspaceblobstore", path: str = "done") -> dict[str, Any]:
    return {"dataPath": {"datastoreName": store, "relativePath": path}}


@pytest.fixture
def written(rig: DataRig, tmp_path: Path) -> Path:
    rig.run("r1")
    folder = tmp_path / "out"
    for name in ("a.csv", "sub/b.csv", "sub/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def blobs(rig: DataRig, prefix: str) -> list[str]:
    return [blob.name.removeprefix(prefix) for blob in rig.blobs.list(FILES_CONTAINER, prefix)]


def test_an_output_is_stored_registered_and_noted(rig: DataRig, written: Path, tmp_path: Path) -> None:
    registration = {"registrationOptions": {"name": "result", "description": "d", "tags": {"t": "1"}}}
    item = output(rig, outputLocation=place(path="/by/{run-id}/{output-name}/"), additionalOptions=registration)
    assert (item.mode, item.path) == ("mount", "")
    rig.data.store("r1", item, written)
    assert blobs(rig, "by/r1/out/") == ["a.csv", "sub/b.csv", "sub/c.txt"]
    made = rig.datasets.get("result")
    assert (made.version, made.description, made.tags, made.saved.kind) == (1, "d", {"t": "1"}, "file")
    assert laid_out(rig, tmp_path / "back", made.saved.saved_id) == ["a.csv", "sub/b.csv", "sub/c.txt"]
    (lineage,) = rig.runs.get("r1").output_datasets
    assert lineage == {
        "identifier": {"savedId": made.saved.saved_id, "registeredId": made.dataset_id, "registeredVersion": "1"},
        "outputType": "RunOutput",
        "outputDetails": {"outputName": "out", "mechanism": "Mount"},
    }
    # As after a kill at this moment: nothing is in the way, and the run has one line for the output.
    rig.data.store("r1", item, written)
    assert len(rig.runs.get("r1").output_datasets) == 1


def test_an_output_without_a_destination_goes_to_the_sdks_own(rig: DataRig, written: Path) -> None:
    rig.data.store("r1", output(rig, additionalOptions={"pathOnCompute": "/x"}), written)
    assert blobs(rig, "dataset/r1/out/") == ["a.csv", "sub/b.csv", "sub/c.txt"]
    (lineage,) = rig.runs.get("r1").output_datasets
    assert rig.datasets.find_saved(lineage["identifier"]["savedId"]).kind == "file"
    assert output(rig, additionalOptions={"pathOnCompute": "/x"}).path == "/x"


@pytest.mark.parametrize(
    ("globs", "found"),
    [
        ({"patterns": ["*.csv"]}, ["a.csv", "sub/b.csv"]),
        ({"globPatterns": ["**/*.csv"]}, ["a.csv", "sub/b.csv"]),
        ({"patterns": ["sub/*", "none"]}, ["sub/b.csv", "sub/c.txt"]),
        (None, ["a.csv", "sub/b.csv", "sub/c.txt"]),
    ],
)
def test_an_upload_has_the_files_that_its_patterns_fit(
    rig: DataRig, written: Path, globs: Any, found: list[str]
) -> None:
    options = {"uploadOptions": {"overwrite": True, "sourceGlobs": globs}}
    rig.data.store("r1", output(rig, "upload", outputLocation=place(), additionalOptions=options), written)
    assert blobs(rig, "done/") == found


def test_an_upload_replaces_nothing_unless_told_to(rig: DataRig, written: Path) -> None:
    rig.blobs.put(FILES_CONTAINER, "done/sub/b.csv", b"other")
    item = output(rig, "upload", outputLocation=place())
    with pytest.raises(InputError, match="has this file already"):
        rig.data.store("r1", item, written)
    assert blobs(rig, "done/") == ["sub/b.csv"]
    rig.blobs.put(FILES_CONTAINER, "done/sub/b.csv", b"sub/b.csv")  # the same bytes
    rig.data.store("r1", item, written)
    rig.blobs.put(FILES_CONTAINER, "done/a.csv", b"A.csv")  # as long, and different
    with pytest.raises(InputError):
        rig.data.store("r1", item, written)
    over = output(rig, "upload", outputLocation=place(), additionalOptions={"uploadOptions": {"overwrite": True}})
    rig.data.store("r1", over, written)
    assert rig.blobs.read(FILES_CONTAINER, "done/a.csv") == b"a.csv"


def test_a_data_reference_may_go_out(rig: DataRig, written: Path) -> None:
    reference = {"dataStoreName": "workspaceblobstore", "pathOnDataStore": "up", "mode": "upload", "overwrite": True}
    (item,) = rig.data.outputs("r1", {"dataReferences": {"ref": reference}})
    rig.data.store("r1", item, written)
    assert blobs(rig, "up/") == ["a.csv", "sub/b.csv", "sub/c.txt"]
    assert rig.runs.get("r1").output_datasets == ()


@pytest.mark.parametrize(
    "values",
    [
        {"mechanism": "link"},
        {"mechanism": 3},
        {"outputLocation": place("none")},
        {"outputLocation": place("workspacefilestore")},
        {"outputLocation": place(path="../x")},
        {"outputLocation": place(path="a\0b")},
        {"outputLocation": place(path="x" * 901)},
        {"outputLocation": {"uri": {"path": "azureml://datastores/x/paths/y"}}},
        {"additionalOptions": {"uploadOptions": {"sourceGlobs": {"patterns": "x"}}}},
        {"additionalOptions": {"registrationOptions": {"name": 3}}},
        {
            "additionalOptions": {
                "registrationOptions": {"datasetRegistrationOptions": {"additionalTransformation": "{}"}}
            }
        },
    ],
)
def test_an_output_that_cannot_be_is_told_before_the_job_runs(rig: DataRig, values: dict[str, Any]) -> None:
    with pytest.raises((InputError, Refusal)):
        rig.data.outputs("r1", {"outputData": {"out": {"mechanism": "mount", **values}}})


def test_only_regular_files_go_up(rig: DataRig, written: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    link = written / "sub" / "link"
    link.symlink_to(secret)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        rig.data.store("r1", output(rig, outputLocation=place()), written)
    link.unlink()
    os.mkfifo(written / "pipe")
    with pytest.raises(InputError, match="pipe"):
        rig.data.store("r1", output(rig, outputLocation=place()), written)
    (written / "pipe").unlink()
    (written / "a\nb").write_text("")
    with pytest.raises(InputError, match="control character"):
        rig.data.store("r1", output(rig, outputLocation=place()), written)
    assert blobs(rig, "done/") == []
    (written / "a\nb").unlink()
    deep = written / "/".join(["n" * 200] * 4)
    deep.mkdir(parents=True)
    (deep / "x").write_text("")
    with pytest.raises(InputError, match="at most 1024"):
        rig.data.store("r1", output(rig, outputLocation=place(path="p" * 250)), written)


# --- transformations ---


def block(kind: str, **arguments: Any) -> dict[str, Any]:
    return {"type": f"Microsoft.DPrep.{kind}", "arguments": arguments}


def test_transformations_of_an_output_are_those_of_the_engine(rig: DataRig, written: Path) -> None:
    delimited = block(
        "ParseDelimitedBlock", separator=";", columnHeadersMode=3, fileEncoding=0, handleQuotedLineBreaks=False
    )
    text = json.dumps(
        {"blocks": [delimited, block("DropColumnsBlock", columns={"details": {"selectedColumns": ["Path"]}})]}
    )
    options = {"registrationOptions": {"name": "t", "datasetRegistrationOptions": {"additionalTransformation": text}}}
    rig.data.store("r1", output(rig, outputLocation=place(), additionalOptions=options), written)
    made = rig.datasets.get("t").saved
    assert made.kind == "tabular"
    steps = yaml.safe_load(json.loads(made.dataflow)["meta"]["RsDataflow"])["transformations"]
    assert [next(iter(step)) for step in steps] == ["read_delimited", "drop_columns"]
    assert steps[0]["read_delimited"]["delimiter"] == ";"


def test_a_partition_alone_makes_no_table() -> None:
    steps = transformations_of(
        json.dumps({"blocks": [block("AddColumnsFromPartitionFormatBlock", partitionFormat="/{a}/x")]})
    )
    assert not is_tabular(steps)
    assert is_tabular(transformations_of(json.dumps({"blocks": [block("ReadParquetFileBlock")]})))


def test_a_condition_is_handed_on_as_the_engine_writes_it() -> None:
    (step,) = transformations_of(json.dumps({"blocks": [block("ExpressionFilterBlock", expression=["a", 1])]}))
    assert step["filter"]["language"] == "Native"
    source = json.loads(step["filter"]["function_source"])
    assert source["r"][1][2]["r"] == ["Function", [["row"], {"r": []}, ["a", 1]]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"blocks": [3]}',
        json.dumps({"blocks": [block("FormatDiskBlock")]}),
        json.dumps({"blocks": [block("ParseDelimitedBlock")]}),
        json.dumps({"blocks": [block("ParseDelimitedBlock", separator=",", columnHeadersMode=9, fileEncoding=0)]}),
        json.dumps({"blocks": [block("DropColumnsBlock", columns=3)]}),
        "[" * 5000,
    ],
)
def test_transformations_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        transformations_of(text)

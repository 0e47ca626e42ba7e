from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.data_rig import DataRig, flow
from unit.emulator.history_rig import job

from himl_container.emulator.data.dataflow import parse_dataflow, rslex_yaml
from himl_container.emulator.http import Refusal
from himl_container.errors import InputError

BASE = "dataset/v1.0:/"
NEW = "?ifExistsOk=true&updateDefinitionIfExists=true"


def body(name: str = "d", path: str = "a", **values: Any) -> dict[str, Any]:
    latest = {"dataflow": flow(path), "properties": {"p": 1}, **values.pop("latest", {})}
    return {"name": name, "datasetType": "file", "latest": latest, **values}


def register(rig: DataRig, *given: Any, query: str = "", **values: Any) -> dict[str, Any]:
    made: dict[str, Any] = rig.json("POST", f"{BASE}datasets{query}", body(*given, **values))
    return made


def refused(rig: DataRig, *request: Any, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        rig.ask(*request, **options)
    return caught.value


def test_versions_of_a_name() -> None:
    rig = DataRig()
    first = register(rig, "d", "a", tags={"t": "1"}, description="x")
    assert (first["latest"]["versionId"], first["tags"], first["description"]) == ("1", {"t": "1"}, "x")
    assert refused(rig, "POST", f"{BASE}datasets", body()).status == 409
    second = register(rig, "d", "a", query=NEW)
    assert (second["latest"]["versionId"], second["datasetId"]) == ("2", first["datasetId"])
    assert second["latest"]["savedDatasetId"] != first["latest"]["savedDatasetId"]
    newest = rig.json("GET", f"{BASE}datasets/query/name=d")
    assert (newest["latest"]["versionId"], newest["tags"]) == ("2", {})
    old = rig.json("GET", f"{BASE}datasets/query/name=d?versionId=1")
    assert (old["latest"]["versionId"], old["tags"]) == ("1", {"t": "1"})
    assert rig.status("GET", f"{BASE}datasets/query/name=d?versionId=3") == 404
    assert rig.status("GET", f"{BASE}datasets/query/name=d?versionId=x") == 400
    assert rig.status("GET", f"{BASE}datasets/query/name=none") == 404
    definitions = rig.json("GET", f"{BASE}datasets/{first['datasetId']}/definitions")["value"]
    assert [item["versionId"] for item in definitions] == ["2", "1"]


def test_a_saved_definition_is_registered_once() -> None:
    rig = DataRig()
    saved = rig.json("POST", f"{BASE}saveddatasets", {"datasetType": "file", "dataflowJson": flow("a")})
    again = rig.json("POST", f"{BASE}saveddatasets", {"datasetType": "file", "dataflowJson": flow("a")})
    assert saved["id"] == again["id"]
    assert rig.json("GET", f"{BASE}datasets/query/savedDatasetId={saved['id']}")["value"] == []
    register(rig, "d", latest={"savedDatasetId": saved["id"]})
    other = rig.json("POST", f"{BASE}saveddatasets", {"datasetType": "file", "dataflowJson": flow("a")})
    assert other["id"] != saved["id"]
    (found,) = rig.json("GET", f"{BASE}datasets/query/savedDatasetId={saved['id']}")["value"]
    assert (found["name"], found["latest"]["savedDatasetId"]) == ("d", saved["id"])
    with pytest.raises(Refusal, match=r"has been registered as d:1 \(name:version\)\."):
        register(rig, "other", latest={"savedDatasetId": saved["id"]})
    assert refused(rig, "POST", f"{BASE}datasets", body("x", latest={"savedDatasetId": "none"})).status == 404
    assert rig.json("GET", f"{BASE}saveddatasets/{saved['id']}")["dataflowJson"] == flow("a")
    assert rig.status("GET", f"{BASE}saveddatasets/none") == 404


def test_description_and_tags_belong_to_a_version() -> None:
    rig = DataRig()
    first = register(rig, tags={"a": "1"})
    register(rig, query=NEW)
    path = f"{BASE}datasets/{first['datasetId']}"
    rig.ask("PUT", path, body(tags={"b": "2"}, description="new", latest={"versionId": "1"}))
    assert rig.json("GET", f"{BASE}datasets/query/name=d?versionId=1")["tags"] == {"b": "2"}
    assert rig.json("GET", f"{BASE}datasets/query/name=d")["tags"] == {}
    rig.ask("PUT", path, {"description": "newest"})
    assert rig.json("GET", path)["description"] == "newest"
    assert rig.status("PUT", f"{BASE}datasets/none", body()) == 404
    assert rig.status("PUT", path, body(latest={"versionId": "9"})) == 404


def test_a_name_that_is_unregistered_leaves_what_runs_used() -> None:
    rig = DataRig()
    saved = register(rig)["latest"]["savedDatasetId"]
    assert rig.status("DELETE", f"{BASE}datasets/d") == 200
    assert rig.status("DELETE", f"{BASE}datasets/d") == 404
    assert rig.status("GET", f"{BASE}datasets/query/name=d") == 404
    assert rig.json("GET", f"{BASE}saveddatasets/{saved}")["id"] == saved
    assert register(rig)["latest"]["versionId"] == "1"


def test_lists_have_the_newest_and_no_archived_ones() -> None:
    rig = DataRig()
    ids = {name: register(rig, name)["datasetId"] for name in ("a", "b", "c", "other")}
    register(rig, "b", query=NEW)
    rig.ask("PUT", f"{BASE}datasets/{ids['c']}/state", {"state": "archived"})
    names: list[tuple[str, str]] = []
    token: str | None = ""
    while token is not None:
        page = rig.json("GET", f"{BASE}datasets?pageSize=2&continuationToken={token}")
        names += [(item["name"], item["latest"]["versionId"]) for item in page["value"]]
        token = page["continuationToken"]
    assert names == [("a", "1"), ("b", "2"), ("other", "1")]

    def listed(query: str) -> list[str]:
        return [item["name"] for item in rig.json("GET", f"{BASE}datasets?{query}")["value"]]

    assert listed("includeInvisible=true") == ["a", "b", "c", "other"]
    assert listed("searchText=THE") == ["other"]
    assert listed("datasetNames=a,other") == ["a", "other"]
    rig.ask("PUT", f"{BASE}datasets/{ids['c']}/state", {"state": "Active"})
    assert "c" in listed("")
    assert rig.status("PUT", f"{BASE}datasets/{ids['c']}/state", {"state": "lost"}) == 400
    assert rig.status("PUT", f"{BASE}datasets/none/state", {"state": "Active"}) == 404


def test_the_engines_own_form_of_a_definition() -> None:
    rig = DataRig()
    saved = register(rig)["latest"]["savedDatasetId"]
    found = rig.json("GET", f"data/v1.0:/dataversion/unregistered-{saved}/versions/1")
    assert found["legacyDataflow"] == json.loads(flow("a"))["meta"]["RsDataflow"]
    assert (found["legacySavedDatasetId"], found["dataVersion"]["isRegistered"]) == (saved, True)
    assert rig.json("GET", "data/v1.0:/dataversion/d/versions/1")["legacySavedDatasetId"] == saved
    for missing in ("d/versions/2", "none/versions/1", "none/versions/None", "unregistered-x/versions/1"):
        assert rig.status("GET", f"data/v1.0:/dataversion/{missing}") == 404


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a/b"},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 256},
        {"name": 3},
        {"datasetType": "movie"},
        {"datasetType": ["file"]},
        {"latest": None},
        {"latest": {"dataflow": ""}},
        {"latest": {"dataflow": "{"}},
        {"latest": {"dataflow": "- a\n- b"}},
        {"latest": {"dataflow": flow("a"), "properties": []}},
        {"tags": "x"},
        {"description": 5},
    ],
)
def test_what_no_dataset_can_be_is_refused(change: dict[str, Any]) -> None:
    rig = DataRig()
    assert refused(rig, "POST", f"{BASE}datasets", {**body(), **change}).status == 400
    assert rig.json("GET", f"{BASE}datasets")["value"] == []


def test_a_job_registers_and_does_not_unregister() -> None:
    rig = DataRig()
    rig.run("r1")
    made = rig.json("POST", f"{BASE}datasets", body(), identity=job("r1"))
    for method, path, content in (
        ("DELETE", "datasets/d", None),
        ("PUT", f"datasets/{made['datasetId']}/state", {"state": "Archived"}),
    ):
        assert refused(rig, method, BASE + path, content, identity=job("r1")).status == 403


# --- definitions ---


def test_a_definition_of_an_old_sdk_is_understood() -> None:
    place = {"subscription": "S", "resourceGroup": "G", "workspaceName": "W"}
    stores = [{"datastoreName": "Store", "path": "a/**", **place}, {"datastoreName": "b", "path": ""}]
    block = {"type": "Microsoft.DPrep.GetDatastoreFilesBlock", "arguments": {"datastores": stores}}
    found = parse_dataflow(json.dumps({"blocks": [block], "meta": {}}))
    assert [(item.store, item.path, item.workspace) for item in found.sources] == [
        ("store", "a/**", ("s", "g", "w")),
        ("b", "", ()),
    ]
    assert rslex_yaml(json.dumps({"blocks": [block]})).startswith("type: mltable")
    other = {**block, "type": "Microsoft.DPrep.ReadParquetFileBlock"}
    with pytest.raises(InputError, match="ReadParquetFileBlock"):
        parse_dataflow(json.dumps({"blocks": [block, other]}))


def test_paths_are_decoded_and_end_at_a_question_mark() -> None:
    text = """
paths:
  - pattern: azureml://subscriptions/S/resourcegroups/G/workspaces/W/datastores/Store/paths/we%20ird/%C3%BC%2520?.txt
  - file: azureml://datastores/Store/paths//x.csv
  - folder: https://example.com/a?sig=secret
transformations:
  - take: 3
  - drop
"""
    found = parse_dataflow(text)
    assert [(item.path, item.form) for item in found.sources] == [("we ird/ü%20", "pattern"), ("x.csv", "file")]
    assert found.elsewhere == ("https://example.com/a?sig=secret",)
    assert [(step.name, step.arguments) for step in found.steps] == [("take", 3), ("drop", None)]


@pytest.mark.parametrize(
    "text",
    [
        "paths: 3",
        "paths: [3]",
        "paths: [{x: y}]",
        "paths: [{file: 3}]",
        "paths: [{file: {handler: Local, resourceidentifier: /etc/passwd}}]",
        "transformations: {a: b}",
        "transformations: [{a: 1, b: 2}]",
        "a: &a [*a]\npaths: *a",
        "!!python/object/apply:os.system [id]",
        '{"blocks": []}',
        '{"meta": {"RsDataflow": "[]"}}',
        "[" * 5000,
        '{"a":' * 5000,
    ],
)
def test_a_definition_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_dataflow(text)


@given(st.text(max_size=200) | st.from_regex(r"paths:\n( +- (file|pattern): .{0,40}\n){0,3}", fullmatch=True))
def test_any_text_is_a_definition_or_refused(text: str) -> None:
    try:
        parse_dataflow(text)
    except InputError:
        return

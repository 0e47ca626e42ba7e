from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.data_rig import DataRig
from unit.emulator.history_rig import USER, job

from himl_container.emulator.http import Refusal
from himl_container.emulator.identity import Identity

BASE = "modelmanagement/v1.0:/"
FILES = "artifact/v2.0:/artifacts/"
PATCH = [{"op": "replace", "path": "/kvTags", "value": {"a": "b"}}]


def asset(rig: DataRig, *prefixes: str, identity: Identity = USER) -> str:
    artifacts = [{"prefix": prefix} for prefix in prefixes or ("LocalUpload/c1/model",)]
    made = rig.json("POST", f"{BASE}assets", {"name": "m", "artifacts": artifacts}, identity)
    assert [item["prefix"] for item in made["artifacts"]] == [item["prefix"] for item in artifacts]
    return str(made["id"])


def register(rig: DataRig, name: str = "m", identity: Identity = USER, **values: Any) -> dict[str, Any]:
    url = values.pop("url", None) or f"aml://asset/{asset(rig)}"
    made: dict[str, Any] = rig.json("POST", f"{BASE}models", {"name": name, "url": url, **values}, identity)
    return made


def status(rig: DataRig, *request: Any, identity: Identity = USER) -> int:
    try:
        return rig.ask(*request, identity=identity).status
    except Refusal as refusal:
        return refusal.status


def listed(rig: DataRig, query: str = "") -> list[str]:
    return [item["id"] for item in rig.json("GET", f"{BASE}models?{query}")["value"]]


def test_versions_are_counted_and_a_number_is_never_given_twice() -> None:
    rig = DataRig()
    assert [register(rig)["id"] for _ in range(3)] == ["m:1", "m:2", "m:3"]
    assert rig.status("DELETE", f"{BASE}models/m:3") == 200
    assert rig.status("DELETE", f"{BASE}models/m:3") == 204
    assert register(rig)["version"] == 4
    assert listed(rig, "name=m") == ["m:4", "m:2", "m:1"]
    missing = rig.json("GET", f"{BASE}models/m:3")
    # The SDK reads the status out of the answer's body.
    assert (missing["statusCode"], missing["code"]) == (404, "NotFound")
    for name in ("m", "m:", "m:x", "m:99999999999999999999", ":1"):
        assert rig.status("GET", f"{BASE}models/{name}") == 404


def test_models_are_found_by_what_they_are() -> None:
    rig = DataRig()
    register(rig, "a", kvTags={"stage": "test"}, properties={"p": "1"}, framework="Custom", description="A net")
    register(rig, "a", kvTags={"stage": "live", "x": "y"}, runId="r9", datasets=[{"name": "train", "id": "ds1"}])
    register(rig, "b", properties={"p": "2", "q": ""})
    for query, found in {
        "": ["b:1", "a:2", "a:1"],
        "latestVersionOnly=true": ["b:1", "a:2"],
        "orderBy=CreatedAtAsc": ["a:1", "a:2", "b:1"],
        "tags=stage": ["a:2", "a:1"],
        "tags=stage=live": ["a:2"],
        "tags=stage=live,x=y": ["a:2"],
        "tags=stage=live,none": [],
        "tag=x": ["a:2"],
        "properties=p=1": ["a:1"],
        "properties=q=": ["b:1"],
        "runId=r9": ["a:2"],
        "datasetId=ds1": ["a:2"],
        "framework=Custom": ["a:1"],
        "description=net": ["a:1"],
        "name=a": ["a:2", "a:1"],
    }.items():
        assert listed(rig, query) == found, query


def test_lists_come_in_pages() -> None:
    rig = DataRig()
    for _ in range(5):
        register(rig)
    first = rig.json("GET", f"{BASE}models?count=2")
    assert [item["version"] for item in first["value"]] == [5, 4]
    assert first["nextLink"].startswith("https://eastus.api.azureml.ms/modelmanagement/")
    assert first["nextLink"].endswith("?$skipToken=2")
    assert listed(rig, "count=2&$skipToken=4") == ["m:1"]
    assert "nextLink" in rig.json("GET", f"{BASE}models") and not rig.json("GET", f"{BASE}models")["nextLink"]
    assert rig.status("GET", f"{BASE}models?$skipToken=x") == 400


def test_tags_are_replaced_and_properties_only_added() -> None:
    rig = DataRig()
    register(rig, kvTags={"old": "1"}, properties={"p": "1"})

    def patch(path: str, value: object, op: str = "replace") -> Any:
        return rig.json("PATCH", f"{BASE}models/m:1", [{"op": op, "path": path, "value": value}])

    assert patch("/kvTags", {"a": "b"})["kvTags"] == {"a": "b"}
    assert patch("/properties", {"p": "1", "q": "2"}, "add")["properties"] == {"p": "1", "q": "2"}
    assert patch("/properties", {"p": "other"}, "add")["statusCode"] == 400
    assert patch("/description", "new")["description"] == "new"
    assert patch("/datasets", [{"name": "s", "id": "d"}], "add")["datasets"] == [{"name": "s", "id": "d"}]
    assert patch("/sampleInputData", "aml://dataset/x")["sampleInputData"] == "aml://dataset/x"
    requirements = {"cpu": 1, "memoryInGB": 2, "gpu": None}
    assert patch("/resourceRequirements", requirements)["resourceRequirements"] == requirements
    for path, value, op in (
        ("/name", "x", "replace"),
        ("/version", 9, "replace"),
        ("/kvTags", [], "replace"),
        ("/kvTags", {}, "remove"),
        ("/unpack", {}, "replace"),
        ("/resourceRequirements", 3, "replace"),
        (3, "x", "replace"),
    ):
        assert patch(path, value, op)["statusCode"] == 400, path  # type: ignore[arg-type]
    assert rig.status("PATCH", f"{BASE}models/m:1", {"op": "add"}) == 400
    assert rig.status("PATCH", f"{BASE}models/none:1", PATCH) == 404


@pytest.mark.parametrize(
    "change",
    [
        {"name": "-m"},
        {"name": "a/b"},
        {"name": "a:1"},
        {"name": "x" * 256},
        {"name": None},
        {"url": ""},
        {"kvTags": []},
        {"datasets": "x"},
        {"datasets": ["x"]},
    ],
)
def test_what_no_model_can_be_is_refused(change: dict[str, Any]) -> None:
    rig = DataRig()
    body = {"name": "m", "url": f"aml://asset/{asset(rig)}", **change}
    assert rig.status("POST", f"{BASE}models", body) == 400
    assert listed(rig) == []
    assert rig.status("POST", f"{BASE}models", {"name": "m", "url": "aml://asset/none"}) == 404


def test_assets() -> None:
    rig = DataRig()
    first = asset(rig, "LocalUpload/c1/model", "ExperimentRun/dcid.r1/outputs")
    path = f"{BASE}assets/{first}"
    assert rig.json("PATCH", path, PATCH)["kvTags"] == {"a": "b"}
    assert rig.json("GET", f"{BASE}assets?name=m&tags=a=b")["value"][0]["id"] == first
    assert rig.json("GET", f"{BASE}assets?name=other")["value"] == []
    assert rig.json("PATCH", path, [{"op": "add", "path": "/artifacts", "value": []}])["statusCode"] == 400
    made = register(rig, url=f"aml://asset/{first}")
    assert rig.json("DELETE", path)["message"] == "The asset is used by m:1."
    rig.ask("DELETE", f"{BASE}models/{made['id']}")
    assert (rig.status("DELETE", path), rig.status("DELETE", path), rig.status("GET", path)) == (200, 204, 404)
    for bad in ("x", "a/b", "a/b/../c", "", "/a/b/c"):
        body = {"name": "m", "artifacts": [{"prefix": bad}]}
        assert rig.status("POST", f"{BASE}assets", body) == 400, bad


# --- jobs ---


def two_runs() -> DataRig:
    rig = DataRig()
    rig.run("mine")
    rig.run("other")
    for run in ("mine", "other"):
        for path in ("outputs/model/w", "outputs/model2", "outputs/secret"):
            rig.artifacts.upload(run, path, b"1")
    return rig


def test_a_job_registers_models_of_its_own_run_alone() -> None:
    rig = two_runs()
    identity = job("mine")
    own = asset(rig, "ExperimentRun/dcid.mine/outputs/model", identity=identity)
    body = {"name": "m", "url": f"aml://asset/{own}", "runId": "mine"}
    assert status(rig, "POST", f"{BASE}models", body, identity=identity) == 200
    assert status(rig, "PATCH", f"{BASE}models/m:1", PATCH, identity=identity) == 200
    assert status(rig, "PATCH", f"{BASE}models/m:1", PATCH, identity=job("other")) == 403
    assert status(rig, "DELETE", f"{BASE}models/m:1", identity=identity) == 403
    assert status(rig, "DELETE", f"{BASE}assets/{own}", identity=identity) == 403
    assert status(rig, "POST", f"{BASE}models", {**body, "runId": "other"}, identity=identity) == 403
    stolen = {"name": "m", "artifacts": [{"prefix": "ExperimentRun/dcid.other/outputs/secret"}]}
    assert status(rig, "POST", f"{BASE}assets", stolen, identity=identity) == 403
    theirs = register(rig, "theirs")["id"]
    assert status(rig, "PATCH", f"{BASE}models/{theirs}", PATCH, identity=identity) == 403
    assert status(rig, "GET", f"{BASE}models/{theirs}", identity=identity) == 200


def test_a_job_reads_the_files_of_models_and_no_others() -> None:
    rig = two_runs()
    asset(rig, "ExperimentRun/dcid.other/outputs/model")
    identity, place = job("mine"), "ExperimentRun/dcid.other/outputs"
    assert status(rig, "GET", f"{FILES}prefix/contentinfo/{place}/model", identity=identity) == 200
    assert status(rig, "GET", f"{FILES}contentinfo/{place}/model/w", identity=identity) == 200
    for path in ("model2", "secret", "", "model/../secret"):
        assert status(rig, "GET", f"{FILES}prefix/contentinfo/{place}/{path}", identity=identity) == 403, path
    assert status(rig, "GET", f"{FILES}ExperimentRun/dcid.other", identity=identity) == 403
    assert status(rig, "DELETE", f"{FILES}metadata/{place}/model/w", identity=identity) == 403
    assert status(rig, "POST", f"{FILES}content/{place}/model/w", b"x", identity=identity) == 403


def test_a_job_uploads_files_without_a_run_to_a_place_of_its_own() -> None:
    rig = two_runs()
    body = {"paths": [{"path": "model/w"}]}
    assert status(rig, "POST", f"{FILES}batch/metadata/LocalUpload/c1", body, identity=job("mine")) == 200
    assert status(rig, "GET", f"{FILES}prefix/contentinfo/LocalUpload/c1/model", identity=job("mine")) == 200
    own = asset(rig, "LocalUpload/c1/model", identity=job("mine"))
    assert rig.models.asset(own).owner == "mine"
    more = {"paths": [{"path": "model/more"}]}
    assert status(rig, "POST", f"{FILES}batch/metadata/LocalUpload/c1", more, identity=job("other")) == 403
    assert rig.status("POST", f"{FILES}batch/metadata/LocalUpload/c2", body) == 200
    assert status(rig, "POST", f"{FILES}batch/metadata/LocalUpload/c2", more, identity=job("mine")) == 403
    assert status(rig, "GET", f"{FILES}prefix/contentinfo/LocalUpload/c2/model", identity=job("mine")) == 403
    stolen = {"name": "m", "artifacts": [{"prefix": "LocalUpload/c2/model"}]}
    assert status(rig, "POST", f"{BASE}assets", stolen, identity=job("mine")) == 403


@given(st.text(max_size=300), st.text(max_size=100))
def test_any_text_is_a_model_or_refused(name: str, place: str) -> None:
    rig = DataRig()
    assert rig.status("POST", f"{BASE}models", {"name": name, "url": "https://example.com"}) in {200, 400}
    assert rig.status("POST", f"{BASE}assets", {"name": "x", "artifacts": [{"prefix": place}]}) in {200, 400}

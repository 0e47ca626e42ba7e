from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.data_rig import KEY, DataRig
from unit.emulator.history_rig import job
from unit.emulator.memory_blobs import SIGNATURE

from himl_container.emulator.forward import encoded_values
from himl_container.emulator.http import Refusal

BASE = "datastore/v1.0:/"
SECRETS = ("accountKey", "sasToken", "credential")


def storage(**values: Any) -> dict[str, Any]:
    given = {"accountName": "account", "containerName": "azureml-blobstore", **values}
    return {"name": "Mine", "dataStoreType": "AzureBlob", "azureStorageSection": given}


def by_key(key: str = KEY, **values: Any) -> dict[str, Any]:
    return storage(credentialType="AccountKey", credential=key, **values)


def by_sas(sas: str = SIGNATURE, **values: Any) -> dict[str, Any]:
    return storage(credentialType="Sas", credential=sas, **values)


def section(rig: DataRig, name: str, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = rig.json("GET", f"{BASE}datastores/{name}", **options)["azureStorageSection"]
    return found


def refusal(rig: DataRig, *request: Any, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        rig.ask(*request, **options)
    return caught.value


def test_the_workspaces_own_datastores() -> None:
    rig = DataRig()
    found = rig.json("GET", f"{BASE}datastores")["value"]
    assert [(item["name"], item["dataStoreType"]) for item in found] == [
        ("workspaceartifactstore", "AzureBlob"),
        ("workspaceblobstore", "AzureBlob"),
        ("workspacefilestore", "AzureFile"),
    ]
    assert all(item["azureStorageSection"][name] is None for item in found for name in SECRETS)
    assert rig.json("GET", f"{BASE}default")["name"] == "workspaceblobstore"
    own = section(rig, "WorkspaceBlobStore")
    assert (own["accountKey"], own["credentialType"], own["isSas"]) == (KEY, "AccountKey", False)
    assert (own["endpoint"], own["protocol"], own["containerName"]) == (
        "core.windows.net",
        "https",
        "azureml-blobstore",
    )
    for method in ("DELETE", "PUT"):
        assert refusal(rig, method, f"{BASE}datastores/workspaceblobstore", by_key()).status == 400


def test_a_datastore_is_registered_by_key_or_signature() -> None:
    rig = DataRig()
    assert rig.status("POST", f"{BASE}datastores", by_key()) == 200  # not 201
    assert section(rig, "mine")["accountKey"] == KEY
    assert refusal(rig, "POST", f"{BASE}datastores", by_key()).message.startswith(
        "Another datastore with the same name already exists"
    )
    assert rig.status("PUT", f"{BASE}datastores/mine", by_sas(f"?{SIGNATURE}")) == 200
    changed = section(rig, "mine")
    assert (changed["sasToken"], changed["credentialType"], changed["accountKey"]) == (SIGNATURE, "Sas", None)
    assert rig.status("DELETE", f"{BASE}datastores/MINE") == 200
    assert rig.status("DELETE", f"{BASE}datastores/mine") == 204
    assert rig.status("GET", f"{BASE}datastores/mine") == 404


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (by_key("d3Jvbmc="), "the account key is not valid"),
        (storage(), "neither a key nor a SAS"),
        (by_sas("sv=1&sig=bad"), "the SAS does not allow"),
        (by_key(containerName="none"), "there is no container 'none'"),
        (by_key(accountName="other"), "skip_validation=True"),
        ({**by_key(), "dataStoreType": "AzureFile"}, "no file shares"),
    ],
)
def test_what_cannot_be_reached_is_registered_only_unchecked(body: dict[str, Any], why: str) -> None:
    rig = DataRig()
    assert why in refusal(rig, "POST", f"{BASE}datastores", body).message
    assert rig.status("GET", f"{BASE}datastores/mine") == 404
    assert rig.status("POST", f"{BASE}datastores?skipValidation=True", body) == 200
    assert rig.status("GET", f"{BASE}datastores/mine") == 200


def test_a_container_is_made_where_that_is_asked_for() -> None:
    rig = DataRig()
    assert rig.status("POST", f"{BASE}datastores?createIfNotExists=True", by_key(containerName="fresh")) == 200
    assert "fresh" in rig.blobs.content


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a/b"},
        {"name": "../x"},
        {"name": ""},
        {"name": "x" * 256},
        {"name": None},
        {"name": "a\0"},
        {"dataStoreType": "Floppy"},
        {"dataStoreType": ["AzureBlob"]},
        {"azureStorageSection": None},
        {"azureStorageSection": {"accountName": "a.evil.example/x", "containerName": "c"}},
        {"azureStorageSection": {"accountName": "account", "containerName": "../etc"}},
        {"azureStorageSection": {"accountName": "account", "containerName": "UPPER"}},
        {"tags": ["a"]},
        {"tags": {"a": {"b": 1}}},
    ],
)
def test_what_no_datastore_can_be_is_refused(change: dict[str, Any]) -> None:
    assert refusal(DataRig(), "POST", f"{BASE}datastores?skipValidation=True", {**by_key(), **change}).status == 400


def test_other_kinds_are_names() -> None:
    rig = DataRig()
    lake = {
        "name": "lake",
        "dataStoreType": "AzureDataLake",
        "azureDataLakeSection": {"storeName": "x", "clientSecret": "y"},
    }
    assert rig.status("POST", f"{BASE}datastores", lake) == 200
    assert rig.json("GET", f"{BASE}datastores/lake")["azureDataLakeSection"]["clientSecret"] == "y"
    listed = rig.json("GET", f"{BASE}datastores")["value"][0]
    assert listed["azureDataLakeSection"] == {"storeName": "x"}


def test_the_default_is_chosen_and_falls_back() -> None:
    rig = DataRig()
    rig.ask("POST", f"{BASE}datastores", by_key())
    assert rig.status("PUT", f"{BASE}default/MINE") == 200
    assert rig.json("GET", f"{BASE}default")["name"] == "mine"
    assert rig.status("PUT", f"{BASE}default/none") == 404
    rig.ask("DELETE", f"{BASE}datastores/mine")
    assert rig.json("GET", f"{BASE}default")["name"] == "workspaceblobstore"


def test_lists_come_in_pages() -> None:
    rig = DataRig()
    for number in range(5):
        rig.ask("POST", f"{BASE}datastores", {**by_key(), "name": f"s{number}"})
    names: list[str] = []
    token = ""
    while token is not None:
        page = rig.json("GET", f"{BASE}datastores?count=3&continuationToken={token}")
        names += [item["name"] for item in page["value"]]
        token = page["continuationToken"]
    assert len(names) == len(set(names)) == 8
    assert rig.status("GET", f"{BASE}datastores?count=x") == 400
    found = rig.json("GET", f"{BASE}datastores?dataStoreNames=s1,workspaceblobstore&includeSecret=true")["value"]
    assert [item["azureStorageSection"]["accountKey"] for item in found] == [KEY, KEY]


def test_a_job_gets_a_signature_for_a_container_and_no_key() -> None:
    rig = DataRig()
    rig.run("r1")
    rig.ask("POST", f"{BASE}datastores", by_key(containerName="azureml"))
    own = section(rig, "workspaceblobstore", identity=job("r1"))
    assert (own["accountKey"], own["credentialType"]) == (None, "Sas")
    assert KEY not in str(own)
    fields = parse_qs(own["sasToken"])
    assert (fields["sr"], fields["sp"]) == (["c"], ["racwdl"])
    for name in ("workspaceartifactstore", "mine"):  # the files of all runs
        closed = section(rig, name, identity=job("r1"))
        assert (closed["credentialType"], *(closed[field] for field in SECRETS)) == ("None", None, None, None)
    for request in (
        ("POST", "datastores", by_key()),
        ("PUT", "datastores/mine", by_key()),
        ("DELETE", "datastores/mine", None),
        ("PUT", "default/mine", None),
    ):
        assert refusal(rig, request[0], BASE + request[1], request[2], identity=job("r1")).status == 403


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        (b"comp=block&blockid=AA==", b"comp=block&blockid=AA%3D%3D"),
        (b"sv=1&sig=a%2Bb%3D", b"sv=1&sig=a%2Bb%3D"),
        (b"restype&a=&=b", b"restype&a=&=b"),
    ],
)
def test_a_block_of_the_native_engine_is_signed_as_azurite_reads_it(query: bytes, sent: bytes) -> None:
    assert encoded_values(query) == sent


@given(st.text(max_size=300), st.text(max_size=80), st.text(max_size=40))
def test_any_text_is_a_datastore_or_refused(name: str, container: str, account: str) -> None:
    rig = DataRig()
    body = {**by_key(containerName=container, accountName=account), "name": name}
    assert rig.status("POST", f"{BASE}datastores?skipValidation=true", body) in {200, 400}

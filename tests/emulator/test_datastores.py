"""Datastores through the SDK: built-in and registered ones, uploads and downloads by the SDK's own functions."""

from __future__ import annotations

import datetime
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from azureml.core import Workspace
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator

CONTAINER = "datastore-tests"


@pytest.fixture
def name() -> str:
    return f"s{uuid.uuid4().hex[:10]}"


def signature(emulator: Emulator, container: str, permission: str = "rcwdl", hours: float = 1) -> str:
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    made = emulator.installation
    made_at = datetime.datetime.now(datetime.timezone.utc)
    found: str = generate_container_sas(
        made.workspace.storage_account,
        container,
        account_key=made.storage_key,
        permission=ContainerSasPermissions.from_string(permission),
        expiry=made_at + datetime.timedelta(hours=hours),
    )
    return found


def by_key(workspace: Workspace, emulator: Emulator, name: str, container: str = CONTAINER, **options: Any) -> Any:
    from azureml.core import Datastore

    made = emulator.installation
    return Datastore.register_azure_blob_container(
        workspace,
        name,
        container,
        made.workspace.storage_account,
        **{"account_key": made.storage_key, "create_if_not_exists": True, **options},
    )


def tree(folder: Path, *names: str) -> Path:
    for item in names:
        path = folder / item
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(item, encoding="utf-8")
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_built_in(workspace: Workspace) -> None:
    from azureml.core import Datastore

    found = workspace.datastores
    assert {"workspaceblobstore", "workspaceartifactstore", "workspacefilestore"} <= set(found)
    store = Datastore.get(workspace, "workspaceblobstore")
    assert (store.datastore_type, store.container_name, store.is_sas) == ("AzureBlob", "azureml-blobstore", False)
    assert found["workspacefilestore"].datastore_type == "AzureFile"


def test_default(workspace: Workspace, emulator: Emulator, name: str) -> None:
    assert workspace.get_default_datastore().name == "workspaceblobstore"
    by_key(workspace, emulator, name)
    workspace.set_default_datastore(name)
    try:
        assert workspace.get_default_datastore().name == name
    finally:
        workspace.set_default_datastore("workspaceblobstore")
    assert workspace.get_default_datastore().name == "workspaceblobstore"


def test_upload_and_download(workspace: Workspace, tmp_path: Path) -> None:
    store = workspace.get_default_datastore()
    wanted = ["a.txt", "sub/b.txt", "sub/deep/ümläut ß.txt", "per%cent #1.txt"]
    source = tree(tmp_path / "source", *wanted)
    folder = f"up-{uuid.uuid4().hex}"
    store.upload(str(source), folder, show_progress=False)
    assert store.download(str(tmp_path / "all"), folder, show_progress=False) == len(wanted)
    assert names_in(tmp_path / "all" / folder) == sorted(wanted)
    store.download(str(tmp_path / "part"), f"{folder}/sub", show_progress=False)
    assert names_in(tmp_path / "part" / folder) == ["sub/b.txt", "sub/deep/ümläut ß.txt"]
    assert (tmp_path / "part" / folder / "sub/b.txt").read_text(encoding="utf-8") == "sub/b.txt"


def test_upload_files_and_overwrite_them(workspace: Workspace, tmp_path: Path) -> None:
    store = workspace.get_default_datastore()
    source = tree(tmp_path / "source", "x/one.txt", "x/two.txt")
    files = [str(source / "x/one.txt"), str(source / "x/two.txt")]
    folder = f"up-{uuid.uuid4().hex}"
    store.upload_files(files, str(source), folder, show_progress=False)
    (source / "x/one.txt").write_text("changed")
    # The SDK asks whether a file is there, and leaves it alone unless it is told to replace it.
    for overwrite, content in ((False, "x/one.txt"), (True, "changed")):
        store.upload_files(files, str(source), folder, overwrite=overwrite, show_progress=False)
        store.download(str(tmp_path / "back"), folder, overwrite=True, show_progress=False)
        assert (tmp_path / "back" / folder / "x/one.txt").read_text() == content


def test_register_by_key_and_by_sas(workspace: Workspace, emulator: Emulator, name: str, tmp_path: Path) -> None:
    from azureml.core import Dataset, Datastore

    keyed = by_key(workspace, emulator, name)
    assert (keyed.name, keyed.account_key, keyed.is_sas) == (name, emulator.installation.storage_key, False)
    folder = f"up-{uuid.uuid4().hex}"
    keyed.upload(str(tree(tmp_path / "source", "a.txt")), folder, show_progress=False)
    account = emulator.installation.workspace.storage_account
    sas = signature(emulator, CONTAINER)
    signed = Datastore.register_azure_blob_container(workspace, f"{name}_sas", CONTAINER, account, sas_token=f"?{sas}")
    assert (signed.is_sas, signed.sas_token, signed.account_key) == (True, sas, None)
    assert signed.download(str(tmp_path / "back"), folder, show_progress=False) == 1
    # Jobs are given signatures, and the SDK's native engine must be able to work with one.
    assert Dataset.File.from_files((signed, folder)).to_path() == ["/a.txt"]
    (tmp_path / "source/large").write_bytes(bytes(9 << 20))
    Dataset.File.upload_directory(str(tmp_path / "source"), (signed, f"{folder}-2"), show_progress=False)
    assert signed.download(str(tmp_path / "back"), f"{folder}-2", show_progress=False) == 2
    assert (tmp_path / "back" / f"{folder}-2" / "large").stat().st_size == 9 << 20
    assert Datastore.get(workspace, name.upper()).name == name


def test_what_cannot_be_reached_is_not_registered(workspace: Workspace, emulator: Emulator, name: str) -> None:
    from azureml.core import Datastore
    from azureml.exceptions import UserErrorException

    account = emulator.installation.workspace.storage_account
    by_key(workspace, emulator, f"{name}_0")  # so that the container is there
    for number, (why, container, options) in enumerate(
        (
            ("account key is not valid", CONTAINER, {"account_key": "d3Jvbmc="}),
            ("no container", f"none-{name}", {"account_key": emulator.installation.storage_key}),
            ("SAS does not allow", CONTAINER, {"sas_token": signature(emulator, CONTAINER, hours=-1)}),
            ("SAS does not allow", CONTAINER, {"sas_token": signature(emulator, "azureml")}),
            ("SAS does not allow", CONTAINER, {"sas_token": signature(emulator, CONTAINER, "cw")}),
        )
    ):
        with pytest.raises(UserErrorException, match=why):
            Datastore.register_azure_blob_container(workspace, f"{name}_{number + 1}", container, account, **options)
    assert f"{name}_1" not in workspace.datastores
    elsewhere = Datastore.register_azure_blob_container(
        workspace, f"{name}_far", "c", "elsewhere", account_key="a2V5", skip_validation=True
    )
    assert elsewhere.account_name == "elsewhere"


def test_overwrite(workspace: Workspace, emulator: Emulator, name: str) -> None:
    from azureml.exceptions import UserErrorException

    by_key(workspace, emulator, name)
    with pytest.raises(UserErrorException, match="same name already exists"):
        by_key(workspace, emulator, name, f"{CONTAINER}-2")
    assert by_key(workspace, emulator, name, f"{CONTAINER}-2", overwrite=True).container_name == f"{CONTAINER}-2"


def test_unregister(workspace: Workspace, emulator: Emulator, name: str) -> None:
    from azureml.core import Datastore
    from azureml.exceptions import UserErrorException
    from msrest.exceptions import HttpOperationError

    by_key(workspace, emulator, name).unregister()
    with pytest.raises(HttpOperationError, match="was not found"):
        Datastore.get(workspace, name)
    with pytest.raises(UserErrorException, match="belongs to the workspace"):
        workspace.get_default_datastore().unregister()


def test_the_storage_itself_checks_keys_and_signatures(emulator: Emulator) -> None:
    host = emulator.installation.workspace.blob_host
    listing = {"restype": "container", "comp": "list"}
    address = f"https://{host}/azureml-blobstore"
    assert requests.get(address, params=listing, timeout=60).status_code in {401, 403}
    good = signature(emulator, "azureml-blobstore")
    assert requests.get(f"{address}?{good}", params=listing, timeout=60).status_code == 200
    forged = good.replace("sp=", "sp=a")
    assert requests.get(f"{address}?{forged}", params=listing, timeout=60).status_code == 403

"""Environments: definitions, versions and labels, and what a job may see of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.emulator.history_rig import USER, Clock, job
from unit.emulator.memory_blobs import MemoryBlobs

from himl_container.emulator.http import Refusal, Request
from himl_container.emulator.identity import Identity
from himl_container.emulator.images.bring import Bringer
from himl_container.emulator.images.build import Builder
from himl_container.emulator.images.builds import Builds, log_name
from himl_container.emulator.images.ready import Images
from himl_container.emulator.installation import Installation, open_installation
from himl_container.emulator.names import API_HOST
from himl_container.emulator.routes import Router
from himl_container.emulator.services.environments import EnvironmentService
from himl_container.emulator.state.database import Database
from himl_container.emulator.state.environments import Environments, hash_of
from himl_container.emulator.state.registry_account import RegistryAccount
from himl_container.errors import BuildError

BY_IMAGE = {"python": {"userManagedDependencies": True}, "docker": {"baseImage": "python:3.11"}}


class Rig:
    """The service behind a router; builds go to a played builder."""

    def __init__(self, installation: Installation) -> None:
        self.database, self.blobs = Database(":memory:"), MemoryBlobs()
        self.environments = Environments(self.database, Clock())
        self.bringer, self.builder = Mock(spec=Bringer), Mock(spec=Builder)
        self.builder.name.side_effect = lambda spec: f"{installation.workspace.registry_host}/azureml/x:{spec.key}"
        self.builder.exists.return_value = False
        images = Images(self.environments, self.bringer, self.builder)
        self.builds = Builds(self.environments, images, self.blobs)
        account = RegistryAccount(self.database, installation)
        self.account = account
        service = EnvironmentService(installation, self.environments, images, self.builds, account)
        self.router = Router(service.routes())
        self.workspace = installation.workspace

    def ask(self, method: str, path: str, body: object = None, identity: Identity = USER, version: str = "v1.0") -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        address = f"/environment/{version}/{self.workspace.path}/environments{path}"
        found = self.router.find("api", Request(method, API_HOST, address, body=data, identity=identity))
        answer = found.route.handler(found.request)
        assert isinstance(answer.body, bytes)
        return json.loads(answer.body)

    def refused(self, method: str, path: str, body: object = None, identity: Identity = USER) -> int:
        with pytest.raises(Refusal) as refusal:
            self.ask(method, path, body, identity)
        return refusal.value.status


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(open_installation(tmp_path / "data", workspace_name="ws", resource_group="group"))


def test_an_equal_definition_keeps_its_version_and_a_changed_one_gets_the_next(rig: Rig) -> None:
    assert rig.ask("PUT", "/e", BY_IMAGE)["version"] == "1"
    # The SDK writes some names with a capital, and nulls for what is not set.
    same = {"Name": "e", "r": None, "python": BY_IMAGE["python"], "Docker": BY_IMAGE["docker"]}
    assert rig.ask("PUT", "/e", same)["version"] == "1"
    other = {**BY_IMAGE, "EnvironmentVariables": {"A": "1"}}
    changed = rig.ask("PUT", "/e", other)
    assert (changed["version"], changed["environmentVariables"]) == ("2", {"A": "1"})
    # An older equal one is not taken: what was registered last is what is found.
    assert rig.ask("PUT", "/e", BY_IMAGE)["version"] == "3"
    assert rig.ask("GET", "/e")["version"] == "3"
    assert rig.ask("GET", "/e/versions/2")["environmentVariables"] == {"A": "1"}
    assert [one["version"] for one in rig.ask("GET", "/e/versions")["value"]] == ["1", "2", "3"]


def test_a_version_of_ones_own_is_kept_and_cannot_change(rig: Rig) -> None:
    assert rig.ask("PUT", "/e/versions/7", BY_IMAGE)["version"] == "7"
    assert rig.ask("PUT", "/e/versions/7", BY_IMAGE)["version"] == "7"
    assert rig.refused("PUT", "/e/versions/7", {**BY_IMAGE, "spark": {"packages": ["p"]}}) == 409
    assert rig.ask("PUT", "/e/versions/mine", {**BY_IMAGE, "spark": {"a": 1}})["version"] == "mine"
    assert rig.ask("PUT", "/e", BY_IMAGE)["version"] == "8"


def test_labels_move_from_version_to_version(rig: Rig) -> None:
    rig.ask("PUT", "/e", BY_IMAGE)
    rig.ask("PUT", "/e", {**BY_IMAGE, "spark": {"a": 1}})
    rig.ask("PUT", "/e/versions/1/metadata", {"Labels": ["good", "old"]})
    assert rig.ask("GET", "/e/labels/good")["version"] == "1"
    rig.ask("PUT", "/e/versions/2/metadata", {"Labels": ["good"]})
    assert rig.ask("GET", "/e/labels/good")["version"] == "2"
    assert rig.ask("GET", "/e/labels/old")["version"] == "1"
    assert rig.ask("GET", "/e/labels/latest")["version"] == "2"
    assert rig.refused("GET", "/e/labels/nothing") == 404
    assert rig.refused("PUT", "/e/versions/9/metadata", {"Labels": ["x"]}) == 404
    for wrong in ({"Labels": ["latest"]}, {"Labels": ["a b"]}, {"Labels": [1]}, {"Labels": "x"}, {}):
        assert rig.refused("PUT", "/e/versions/1/metadata", wrong) == 400


def test_lists_have_the_newest_version_of_each(rig: Rig) -> None:
    assert rig.ask("GET", "/") == {"value": [], "continuationToken": None}
    for name in ("b", "a", "b"):
        rig.ask("PUT", f"/{name}", {**BY_IMAGE, "spark": {"n": len(rig.ask("GET", "/")["value"])}})
    assert [(one["name"], one["version"]) for one in rig.ask("GET", "/")["value"]] == [("a", "1"), ("b", "2")]


def test_what_is_not_there_is_not_found(rig: Rig) -> None:
    assert rig.refused("GET", "/AzureML-Minimal") == 404
    assert rig.refused("GET", "/e/versions/1") == 404
    assert rig.refused("GET", "/e/versions") == 404
    assert rig.refused("GET", "/e/image") == 404


@pytest.mark.parametrize("name", ["AzureML-mine", "microsoft", "a\nb", "-x", "x" * 256, "ümlaut", "a\\b"])
def test_names_that_cannot_be(rig: Rig, name: str) -> None:
    assert rig.refused("PUT", f"/{name}", BY_IMAGE) == 400


@pytest.mark.parametrize("body", [{"python": 1}, {"docker": []}, {"spark": "x"}])
def test_definitions_that_cannot_be(rig: Rig, body: object) -> None:
    assert rig.refused("PUT", "/e", body) == 400
    assert rig.ask("GET", "/")["value"] == []


def test_a_job_sees_environments_without_passwords_and_changes_none(rig: Rig) -> None:
    registry = {"address": "r.example", "username": "u", "password": "geheim"}
    rig.ask("PUT", "/e", {**BY_IMAGE, "docker": {"baseImage": "x:1", "baseImageRegistry": registry}})
    assert rig.ask("GET", "/e")["docker"]["baseImageRegistry"]["password"] == "geheim"
    for path in ("/e", "/e/versions/1", "/", "/e/versions", "/e/image", "/e/labels/latest"):
        seen = json.dumps(rig.ask("GET", path, identity=job("run")))
        assert "geheim" not in seen, path
        assert not any(password in seen for password in rig.account.passwords())
    assert rig.refused("PUT", "/e", BY_IMAGE, job("run")) == 403
    assert rig.refused("PUT", "/e/versions/1/metadata", {"Labels": ["x"]}, job("run")) == 403


def test_a_submitted_definition_is_kept_beside_the_registered_ones(rig: Rig) -> None:
    environments = rig.environments
    first = environments.of_run({"name": "e", **BY_IMAGE})
    assert first.version.startswith("Autosave_")
    assert environments.of_run({"name": "e", **BY_IMAGE}) == first
    assert environments.find("e") is None
    assert rig.ask("GET", "/")["value"] == []
    assert rig.ask("GET", f"/e/versions/{first.version}")["docker"] == BY_IMAGE["docker"]
    registered = environments.register("e", BY_IMAGE)
    assert registered.version == "1"
    assert environments.of_run({"name": "e", **BY_IMAGE}).version == "1"
    assert environments.of_run({"name": "e", "version": "1", "docker": {"baseImage": "other"}}).version == "1"
    assert environments.of_run({"name": "e"}).version == "1"
    assert environments.of_run({"name": "e", "version": "mine", **BY_IMAGE}).version == "mine"
    for wrong in ({"name": "nobody"}, {"name": "e", "version": "9"}, {"name": None}, {"name": "e", "version": "a b"}):
        with pytest.raises(Refusal) as refusal:
            environments.of_run(wrong)
        assert refusal.value.status == 400


def test_a_run_keeps_the_version_of_its_environment(rig: Rig) -> None:
    environments = rig.environments
    environments.register("e", BY_IMAGE)
    assert environments.named({"name": "e", **BY_IMAGE}, "x") == {"name": "e", "version": "1", **BY_IMAGE}
    assert environments.named({"name": "e"}, "x") == {"name": "e", "version": "1", **BY_IMAGE}
    unnamed = environments.named({"name": None, **BY_IMAGE}, "my exp")
    assert unnamed["name"] == "Experiment my exp Environment"
    assert rig.ask("GET", f"/{unnamed['name']}/versions/{unnamed['version']}")["docker"] == BY_IMAGE["docker"]


def test_image_details_of_a_base_and_of_a_built_image(rig: Rig) -> None:
    rig.ask("PUT", "/e", BY_IMAGE)
    details = rig.ask("GET", "/e/image")
    assert details["dockerImage"] == {
        "name": "python:3.11",
        "registry": {"address": None, "username": None, "password": None},
    }
    conda = {"dependencies": ["python=3.11"]}
    rig.ask("PUT", "/c", {"python": {"condaDependencies": conda}, "docker": {"baseImage": "base:1"}})
    details = rig.ask("GET", "/c/versions/1/image")
    assert details["imageExistsInRegistry"] is False
    assert details["dockerImage"]["name"].startswith("azureml/x:")
    assert details["dockerImage"]["registry"] == {
        "address": rig.workspace.registry_host,
        "username": rig.workspace.registry,
        "password": rig.account.passwords()[0],
    }
    assert json.loads(details["ingredients"]["condaSpecification"]) == conda
    rig.ask("PUT", "/r", {"r": {"rVersion": "4"}, "docker": {"baseImage": "base:1"}})
    assert rig.refused("GET", "/r/image") == 400


def _finished(rig: Rig, location: str) -> Mapping[str, Any]:
    path = location.partition("/environments")[2]
    for thread in threading.enumerate():
        if thread.name == "image build":
            thread.join(20)
    return rig.ask("GET", path, version="v2.0")


def test_a_build_says_what_it_does(rig: Rig) -> None:
    rig.bringer.bring.side_effect = lambda name, login, say: say(f"bringing {name}")
    rig.ask("PUT", "/e", BY_IMAGE)
    begun = rig.ask("POST", "/e/versions/1/image", {}, version="v2.0")
    ended = _finished(rig, begun["location"])
    assert (ended["status"], ended["error"]) == ("Succeeded", None)
    assert rig.blobs.read("azureml", log_name(begun["id"])) == b"bringing python:3.11\nSucceeded.\n"
    assert rig.refused("GET", "/x/versions/1/image/" + begun["id"]) == 404


def test_a_build_that_fails_says_why(rig: Rig) -> None:
    rig.bringer.bring.side_effect = BuildError("no such thing", hint="Look.")
    rig.ask("PUT", "/e", BY_IMAGE)
    begun = rig.ask("POST", "/e/versions/1/imageoncompute/cpu", {}, version="v2.0")
    ended = _finished(rig, begun["location"])
    assert (ended["status"], ended["error"]["message"]) == ("Failed", "no such thing\n  Look.")
    assert b"no such thing" in rig.blobs.read("azureml", log_name(begun["id"]))


def test_an_emulator_that_ends_waits_for_no_build(rig: Rig) -> None:
    building, go = threading.Event(), threading.Event()

    def bring(name: str, login: object, say: object) -> None:
        building.set()
        assert go.wait(20)

    rig.bringer.bring.side_effect = bring
    rig.ask("PUT", "/e", BY_IMAGE)
    begun = rig.ask("POST", "/e/versions/1/image", {}, version="v2.0")
    assert building.wait(20)
    rig.builds.close()
    go.set()
    ended = _finished(rig, begun["location"])
    assert (ended["status"], ended["error"]["message"][:18]) == ("Failed", "The emulator ended")


def test_a_build_that_an_emulator_left_behind_has_failed(rig: Rig) -> None:
    build = rig.environments.begin_build("e", "1")
    Builds(rig.environments, Mock(spec=Images), rig.blobs).close()
    assert rig.environments.get_build(build.build_id).status == "Failed"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), _JSON, max_size=4))
def test_a_definition_has_the_hash_of_what_it_says(definition: dict[str, Any]) -> None:
    # Names of more than four letters, so that none is in the definition already.
    backwards = dict(reversed([*definition.items(), ("nothing", None), ("object", {}), ("array", [])]))
    assert hash_of(backwards) == hash_of(definition)
    assert hash_of({**definition, "python": {"interpreterPath": "p"}}) != hash_of({**definition, "python": {}})

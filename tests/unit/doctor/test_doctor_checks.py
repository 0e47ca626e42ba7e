"""What each check of the doctor says: when all is well, and when it is not."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from himl_container.doctor import engine, host, leftovers, libraries, local_workspace, registries, workspace
from himl_container.doctor.libraries import Installed
from himl_container.doctor.model import Finding
from himl_container.errors import EngineError, InputError, RegistryError
from himl_container.registry.login import LoginRefusedError
from himl_container.settings import Settings


def by_name(findings: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


class FakeDaemon:
    """Answers from a table of paths; notes what is removed."""

    def __init__(self, answers: Mapping[str, Any] | None = None) -> None:
        self.answers = dict(answers or {})
        self.deleted: list[str] = []
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.api_version = "1.47"

    def json(self, doing: str, path: str, params: Mapping[str, str] | None = None) -> Any:
        self.asked.append((path, params or {}))
        return self.answers.get(path)

    def delete(self, doing: str, path: str, params: Mapping[str, str] | None = None) -> None:
        self.deleted.append(path)
        self.answers.pop(path, None)


# This machine


def test_no_credential_in_json() -> None:
    found = Finding("x", "error", "asked https://u:CANARY@h/", "means", "ask https://h/?sig=CANARY")
    assert "CANARY" not in str(found.as_json())


def test_python_versions() -> None:
    assert host.python((3, 12, 1)).severity == "ok"
    assert host.python((3, 9, 0)).severity == "warning"
    assert "3.13.0" in host.python((3, 13, 0)).found


def test_uv_and_mmdebstrap() -> None:
    def missing() -> str:
        raise FileNotFoundError

    assert host.uv(lambda: "/bin/uv") == Finding("uv", "ok", "/bin/uv")
    assert host.uv(missing).severity == "error"
    assert host.mmdebstrap(lambda name: f"/bin/{name}").severity == "ok"
    lacking = host.mmdebstrap(lambda name: None)
    assert lacking.severity == "skipped"
    assert "apt-get install mmdebstrap" in lacking.fix


def test_free_space(tmp_path: Path) -> None:
    assert host.space("space", tmp_path, 50_000_000_000).severity == "ok"
    little = host.space("space", tmp_path / "not" / "there", 2_500_000_000)
    assert little.severity == "warning"
    assert "only 2.5 GB" in little.found
    assert host.space("space", tmp_path / "not" / "there").found.endswith(str(tmp_path / "not" / "there"))


def test_a_cache_folder_that_is_not_there_is_made_later(tmp_path: Path) -> None:
    finding = host.cache_folder(tmp_path / "not" / "there")
    assert finding.severity == "ok"
    assert not (tmp_path / "not").exists()


def test_a_cache_folder_of_ours_is_made_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o500)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")  # root may write everywhere

    monkeypatch.setattr(host.tempfile, "TemporaryFile", refuse)
    finding = host.cache_folder(folder)
    assert (finding.severity, finding.as_json()["fixable"]) == ("error", True)
    assert finding.repair is not None
    assert str(folder) in finding.repair()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert host.cache_folder(folder).repair is None, "its mode is not what is wrong"


# Docker


def test_a_daemon_that_answers(tmp_path: Path) -> None:
    system = {
        "ServerVersion": "26.1",
        "Architecture": "x86_64",
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
        "DockerRootDir": str(tmp_path),
        "Runtimes": {"nvidia": {}, "runc": {}},
    }
    found = by_name(engine.checks({"HOME": str(tmp_path)}, connect=lambda: FakeDaemon({"/info": system})))
    assert found["docker engine"].found == "26.1 (API 1.47, x86_64, containerd image store)"
    assert found["space for docker"].severity in ("ok", "warning")


def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    def nobody() -> engine.Daemon:
        raise EngineError("no daemon answers", where="unix:///nowhere")

    found = by_name(engine.checks({"HOME": str(tmp_path)}, connect=nobody))
    assert found["docker engine"].severity == "error"
    assert found["docker engine"].found == "unix:///nowhere: no daemon answers"
    assert "DOCKER_HOST" in found["docker engine"].fix
    assert "gpu runtime" not in found


def test_the_disk_of_a_daemon_elsewhere_is_not_looked_at(tmp_path: Path) -> None:
    daemon = FakeDaemon({"/info": {"DockerRootDir": "/no/such/folder"}})
    assert (
        by_name(engine.checks({"HOME": str(tmp_path)}, connect=lambda: daemon))["space for docker"].severity
        == "skipped"
    )


def test_buildkit(tmp_path: Path) -> None:
    plugin = tmp_path / "cli-plugins" / "docker-buildx"
    plugin.parent.mkdir()
    plugin.write_text("")
    plugin.chmod(0o755)
    assert engine.buildkit({"DOCKER_CONFIG": str(tmp_path)}) == Finding("buildkit", "ok", str(plugin))


@pytest.mark.parametrize(
    ("runtimes", "device", "severity"),
    [
        ({"nvidia": {}}, True, "ok"),
        ({"nvidia": {}}, False, "warning"),
        ({"runc": {}}, True, "warning"),
        (None, False, "skipped"),
    ],
)
def test_gpus(runtimes: Any, device: bool, severity: str) -> None:
    finding = engine.gpus({"Runtimes": runtimes}, has_device=device)
    assert finding.severity == severity
    assert severity == "ok" or finding.means


def test_passwords_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    assert engine.login_file({"DOCKER_CONFIG": str(tmp_path)}).severity == "skipped"
    path.write_text(json.dumps({"auths": {"a.example.org": {"auth": "dTpTRUNSRVQ="}, "b.example.org": {}}}))
    path.chmod(0o644)
    finding = engine.login_file({"DOCKER_CONFIG": str(tmp_path)})
    assert finding.severity == "warning"
    assert "a.example.org" in finding.found
    assert "b.example.org" not in finding.found
    assert "dTpTRUNSRVQ" not in str(finding)
    assert finding.repair is not None
    finding.repair()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert engine.login_file({"DOCKER_CONFIG": str(tmp_path)}).severity == "ok"


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"h": 3}}', '{"auths": null}'])
def test_an_odd_login_file_is_no_crash(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert engine.login_file({"DOCKER_CONFIG": str(tmp_path)}).severity in ("ok", "warning")


# What killed runs and builds left

_ID = "a" * 64
_OTHER = "b" * 64
_NOW = 1_800_000_000.0
_LONG_AGO = "2026-01-01T00:00:00.123456789Z"


def left(daemon: FakeDaemon, cache: Path) -> Finding:
    (finding,) = leftovers.checks(cache, {}, connect=lambda: daemon, now=lambda: _NOW)
    return finding


def test_nothing_is_left_over(tmp_path: Path) -> None:
    assert left(FakeDaemon(), tmp_path).severity == "ok"


def test_what_is_left_over_is_removed(tmp_path: Path) -> None:
    note = tmp_path / "memo" / "candidates" / ("c" * 32 + ".json")
    note.parent.mkdir(parents=True)
    name = f"himl-candidate:{'c' * 32}-0123456789ab"
    note.write_text(json.dumps([name, "docker.io/library/debian:12"]))
    answers = {
        "/containers/json": [{"Id": _ID, "Created": _NOW - 7200, "Names": ["/himl-train-1"]}],
        f"/containers/{_ID}/json": {"State": {"Running": False, "FinishedAt": _LONG_AGO}},
        "/networks": [{"Id": _OTHER, "Name": "himl-net", "Created": _LONG_AGO}],
        f"/networks/{_OTHER}": {"Containers": {}},
    }
    daemon = FakeDaemon(answers)
    lookup = "/images/" + name.replace(":", "%3A") + "/json"
    daemon.answers[lookup] = {"Id": "sha256:x"}
    daemon.answers["/images/" + name + "/json"] = {"Id": "sha256:x"}
    finding = left(daemon, tmp_path)
    assert finding.severity == "warning"
    for part in ("3 things", "container himl-train-1", "network himl-net", f"image {name}"):
        assert part in finding.found
    assert finding.repair is not None
    assert daemon.deleted == []
    assert finding.repair() == "removed 3 things"
    assert daemon.deleted[:2] == [f"/containers/{_ID}", f"/networks/{_OTHER}"]
    assert len(daemon.deleted) == 3
    assert "debian" not in str(daemon.asked)


@pytest.mark.parametrize(
    "state",
    [{"Running": True}, {"Running": False, "FinishedAt": "2027-01-15T07:59:00Z"}],
    ids=["running", "just ended"],
)
def test_what_may_be_in_use_stays(tmp_path: Path, state: dict[str, Any]) -> None:
    answers = {
        "/containers/json": [
            {"Id": _ID, "Created": _NOW - 7200, "Names": ["/x"]},
            {"Id": "../../etc", "Created": 0, "Names": ["/y"]},
        ],
        f"/containers/{_ID}/json": {"State": state},
        "/networks": [{"Id": _OTHER, "Name": "n", "Created": _LONG_AGO}],
        f"/networks/{_OTHER}": {"Containers": {"x": {}}},
    }
    assert left(FakeDaemon(answers), tmp_path).severity == "ok"


def test_what_somebody_else_removes_meanwhile_is_not_left_over(tmp_path: Path) -> None:
    listed = {
        "/containers/json": [{"Id": _ID, "Created": _NOW - 7200, "Names": ["/x"]}],
        "/networks": [{"Id": _OTHER, "Name": "n", "Created": _LONG_AGO}],
    }
    assert left(FakeDaemon(listed), tmp_path).severity == "ok"


def test_a_candidate_of_a_build_that_is_at_work_stays(tmp_path: Path) -> None:
    from himl_container.cache import Cache
    from himl_container.image.candidate import candidate_name, left_candidates

    cache, daemon = Cache(tmp_path), SimpleNamespace(remove_image=lambda name: None)
    with candidate_name("d" * 64, engine=daemon, cache=cache):  # type: ignore[arg-type]
        assert left_candidates(cache) == ()
    cache.write_json([f"himl-candidate:{'d' * 32}-00ff"], "memo", "candidates", "d" * 32 + ".json")
    assert left_candidates(cache) == (f"himl-candidate:{'d' * 32}-00ff",)


# The registry


def settings(tmp_path: Path, **values: Any) -> Settings:
    return Settings(root=tmp_path, conda_files=(), lock_file=tmp_path / "lock", cache_dir=tmp_path, **values)


def test_no_registry(tmp_path: Path) -> None:
    (finding,) = registries.checks(settings(tmp_path), {})
    assert finding.severity == "skipped"


def test_a_registry_that_answers(tmp_path: Path) -> None:
    asked: list[str] = []
    (finding,) = registries.checks(settings(tmp_path, registry="r.example.org", image_name="a/b"), {}, ask=asked.append)
    assert finding.severity == "ok"
    assert asked == ["r.example.org/a/b"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LoginRefusedError("the login is refused"), "docker login"),
        (RegistryError("does not answer"), "this machine reaches it"),
        (RegistryError("does not answer", hint="Do that."), "Do that."),
    ],
)
def test_a_registry_in_trouble(tmp_path: Path, error: RegistryError, expected: str) -> None:
    def ask(name: str) -> None:
        raise error

    (finding,) = registries.checks(settings(tmp_path, registry="r.example.org"), {}, ask=ask)
    assert finding.severity == "error"
    assert expected in finding.fix


# The workspace

_CONFIG = {"subscription_id": "s", "resource_group": "g", "workspace_name": "mine"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("HIML_", "PYTHONPATH")):
            monkeypatch.delenv(name)
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def target(state: str = "Succeeded", kind: str = "AmlCompute") -> Any:
    return SimpleNamespace(type=kind, provisioning_state=state, vm_size="STANDARD_DS2_V2", vm_priority="LowPriority")


def opened(**targets: Any) -> Any:
    return lambda names: SimpleNamespace(name=names.workspace_name, location="westeurope", compute_targets=targets)


def test_no_workspace_is_named(folder: Path) -> None:
    (finding,) = workspace.checks({})
    assert finding.severity == "skipped"
    assert "config.json" in finding.fix


def test_a_workspace_that_answers(folder: Path) -> None:
    (folder.parent / "config.json").write_text(json.dumps(_CONFIG))
    found = by_name(
        workspace.checks({}, has_sdk=lambda: True, login=lambda: "Azure CLI", open_workspace=opened(cpu=target()))
    )
    assert found["workspace named"].found == f"mine, in {folder.parent / 'config.json'}"
    assert found["azure login"].found == "Azure CLI"
    assert found["workspace"].found == "mine in westeurope"
    assert found["clusters"] == Finding("clusters", "ok", "cpu (succeeded, STANDARD_DS2_V2, low priority)")
    assert {finding.severity for finding in found.values()} == {"ok"}


@pytest.mark.parametrize("text", ["{", "[]", '{"workspace_name": 3}', "\udcff".encode("utf-8", "surrogateescape")])
def test_a_workspace_file_that_is_wrong(folder: Path, text: str | bytes) -> None:
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    (finding,) = workspace.checks({})
    assert finding.severity == "error"
    assert str(folder / "config.json") in finding.found


def test_without_the_sdk(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    found = by_name(workspace.checks({}, has_sdk=lambda: False))
    assert found["azureml sdk"].severity == "error"
    assert "himl-container[azure]" in found["azureml sdk"].fix


def test_a_login_that_was_refused(folder: Path) -> None:
    def refused() -> str:
        raise InputError("the AZURE_* variables: no such secret")

    (folder / "config.json").write_text(json.dumps(_CONFIG))
    found = by_name(workspace.checks({}, has_sdk=lambda: True, login=refused))
    assert found["azure login"].severity == "error"
    assert "no such secret" in found["azure login"].found
    assert "az login" in found["azure login"].fix


def test_nobody_is_logged_in(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    found = by_name(workspace.checks({}, has_sdk=lambda: True, login=lambda: ""))
    assert found["azure login"].severity == "warning"
    assert "az login" in found["azure login"].fix
    assert "workspace" not in found


def test_a_workspace_that_is_refused(folder: Path) -> None:
    def refused(names: Any) -> Any:
        raise InputError("there is no workspace mine", hint="Look at config.json.")

    (folder / "config.json").write_text(json.dumps(_CONFIG))
    found = by_name(workspace.checks({}, has_sdk=lambda: True, login=lambda: "Azure CLI", open_workspace=refused))
    assert found["workspace"].severity == "error"
    assert found["workspace"].fix == "Look at config.json."


def test_the_registry_of_the_workspace_is_asked_where_the_project_has_none(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    asked: list[str] = []

    def registry(found: Any) -> Finding:
        asked.append(found.name)
        return Finding("workspace's registry", "ok", "answers")

    checks = workspace.checks(
        {}, has_sdk=lambda: True, login=lambda: "Azure CLI", open_workspace=opened(cpu=target()), registry=registry
    )
    assert by_name(checks)["workspace's registry"].found == "answers"
    assert asked == ["mine"]


def test_a_workspace_without_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIML_CONTAINER_CACHE_DIR", str(tmp_path))
    bare = SimpleNamespace(
        subscription_id="s", resource_group="g", name="bare", _workspace_id="w", get_details=lambda: {}
    )
    finding = workspace.own_registry(bare, {})
    assert finding.severity == "warning"
    assert "no container registry" in finding.found
    assert finding.fix


def test_clusters_in_other_states() -> None:
    none = workspace.clusters(SimpleNamespace(compute_targets={"box": target(kind="ComputeInstance")}))
    assert none.severity == "warning"
    failed = workspace.clusters(SimpleNamespace(compute_targets={"bad": target("Failed"), "good": target()}))
    assert failed.severity == "warning"
    assert "bad" in failed.fix
    assert "good" not in failed.fix
    many = {f"c{index:03}": target() for index in range(25)}
    assert workspace.clusters(SimpleNamespace(compute_targets=many)).found.endswith("and 5 more")


def test_a_service_principal_with_a_part_missing(folder: Path) -> None:
    found = workspace.service_principal({"HIML_TENANT_ID": "t", "HIML_SERVICE_PRINCIPAL_ID": "i"})
    assert found is not None
    assert found.severity == "error"
    assert "HIML_SERVICE_PRINCIPAL_PASSWORD" in found.fix
    all_three = dict.fromkeys(
        ("HIML_TENANT_ID", "HIML_SERVICE_PRINCIPAL_ID", "HIML_SERVICE_PRINCIPAL_PASSWORD"), "CANARY"
    )
    complete = workspace.service_principal(all_three)
    assert complete is not None
    assert complete.severity == "ok"
    assert "CANARY" not in str(complete)
    assert workspace.service_principal({}) is None
    assert workspace.service_principal({"HIML_TENANT_ID": "t"}) is None, "the tenant of another login"


# The emulator


def test_an_emulator_that_runs(tmp_path: Path) -> None:
    from himl_container.emulator.folder import RUNNING
    from himl_container.emulator.processes import identify

    me = identify(os.getpid())
    (tmp_path / RUNNING).write_text(json.dumps({"pid": me.pid, "began": me.began, "port": 5999}))
    (finding,) = local_workspace.checks({"HIML_CONTAINER_EMULATOR_DIR": str(tmp_path)})
    assert finding.found == f"running at http://127.0.0.1:5999, in {tmp_path}"


@pytest.mark.parametrize(
    ("modules", "programs", "severity", "expected"),
    [
        (False, (), "skipped", "himl-container[emulator]"),
        (True, ("azurite-blob", "docker-registry"), "ok", "emulator start"),
        (True, ("azurite-blob", "docker"), "ok", "docker-registry will be container images"),
        (True, ("azurite-blob",), "warning", "apt-get install docker-registry"),
    ],
)
def test_an_emulator_that_does_not_run(
    tmp_path: Path, modules: bool, programs: tuple[str, ...], severity: str, expected: str
) -> None:
    (finding,) = local_workspace.checks(
        {"HIML_CONTAINER_EMULATOR_DIR": str(tmp_path)},
        installed=lambda name: modules,
        which=lambda name: name if name in programs else None,
    )
    assert finding.severity == severity
    assert expected in f"{finding.found} {finding.fix}"


# Packages


def test_packages_that_are_not_installed() -> None:
    found = by_name(libraries.checks({}))
    assert found["azureml packages"].severity == found["training packages"].severity == "skipped"
    assert found["himl-container"].severity == "ok"


def test_packages_that_fit() -> None:
    fitting = {"torch": Installed("2.7"), "pytorch-lightning": Installed("2.6.1", ("torch>=2.1", "x; extra == 'all'"))}
    assert by_name(libraries.checks(fitting))["training packages"].severity == "ok"


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"torch": Installed("1.8"), "lightning": Installed("2.6", ("torch>=2.1",))}, "lightning wants torch >=2.1"),
        ({"torch": Installed("2.7"), "lightning": Installed("1.9")}, "older than 2.4"),
        ({"lightning": Installed("2.6")}, "torch is missing"),
        (
            {"torch": Installed("2"), "lightning": Installed("2.6"), "pytorch-lightning": Installed("2.5")},
            "two versions of one library",
        ),
    ],
)
def test_packages_that_do_not_fit(installed: dict[str, Installed], expected: str) -> None:
    finding = by_name(libraries.checks(installed))["training packages"]
    assert finding.severity == "warning"
    assert expected in finding.found
    assert finding.fix.startswith("pip install --upgrade")

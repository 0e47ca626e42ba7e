"""The doctor's look at a workspace, on the emulator: what it finds, and what it says when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import kit
import pytest

if TYPE_CHECKING:
    from emulator_fixtures import Emulator

pytestmark = pytest.mark.emulator


def diagnose(emulator: Emulator, folder: Path, **variables: str) -> dict[str, dict[str, object]]:
    environ = {**kit.clean_environ(), **emulator.variables, "DOCKER_HOST": "unix:///nowhere.sock", **variables}
    done = kit.Cli(folder, environ)("doctor", "--json", expect=None, timeout=120)
    result = json.loads(done.stdout.splitlines()[-1])
    return {finding["check"]: finding for finding in result["findings"]}


def test_a_workspace_that_is_fine(emulator: Emulator, tmp_path: Path) -> None:
    found = diagnose(emulator, tmp_path, HIML_CONTAINER_EMULATOR_DIR=str(emulator.folder))
    assert found["workspace named"]["severity"] == "ok"
    assert "(the emulator's)" in str(found["workspace named"]["found"])
    assert found["azure login"]["severity"] == "ok"
    assert found["workspace"]["severity"] == "ok"
    assert found["clusters"]["severity"] == "ok"
    assert found["workspace's registry"]["severity"] == "ok"
    assert str(found["workspace's registry"]["found"]).startswith(emulator.installation.workspace.registry_host)
    assert str(emulator.port) in str(found["emulator"]["found"])


def test_a_workspace_that_does_not_exist(emulator: Emulator, tmp_path: Path) -> None:
    names = json.loads(emulator.config.read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**names, "workspace_name": "nobodys"}))
    found = diagnose(emulator, tmp_path, HIML_EMULATOR_CONFIG="")
    assert found["workspace named"]["found"] == f"nobodys, in {tmp_path / 'config.json'}"
    assert found["workspace"]["severity"] == "error"
    assert found["workspace"]["fix"]


def test_a_login_that_is_refused(emulator: Emulator, tmp_path: Path) -> None:
    made = emulator.installation
    found = diagnose(
        emulator,
        tmp_path,
        HIML_TENANT_ID=made.workspace.tenant_id,
        HIML_SERVICE_PRINCIPAL_ID=made.client_id,
        HIML_SERVICE_PRINCIPAL_PASSWORD="CANARY-wrong",
    )
    assert found["service principal"]["severity"] == "ok"
    assert found["workspace"]["severity"] == "error"
    assert "CANARY" not in json.dumps(found)

"""One example, run here and in AzureML (the emulator): what the script sees is the same, but for what is listed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from submit_project import IMAGE, Cloud, cloud, result_of  # noqa: F401  # a fixture

if TYPE_CHECKING:
    from azureml.core import Workspace

pytestmark = [pytest.mark.emulator, pytest.mark.docker]

LOOK = Path(__file__).with_name("look_around.py")

ONLY_THERE = {
    # Who the run is, and where its services are: without these Run.get_context() is offline, which tells a script
    # that it is not in AzureML.
    "AZUREML_ARM_PROJECT_NAME",
    "AZUREML_ARM_RESOURCEGROUP",
    "AZUREML_ARM_SUBSCRIPTION",
    "AZUREML_ARM_WORKSPACE_NAME",
    "AZUREML_DISCOVERY_SERVICE_ENDPOINT",
    "AZUREML_EXPERIMENT_ID",
    "AZUREML_EXPERIMENT_SCOPE",
    "AZUREML_ROOT_RUN_ID",
    "AZUREML_RUN_HISTORY_SERVICE_ENDPOINT",
    "AZUREML_RUN_TOKEN",
    "AZUREML_RUN_TOKEN_EXPIRY",
    "AZUREML_SERVICE_ENDPOINT",
    "AZUREML_WORKSPACE_ID",
    "AZUREML_WORKSPACE_SCOPE",
    # The emulator's own: how a container reaches it in the place of Azure.
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "https_proxy",
    "no_proxy",
}
"""Variables that only a run in AzureML has. docs/submitting.md lists them too; a test compares."""

ANOTHER_VALUE = {"AZUREML_RUN_ID", "HOSTNAME"}
"""Variables that both have, with a value of each run's own."""

JOB = re.compile(r"/mnt/azureml/cr/j/[0-9a-f]{32}/")
"""The job's own folder; its name is made of the run's id."""

ONLY_THERE_MOUNTED = {"/etc/himl-emulator/certificates.pem ro", "/etc/himl-emulator/run_script.py ro"}
"""The emulator's own: whom to trust, and what starts a script as AzureML's runner does."""


@dataclass(frozen=True)
class Seen:
    """What the script saw here and there, and the image of each run."""

    here: Mapping[str, Any]
    there: Mapping[str, Any]
    image_here: str
    verified: Mapping[str, Any]


@pytest.fixture(scope="module")
def seen(cloud: Cloud, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Seen:  # noqa: F811
    folder = tmp_path_factory.mktemp("same") / "project"
    cli = cloud.project(folder)
    (folder / "look.py").write_text(LOOK.read_text())
    (folder / "package" / "inner").mkdir(parents=True)
    (folder / "package" / "inner" / "a b.txt").write_text("text")
    (folder / "tool.sh").write_text("#!/bin/sh\n")
    (folder / "tool.sh").chmod(0o755)
    (folder / "empty").mkdir()
    (folder / "left.log").write_text("left out")
    (folder / "data" / "iris").mkdir(parents=True)
    (folder / "data" / "iris" / "a.csv").write_text("1,2\n")
    (folder / ".amlignore").write_text("*.log\ndata\n")
    workspace.get_default_datastore().upload(str(folder / "data"), target_path="same", show_progress=False)
    words = [
        *("--dataset", "iris=data/iris,name=same/iris", "--output", f"result={folder / 'data' / 'result'}"),
        *("--env", "MINE=a=b c", "--shm-size", "128m", "look.py"),
        *("plain", "two words", "$HOME", "a'b\"c", "", "--flag=1", "*"),
    ]
    here = result_of(cli("run", "--json", "--local", *words))
    there = result_of(cli("submit", "--json", "--azureml", "--emulator", "--wait", *words))
    assert there["status"] == "Completed"
    fetched = result_of(cli("download", "--json", "--prefix", "outputs/", there["run"]))
    record = json.loads((Path(here["folder"]) / "run.json").read_text())
    return Seen(
        json.loads((Path(here["folder"]) / "outputs" / "seen.json").read_text()),
        json.loads((Path(fetched["folder"]) / "outputs" / "seen.json").read_text()),
        record["launch"]["image"]["id"],
        result_of(cli("verify", "--json", there["run"])),
    )


def same_names(value: Any) -> Any:
    """Return a value with the job's own folder under one name."""
    return json.loads(JOB.sub("/mnt/azureml/cr/j/JOB/", json.dumps(value)))


@pytest.mark.parametrize(
    "what",
    [
        *("arguments", "working_directory", "user", "python", "packages", "limits", "shared_memory", "terminal"),
        *("capabilities", "main", "input", "output", "umask", "processors", "signals", "platform"),
    ],
)
def test_the_same(seen: Seen, what: str) -> None:
    assert same_names(seen.here[what]) == same_names(seen.there[what])


def test_arguments_arrive_as_they_were_written(seen: Seen) -> None:
    assert seen.there["arguments"] == ["look.py", "plain", "two words", "$HOME", "a'b\"c", "", "--flag=1", "*"]


def test_variables(seen: Seen) -> None:
    here, there = same_names(seen.here["environment"]), same_names(seen.there["environment"])
    assert there.keys() - here.keys() == ONLY_THERE
    assert here.keys() - there.keys() == set()
    assert {name for name in here if here[name] != there[name]} == ANOTHER_VALUE
    assert here["MINE"] == "a=b c"


def test_files(seen: Seen) -> None:
    here, there = seen.here["files"], seen.there["files"]
    assert set(there) == {
        *(".amlignore", "environment.yml", "look.py", "logs", "outputs", "package", "package/inner"),
        *("package/inner/a b.txt", "pylock.himl.toml", "pyproject.toml", "tool.sh"),
    }
    assert here.keys() == there.keys()
    differing = {name for name in here if here[name] != there[name]}
    # AzureML's snapshots have no modes: what is executable here is not there.
    assert differing == {"tool.sh"}
    assert here["tool.sh"]["content"] == there["tool.sh"]["content"]


def test_mounts(seen: Seen) -> None:
    here, there = set(same_names(seen.here["mounts"])), set(same_names(seen.there["mounts"]))
    assert there - here == ONLY_THERE_MOUNTED
    assert here - there == set()


def test_the_image_is_the_same_to_the_last_byte(seen: Seen) -> None:
    assert seen.verified["agree"]
    daemon = next(part for part in seen.verified["parts"] if part["part"] == "daemon")
    assert daemon["identity"] == seen.image_here
    assert {"run", "registry", "daemon", "lock"} == {name for pair in seen.verified["compared"] for name in pair}


def test_the_documentation_lists_what_differs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "submitting.md").read_text()
    assert [name for name in sorted(ONLY_THERE | ANOTHER_VALUE) if f"`{name}`" not in text] == []

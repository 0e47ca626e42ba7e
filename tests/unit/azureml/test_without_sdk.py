"""Without the extra ``azure``: who asks for AzureML is told how to get its SDK."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kit import clean_environ

_COMMAND = "from himl_container.cli.main import main; main(sys.argv[1:])"
_SCRIPT = """
from himl_container import submit_to_azure_if_needed
try:
    submit_to_azure_if_needed(compute_cluster_name="cpu", submit_to_azureml=True)
except ModuleNotFoundError as error:
    sys.exit(str(error))
"""
_TOOL = "from himl_container.azureml.tools_download import console; console()"
NAMES = {f"HIML_{name}": "x" for name in ("SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE_NAME")}


@pytest.mark.parametrize(
    ("text", "words", "code"),
    [
        (_COMMAND, "submit --azureml --cluster cpu train.py", 65),
        (_COMMAND, "submit --azureml --cluster cpu --dry-run train.py", 65),
        (_COMMAND, "status train_1", 65),
        (_COMMAND, "runs --experiment train", 65),
        (_TOOL, "--run_id train_1", 65),
        (_SCRIPT, "", 1),
    ],
)
def test_the_extra_is_named(text: str, words: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    (tmp_path / "environment.yml").write_text("dependencies: [python=3.11]\n")
    done = subprocess.run(
        # None is the import system's own way to say that a module cannot be imported.
        [sys.executable, "-c", f"import sys; sys.modules['azureml'] = None\n{text}", *words.split()],
        cwd=tmp_path,
        env=clean_environ(HIML_CONTAINER_CACHE_DIR=str(tmp_path / "cache"), **NAMES),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "the AzureML SDK is not installed" in done.stderr
    assert "pip install 'himl-container[azure]'" in done.stderr
    assert "Traceback" not in done.stderr

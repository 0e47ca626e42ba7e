"""The command line of ``run``, as far as it goes without an engine."""

from __future__ import annotations

import json
import subprocess
import sys

import kit
import pytest


@pytest.fixture
def cli(project: kit.ProjectFolder) -> kit.Cli:
    return kit.Cli(project.path, kit.clean_environ(DOCKER_HOST="unix:///nonexistent/docker.sock"))


def test_what_follows_the_script_is_not_ours(cli: kit.Cli) -> None:
    words = ["--image", "x", "--", "--dry-run", "-i", "--unknown=1", "", "a b"]
    done = cli("run", "--local", "--image", "himl:1", "--dry-run", "--json", "echo", *words)
    assert json.loads(done.stdout)["launch"]["arguments"] == words


def test_a_module_of_python_after_two_dashes(cli: kit.Cli) -> None:
    done = cli("run", "--local", "--image", "himl:1", "--dry-run", "--json", "--", "-m", "pytest", "-x")
    launch = json.loads(done.stdout)["launch"]
    assert (launch["command"], launch["arguments"]) == (["python", "-m"], ["pytest", "-x"])


def test_the_settings_of_the_project_count(cli: kit.Cli, project: kit.ProjectFolder) -> None:
    project.write("pyproject.toml", '[tool.himl-container.run]\nshm-size = "1g"\ndatasets = { iris = "data" }\n')
    project.write("data/iris.csv", "1")
    done = cli("run", "--local", "--image", "himl:1", "--dry-run", "--json", "true")
    value = json.loads(done.stdout)
    assert value["launch"]["shm_size"] == 1 << 30
    assert value["local"]["datasets"] == {"iris": str(project.path / "data")}


def test_where_to_run_has_to_be_said(cli: kit.Cli) -> None:
    assert "--local" in cli("run", "train.py", expect=2).stderr


def test_no_daemon_is_the_engines_error_and_leaves_nothing(cli: kit.Cli, project: kit.ProjectFolder) -> None:
    done = cli("run", "--local", "--image", "himl:1", "true", expect=69)
    assert "no Docker daemon" in done.stderr
    assert list(project.path.iterdir()) == []


def test_a_run_imports_nothing_heavy() -> None:
    code = (
        "import sys, himl_container.cli.run, himl_container.launch.request, himl_container.launch.execution\n"
        "import himl_container.launch.docker_containers\n"
        "print([name for name in ('docker', 'requests', 'rattler', 'jinja2', 'yaml', 'rich', 'pathspec', 'http.client',"
        " 'ssl', 'azureml', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

"""The pipelines of docs/ci.md: valid, and made of commands, flags, settings and outputs that exist."""

from __future__ import annotations

import re
import shlex
from typing import Any

import click
import pytest
import yaml
from kit import ROOT

from himl_container.cli.main import cli
from himl_container.settings import _OTHER_VARIABLES, _parsers

TEXT = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n# (\S+)\n(.*?)```", TEXT, re.DOTALL)
WORKFLOWS = [(name, yaml.safe_load(text)) for name, text in BLOCKS if ".github" in name]
OUTPUTS = {"image", "digest", "fingerprint", "built"}
BY_PIPELINE = {"registry-user", "registry-password", "registry-host"}


def commands() -> list[list[str]]:
    """Every ``himl-container ...`` in a block of code, up to what ends a command of a shell."""
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", TEXT, re.DOTALL)) + "\n".join(re.findall(r"`([^`\n]+)`", TEXT))
    found = re.findall(r"(?:^|[ $(])himl-container ((?:[a-z]+ ?)(?:[^)\n\"]|\"\")*)", blocks, re.MULTILINE)
    return [shlex.split(text) for text in found if not text.startswith("build and")]


def test_there_are_pipelines_for_both_systems() -> None:
    names = [name for name, _ in BLOCKS]
    assert names == [".github/workflows/image.yml", ".github/workflows/image-azure.yml", "azure-pipelines.yml"]
    assert len(BLOCKS) == TEXT.count("```yaml")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_and_flags_exist(words: list[str]) -> None:
    context = click.Context(cli)
    group: click.Command = cli
    rest = list(words)
    while isinstance(group, click.Group):
        found = group.get_command(context, rest.pop(0))
        assert found is not None, words
        group = found
    known = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in rest if word.startswith("-")} <= known


def test_variables_are_settings() -> None:
    known = {*_parsers({}), *_OTHER_VARIABLES, *BY_PIPELINE}
    used = {name.lower().replace("_", "-") for name in re.findall(r"HIML_CONTAINER_([A-Z_]+)", TEXT)}
    assert used <= known


@pytest.mark.parametrize("workflow", [workflow for _, workflow in WORKFLOWS], ids=[name for name, _ in WORKFLOWS])
def test_workflow_uses_outputs_of_steps_and_jobs_that_are_there(workflow: dict[Any, Any]) -> None:
    assert workflow[True], "the key 'on', which YAML 1.1 reads as a truth value"
    for job_name, job in workflow["jobs"].items():
        steps = job["steps"]
        assert all(("run" in step) != ("uses" in step) for step in steps)
        assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
        given = {step["id"]: step["run"] for step in steps if "id" in step}
        for step, output in re.findall(r"steps\.(\w+)\.outputs\.(\w+)", str(job)):
            assert output in OUTPUTS if "build" in given[step] else f'echo "{output}=' in given[step]
        for needed, output in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", str(job)):
            assert needed == job["needs"], job_name
            assert output in workflow["jobs"][needed]["outputs"]


def test_azure_pipeline_uses_outputs_of_tasks_that_are_there() -> None:
    pipeline = yaml.safe_load(dict(BLOCKS)["azure-pipelines.yml"])
    jobs = {job["job"]: job for stage in pipeline["stages"] for job in stage["jobs"]}
    used = re.findall(r"dependencies\.(\w+)\.outputs\['(\w+)\.(\w+)'\]", str(jobs["Use"]))
    assert len(used) == 2
    for job, task, output in used:
        assert jobs["Use"]["dependsOn"] == job
        named = next(step for step in jobs[job]["steps"] if step.get("name") == task)
        assert "himl-container build" in named["inputs"]["inlineScript"]
        assert output in OUTPUTS


def test_exit_codes_are_those_of_the_errors() -> None:
    from himl_container import errors

    codes = {
        error.exit_code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "exit_code")
    }
    assert {int(code) for code in re.findall(r"^\| (\d\d) \|", TEXT, re.MULTILINE)} <= codes

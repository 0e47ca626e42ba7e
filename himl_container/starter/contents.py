"""The text of each file that a new project gets. Nothing here touches the disk."""

from __future__ import annotations

import json
import re

ENVIRONMENT = """\
# The packages of this project. 'himl-container lock' pins all of them; commit both files.
name: "{name}"
channels:
  - conda-forge
dependencies:
  - python={python}
  # - numpy=2.2
  # - pip:
  #     - a-package-from-pypi==1.0
"""

SAMPLE = '''\
"""Estimate pi with random darts: one script that runs alike here, in its image, and in Azure Machine Learning.

    python {script}
    himl-container run --local {script} --darts 1000000
    himl-container submit --azureml --cluster NAME {script} --darts 1000000
"""

import argparse
import json
import random
from pathlib import Path


def estimate_pi(darts: int, seed: int) -> float:
    """Throw darts at a square, and count those that hit the quarter of a circle in it."""
    random_numbers = random.Random(seed)
    hits = sum(random_numbers.random() ** 2 + random_numbers.random() ** 2 <= 1 for _ in range(darts))
    return 4 * hits / darts


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimate pi with random darts.")
    parser.add_argument("--darts", type=int, default=100_000, help="how many to throw")
    parser.add_argument("--seed", type=int, default=1, help="start of the random numbers")
    arguments = parser.parse_args()

    pi = estimate_pi(arguments.darts, arguments.seed)
    print(f"pi is about {{pi:.4f}}, after {{arguments.darts}} darts")

    # What is written to outputs/ is kept: in the run's folder here, with the run in Azure Machine Learning.
    outputs = Path("outputs")
    outputs.mkdir(exist_ok=True)
    result = {{"pi": pi, "darts": arguments.darts, "seed": arguments.seed}}
    (outputs / "result.json").write_text(json.dumps(result, indent=2) + "\\n", encoding="utf-8")


if __name__ == "__main__":
    main()
'''

SETTINGS = """\
[tool.himl-container]
conda-files = [{environment}]
# wheels = ["dist/mylib-1.0-py3-none-any.whl"]   # private packages
# test = ["python -c 'import mylib'"]            # must succeed in the image before it is used
# registry = "myteam.azurecr.io"                 # where images are pushed; 'submit' takes the workspace's own without

[tool.himl-container.run]
# cluster = "gpu-cluster"                        # of your AzureML workspace
# experiment = "my-experiment"
# shm-size = "8g"
"""

IGNORED = """\
# What stays behind when the folder is copied for a run, here and in Azure Machine Learning. Git's rules.
# Where this file is, .gitignore has no say.
.git/
.venv/
.mypy_cache/
.pytest_cache/
.ruff_cache/
.ipynb_checkpoints/
__pycache__/
runs/
outputs/
logs/
data/
"""

_FROM_GIT = "\n# From .gitignore, as it was when this file was made:\n"


def environment(name: str, python: str) -> str:
    """Return an environment file.

    :param name: any text; what is not a letter, a digit or one of ``._-`` is replaced.
    :param python: a version such as ``3.11``.
    """
    return ENVIRONMENT.format(name=environment_name(name), python=python)


def environment_name(text: str) -> str:
    """Return a name that Conda takes for an environment, made from a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "project"


def sample(script: str) -> str:
    """Return the sample script, whose own text names it."""
    return SAMPLE.format(script=script)


def settings(environment_file: str) -> str:
    """Return our table of ``pyproject.toml``."""
    # A JSON string of printable text is a TOML basic string.
    return SETTINGS.format(environment=json.dumps(environment_file))


def settings_added(existing: str, environment_file: str) -> str:
    """Return a ``pyproject.toml`` that has no table of ours with one at its end."""
    return (
        existing.rstrip("\n") + "\n\n" + settings(environment_file) if existing.strip() else settings(environment_file)
    )


def ignored(gitignore: str) -> str:
    """Return an ``.amlignore``; it takes over what ``.gitignore`` says, which would lose its say."""
    return IGNORED + (_FROM_GIT + gitignore.rstrip("\n") + "\n" if gitignore.strip() else "")

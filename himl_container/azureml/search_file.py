"""The file of a hyperparameter search (``submit --search FILE.yml``).

::

    sampling: random              # or grid, bayesian
    parameters:
      --kernel: [linear, rbf]                 # a list: one of these
      --penalty: {uniform: [0.5, 1.5]}
      --layers: {randint: 4}                  # 0 to 3
    metric: Accuracy
    goal: maximize                # or minimize
    max_total_runs: 12
    max_concurrent_runs: 4
    max_duration: 2h
    early_termination:
      bandit: {slack_factor: 0.1, evaluation_interval: 2, delay_evaluation: 5}

Names, bounds and what goes with what are HyperDrive's own (``azureml/train/hyperdrive`` of the SDK). All is checked
here, with file and line, before anything is built: HyperDrive itself would say it after the image was pushed, or never.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from himl_container.azureml.search import MAX_MINUTES, EarlyTermination, Parameter, Scalar, Search
from himl_container.environment.yamlfile import YamlFile, read_yaml
from himl_container.errors import InputError
from himl_container.launch.parse import parse_duration

if TYPE_CHECKING:
    import yaml

SAMPLINGS = ("random", "grid", "bayesian")
MAX_RUNS = 1000

_DISTRIBUTIONS = {
    "uniform": ("low", "high"),
    "quniform": ("low", "high", "step"),
    "loguniform": ("low", "high"),
    "qloguniform": ("low", "high", "step"),
    "normal": ("mean", "deviation"),
    "qnormal": ("mean", "deviation", "step"),
    "lognormal": ("mean", "deviation"),
    "qlognormal": ("mean", "deviation", "step"),
    "randint": ("upper",),
}
_ALLOWED = {"grid": ("choice",), "bayesian": ("choice", "uniform", "quniform")}
_POLICIES = {
    "bandit": ("slack_factor", "slack_amount", "evaluation_interval", "delay_evaluation"),
    "median": ("evaluation_interval", "delay_evaluation"),
    "truncation": ("percentage", "evaluation_interval", "delay_evaluation"),
}
_KEYS = (
    *("sampling", "parameters", "metric", "goal", "max_total_runs", "max_concurrent_runs", "max_duration"),
    "early_termination",
)
_REQUIRED = ("parameters", "metric", "goal", "max_total_runs")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
"""What people mean as a number and YAML 1.1 takes for text: ``1e-3``, without a point or a sign."""

_HINT = "docs/hyperparameter-search.md has an example of a search file."


def read_search(path: Path) -> Search:
    """Read the file of a search.

    :raises InputError: it cannot be read, or says something that HyperDrive cannot do; names the file and the line.
    """
    try:
        file = read_yaml(path, platform="linux-64", hint=_HINT)
    except InputError as error:
        raise InputError(error.what, where=error.where, hint=_HINT) from error
    return _Reader(file).search()


class _Reader:
    """Reads one file."""

    def __init__(self, file: YamlFile) -> None:
        self._file = file

    def search(self) -> Search:
        nodes: dict[str, yaml.Node] = {}
        for name, key, node in self._file.pairs(self._file.root, "the search"):
            if name not in _KEYS:
                raise self._file.error(key, f"unknown key {name!r}", f"Known keys: {', '.join(_KEYS)}.")
            nodes[name] = node
        for name in _REQUIRED:
            if name not in nodes:
                raise InputError(f"has no {name!r}", where=str(self._file.path), hint=_HINT)
        sampling = self._one_of(nodes["sampling"], "sampling", SAMPLINGS) if "sampling" in nodes else "random"
        total = self._whole(nodes["max_total_runs"], "max_total_runs", 1, MAX_RUNS)
        concurrent = None
        if "max_concurrent_runs" in nodes:
            concurrent = self._whole(nodes["max_concurrent_runs"], "max_concurrent_runs", 1, total)
        early = self._early(nodes["early_termination"]) if "early_termination" in nodes else None
        if early is not None and sampling == "bayesian":
            what = "bayesian sampling learns from whole runs, and takes no early termination"
            raise self._file.error(nodes["early_termination"], what)
        metric = self._file.string(nodes["metric"], "metric").strip()
        if not metric:
            raise self._file.error(nodes["metric"], "metric is empty", "Name what the script logs: run.log(NAME, ...).")
        return Search(
            self._parameters(nodes["parameters"], sampling),
            metric,
            self._one_of(nodes["goal"], "goal", ("maximize", "minimize")),
            total,
            sampling,
            concurrent,
            self._minutes(nodes["max_duration"]) if "max_duration" in nodes else MAX_MINUTES,
            early,
        )

    def _parameters(self, node: yaml.Node, sampling: str) -> tuple[Parameter, ...]:
        found: list[Parameter] = []
        for name, key, value in self._file.pairs(node, "parameters"):
            if name.lstrip("-") in {other.name.lstrip("-") for other in found}:
                raise self._file.error(key, f"{name!r} is there twice, with and without hyphens")
            if not name.strip("-") or any(sign.isspace() or not sign.isprintable() for sign in name):
                raise self._file.error(key, f"{name!r} cannot be the name of a parameter")
            parameter = self._parameter(name, value)
            allowed = _ALLOWED.get(sampling)
            if allowed is not None and parameter.distribution not in allowed:
                what = f"{sampling} sampling cannot draw from {parameter.distribution!r}"
                raise self._file.error(value, what, f"It takes {', '.join(allowed)}.")
            if sampling == "bayesian" and parameter.distribution == "quniform":
                self._check_bayesian(value, parameter)
            found.append(parameter)
        if not found:
            raise self._file.error(node, "there are no parameters", _HINT)
        return tuple(found)

    def _check_bayesian(self, node: yaml.Node, parameter: Parameter) -> None:
        if not all(isinstance(value, int) for value in parameter.values):
            raise self._file.error(node, "bayesian sampling takes whole numbers in quniform")

    def _parameter(self, name: str, node: yaml.Node) -> Parameter:
        import yaml

        if isinstance(node, yaml.SequenceNode):
            return Parameter(name, "choice", self._choice(node))
        pairs = list(self._file.pairs(node, f"the parameter {name!r}"))
        if len(pairs) != 1:
            known = ", ".join(("choice", *_DISTRIBUTIONS))
            raise self._file.error(node, f"{name!r} needs a list, or one distribution", f"Known: {known}.")
        (distribution, key, values) = pairs[0]
        if distribution == "choice":
            return Parameter(name, "choice", self._choice(values))
        if distribution not in _DISTRIBUTIONS:
            known = ", ".join(("choice", *_DISTRIBUTIONS))
            raise self._file.error(key, f"there is no distribution {distribution!r}", f"Known: {known}.")
        return Parameter(name, distribution, self._numbers(values, distribution))

    def _choice(self, node: yaml.Node) -> tuple[Scalar, ...]:
        values = tuple(self._scalar(item) for item in self._file.items(node, "choice"))
        if not values:
            raise self._file.error(node, "there is nothing to choose from")
        return values

    def _numbers(self, node: yaml.Node, distribution: str) -> tuple[Scalar, ...]:
        import yaml

        names = _DISTRIBUTIONS[distribution]
        nodes = list(self._file.items(node, distribution)) if isinstance(node, yaml.SequenceNode) else [node]
        if len(nodes) != len(names):
            count = {1: "one number", 2: "two numbers", 3: "three numbers"}[len(names)]
            raise self._file.error(node, f"{distribution} takes {count}: {', '.join(names)}")
        values = dict(zip(names, (self._number(item, distribution) for item in nodes), strict=True))
        if "low" in values and values["low"] >= values["high"]:
            raise self._file.error(node, f"{distribution}: the low end is not below the high end")
        for name in ("deviation", "step", "upper"):
            if name in values and values[name] <= 0:
                raise self._file.error(node, f"{distribution}: the {name} is not above zero")
        if distribution == "randint" and not isinstance(values["upper"], int):
            raise self._file.error(node, "randint takes a whole number")
        return tuple(values.values())

    def _early(self, node: yaml.Node) -> EarlyTermination:
        pairs = list(self._file.pairs(node, "early_termination"))
        if len(pairs) != 1 or pairs[0][0] not in _POLICIES:
            raise self._file.error(node, "early_termination needs one policy", f"Known: {', '.join(_POLICIES)}.")
        policy, _key, given = pairs[0]
        settings: dict[str, float] = {}
        for name, key, value in self._file.pairs(given, policy):
            if name not in _POLICIES[policy]:
                raise self._file.error(key, f"{policy} has no {name!r}", f"Known: {', '.join(_POLICIES[policy])}.")
            if name.startswith("slack"):
                settings[name] = self._above_zero(value, name)
            elif name == "percentage":
                settings[name] = self._whole(value, name, 1, 99)
            else:
                settings[name] = self._whole(value, name, 0 if name == "delay_evaluation" else 1, 1_000_000)
        if policy == "bandit" and ("slack_factor" in settings) == ("slack_amount" in settings):
            raise self._file.error(node, "bandit needs either slack_factor or slack_amount")
        if policy == "truncation" and "percentage" not in settings:
            raise self._file.error(node, "truncation needs the percentage of runs to end, 1 to 99")
        return EarlyTermination(policy, tuple(settings.items()))

    def _minutes(self, node: yaml.Node) -> int:
        text = self._file.string(node, "max_duration", numbers=True)
        minutes = math.ceil(parse_duration(text, str(self._file.origin(node))) / 60)
        if minutes > MAX_MINUTES:
            raise self._file.error(node, f"a search lasts at most {MAX_MINUTES // 1440} days")
        return minutes

    def _one_of(self, node: yaml.Node, name: str, words: tuple[str, ...]) -> str:
        text = self._file.string(node, name).strip().lower()
        if text not in words:
            raise self._file.error(node, f"{name} cannot be {text!r}", f"Choose {', '.join(words)}.")
        return text

    def _above_zero(self, node: yaml.Node, name: str) -> float:
        value = self._number(node, name)
        if value <= 0:
            raise self._file.error(node, f"{name} is not above zero")
        return value

    def _whole(self, node: yaml.Node, name: str, low: int, high: int) -> int:
        value = self._scalar(node)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._file.error(node, f"{name} is not a whole number between {low} and {high}")
        return value

    def _number(self, node: yaml.Node, name: str) -> float:
        value = self._scalar(node)
        if isinstance(value, (str, bool)) or not math.isfinite(value):
            raise self._file.error(node, f"{name}: {value!r} is not a number")
        return value

    def _scalar(self, node: yaml.Node) -> Scalar:
        """Return a value as YAML reads it: text, a number, or true and false. ``1e-3`` is a number too."""
        import yaml

        if not isinstance(node, yaml.ScalarNode):
            raise self._file.error(node, "this must be one value")
        kind = node.tag.rsplit(":", 1)[-1]
        text = str(node.value)
        try:
            if kind == "int":
                return int(text.replace("_", ""), 0)
            if kind == "bool":
                return text.lower() in ("true", "yes", "on")
            if kind == "float" or (node.style is None and _NUMBER.fullmatch(text)):
                value = float(text.replace("_", ""))
                if math.isfinite(value):
                    return value
        except ValueError:
            pass
        if kind == "null":
            raise self._file.error(node, "a value is missing here")
        return text

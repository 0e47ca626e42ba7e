"""Reading a run configuration as the SDK submits it (``Configuration`` of ``snapshotrun``).

Its names are those of the SDK's ``core/runconfig.py``. ``ScriptRunConfig`` writes them as ``nodeCount``, a run
configuration that was read from a file as ``node_count``; the service takes both, so :func:`value` finds both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from himl_container.emulator.compute.model import Definition
from himl_container.emulator.http import Refusal
from himl_container.errors import InputError
from himl_container.launch.parse import check_variable, is_text, parse_size
from himl_container.launch.spec import DEFAULT_SHM_SIZE, MAX_NODES

Launcher = Literal["mpi", "pytorch", "tensorflow"]

MAX_PROCESSES = 64
"""Processes of one node; each is a container here."""

_NO_SERVERS = "TensorFlow's parameter servers are not started here; the workers are."
_FAMILY = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class JobRequest:
    """What a run configuration asks of the compute; images and data are read by those who bring them.

    :param script: path below the snapshot; empty where there is a command.
    :param command: one line for a shell; empty where there is a script.
    :param environment: pairs of name and value, sorted by name; those of the run win over those of the environment.
    :param processes: of each node.
    :param launcher: who starts the processes of several, and so which variables they find.
    :param memory: limit of each container in bytes; 0 for none.
    :param max_duration: seconds; None for no limit.
    :param priority: a higher one is started first.
    :param ignored: what was asked for and is not done here, one sentence each, for the log.
    """

    target: str
    script: str = ""
    command: str = ""
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    nodes: int = 1
    processes: int = 1
    launcher: Launcher = "mpi"
    shm_size: int = DEFAULT_SHM_SIZE
    memory: int = 0
    max_duration: float | None = None
    priority: int = 0
    ignored: tuple[str, ...] = field(default=())


def value(document: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """Return a field of a configuration by its name in any spelling (``nodeCount``, ``node_count``, ``NodeCount``).

    A field that is null counts as missing.
    """
    found = document.get(name)
    if found is None:
        wanted = _plain(name)
        found = next((item for key, item in document.items() if item is not None and _plain(key) == wanted), None)
    return default if found is None else found


def section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object of a configuration; empty where it is missing.

    :raises Refusal: 400, it is something else.
    """
    found = value(document, name, {})
    if not isinstance(found, Mapping):
        raise _bad(f"{name} is not an object")
    return found


def read_definition(definition: Definition) -> JobRequest:
    """Read a run configuration.

    :raises Refusal: 400, it is not one, or asks for what no compute can do.
    """
    script, command = _text(definition, "script"), value(definition, "command", "")
    if isinstance(command, list):
        command = " ".join(_word(item) for item in command)
    if not isinstance(command, str) or not is_text(command):
        raise _bad("command is neither text nor a list of text")
    if not script and not command.strip():
        raise _bad("there is neither a script nor a command")
    if script:
        _check_path(script)
    nodes, processes, launcher = _processes(definition)
    docker = _Docker(definition)
    return JobRequest(
        target=_text(definition, "target"),
        script="" if command.strip() else script,
        command=command if command.strip() else "",
        arguments=_words(value(definition, "arguments", []), "arguments"),
        environment=_environment(definition, docker.environment),
        nodes=nodes,
        processes=processes,
        launcher=launcher,
        shm_size=docker.shm_size,
        memory=docker.memory,
        max_duration=_duration(definition),
        priority=_number(definition, "priority", 0, -1_000_000, 1_000_000),
        ignored=(*docker.ignored, *([_NO_SERVERS] if launcher == "tensorflow" else [])),
    )


class _Docker:
    """``docker`` of the run, else of the environment: what of it is done here."""

    def __init__(self, definition: Definition) -> None:
        own, inherited = section(definition, "docker"), section(section(definition, "environment"), "docker")
        self.shm_size, self.memory = DEFAULT_SHM_SIZE, 0
        self.environment: dict[str, str] = {}
        self.ignored: list[str] = []
        size = value(own, "shmSize") or value(inherited, "shmSize")
        if size:
            self.shm_size = _size(size, "docker.shmSize")
        words = list(_words(value(own, "arguments") or value(inherited, "arguments") or [], "docker.arguments"))
        while words:
            self._take(words)

    def _take(self, words: list[str]) -> None:
        """Take one option of ``docker run`` off a list: what changes nothing but the job itself is done."""
        whole = words.pop(0)
        name, equals, text = whole.partition("=")
        if name in ("--shm-size", "-m", "--memory", "-e", "--env"):
            if not equals:
                if not words:
                    raise _bad(f"docker.arguments: {name} has no value")
                text = words.pop(0)
            if name == "--shm-size":
                self.shm_size = _size(text, f"docker.arguments: {name}")
            elif name in ("-m", "--memory"):
                self.memory = _size(text, f"docker.arguments: {name}")
            else:
                key, given, content = text.partition("=")
                if given:  # without a value, Docker would take that of the host, which is none of the job's business
                    self.environment[key] = content
            return
        if whole.startswith("-") and not equals and words and not words[0].startswith("-"):
            whole += f" {words.pop(0)}"
        self.ignored.append(f"The Docker argument {whole!r} is not taken over here.")


def _processes(definition: Definition) -> tuple[int, int, Launcher]:
    nodes = _number(definition, "nodeCount", 1, 1, MAX_NODES)
    framework = _FAMILY.sub("", _text(definition, "framework")).lower()
    communicator = _FAMILY.sub("", _text(definition, "communicator")).lower()
    if framework == "pytorch":
        torch = section(definition, "pytorch")
        total = _number(torch, "processCount", nodes, 1, MAX_NODES * MAX_PROCESSES)
        if total % nodes:
            raise _bad(f"{total} processes cannot be divided among {nodes} nodes")
        return nodes, _in_range(total // nodes, "processes of a node", 1, MAX_PROCESSES), "pytorch"
    if framework == "tensorflow" and communicator == "parameterserver":
        tensorflow = section(definition, "tensorflow")
        return _number(tensorflow, "workerCount", nodes, 1, MAX_NODES), 1, "tensorflow"
    if communicator.endswith("mpi"):
        mpi = section(definition, "mpi")
        return nodes, _number(mpi, "processCountPerNode", 1, 1, MAX_PROCESSES), "mpi"
    return nodes, 1, "mpi"


def _environment(definition: Definition, docker: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    inherited = section(section(definition, "environment"), "environmentVariables")
    pairs = {**inherited, **docker, **section(definition, "environmentVariables")}
    found: dict[str, str] = {}
    for name, item in pairs.items():
        text = "" if item is None else _word(item)
        try:
            check_variable(str(name), text, "environmentVariables")
        except InputError as error:
            raise _bad(str(error)) from None
        found[str(name)] = text
    return tuple(sorted(found.items()))


def _duration(definition: Definition) -> float | None:
    seconds = _number(definition, "maxRunDurationSeconds", 0, 0, 10**9)
    return float(seconds) if seconds else None


def _words(items: object, name: str) -> tuple[str, ...]:
    if not isinstance(items, Iterable) or isinstance(items, str | bytes | Mapping):
        raise _bad(f"{name} is not a list")
    return tuple(_word(item) for item in items)


def _word(item: object) -> str:
    """Return one argument as text: the SDK sends numbers and booleans as they are, and Azure writes ``True``."""
    if isinstance(item, Mapping | list):
        raise _bad("an argument is neither text nor a number")
    text = str(item)
    if not is_text(text):
        raise _bad("an argument holds a NUL byte or is not UTF-8")
    return text


def _text(document: Mapping[str, Any], name: str) -> str:
    found = value(document, name, "")
    if not isinstance(found, str) or not is_text(found):
        raise _bad(f"{name} is not text")
    return found


def _number(document: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    found = value(document, name, default)
    if isinstance(found, bool) or not isinstance(found, int):
        raise _bad(f"{name} is not a whole number")
    return _in_range(found, name, low, high)


def _in_range(number: int, name: str, low: int, high: int) -> int:
    if not low <= number <= high:
        raise _bad(f"{name} is {number}, which is not between {low} and {high}")
    return number


def _size(text: object, where: str) -> int:
    try:
        return parse_size(str(text), where)
    except InputError as error:
        raise _bad(str(error)) from None


def _check_path(path: str) -> None:
    parts = path.replace("\\", "/").split("/")
    if path.startswith("/") or ".." in parts or len(path) > 1000:
        raise _bad(f"{path!r} is not a path below the snapshot")


def _plain(name: object) -> str:
    return str(name).replace("_", "").lower()


def _bad(text: str) -> Refusal:
    return Refusal(400, "UserError", f"The run configuration cannot be used: {text}.")

"""A daemon that does what a test tells it to, in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from himl_container.errors import EngineError, HimlError
from himl_container.launch.containers import Channel, ContainerConfig, Ended, EngineFacts, ImageFacts, Session

IMAGE_ID = "sha256:" + "1" * 64


@dataclass
class Script:
    """What the script of a container does.

    :param exit_code: with which it ends by itself; None for a script that runs until it is told to end.
    :param on: exit code for a signal; a signal that is not named is ignored.
    :param first: called when it starts; may write files of this machine.
    """

    output: tuple[tuple[Channel, bytes], ...] = ()
    exit_code: int | None = 0
    on: Mapping[str, int] = field(default_factory=lambda: {"SIGKILL": 137})
    oom_killed: bool = False
    first: Callable[[ContainerConfig], None] = lambda config: None


class FakeContainers:
    """Implements Containers.

    :param scripts: by the order in which containers are created; the last one serves all further ones.
    :param faults: method name -> error that it raises.
    """

    def __init__(self, *scripts: Script, gpus: bool = False, rootless: bool = False) -> None:
        self.scripts = list(scripts) or [Script()]
        self.faults: dict[str, HimlError] = {}
        self.made: list[ContainerConfig] = []
        self.alive: dict[str, FakeSession] = {}
        self.networks: set[str] = set()
        self.signals: list[tuple[str, str]] = []
        self.started = threading.Event()
        self._facts = EngineFacts(gpus=gpus, rootless=rootless)

    def image(self, reference: str) -> ImageFacts | None:
        self._fault("image")
        return None if reference == "missing:1" else ImageFacts(IMAGE_ID, ())

    def facts(self) -> EngineFacts:
        self._fault("facts")
        return self._facts

    def create(self, config: ContainerConfig) -> None:
        self._fault("create")
        script = self.scripts[min(len(self.made), len(self.scripts) - 1)]
        self.made.append(config)
        self.alive[config.name] = FakeSession(config, script)

    def open(self, name: str, *, tty: bool = False) -> Session:
        self._fault("open")
        return self.alive[name]

    def start(self, name: str) -> None:
        self._fault("start")
        self.alive[name].start()
        self.started.set()

    def signal(self, name: str, signal: str) -> None:
        self.signals.append((name, signal))
        self._fault("signal")
        if self.alive[name].signal(signal):
            self.carried(name)

    @staticmethod
    def carried(name: str) -> None:
        """Wait until the end of a container was noticed, so that no test depends on who is quicker."""
        for thread in threading.enumerate():
            if thread.name == f"output of {name}":
                thread.join(60)
                assert not thread.is_alive(), "the end of a container is not noticed"

    def resize(self, name: str, rows: int, columns: int) -> None:
        pass

    def remove(self, name: str) -> None:
        self._fault("remove")
        session = self.alive.pop(name, None)
        if session is not None:
            session.finish(137)

    def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        self._fault("create_network")
        self.networks.add(name)

    def remove_network(self, name: str) -> None:
        self.networks.discard(name)

    def die(self) -> None:
        """The daemon goes away while containers run."""
        gone = EngineError("the Docker daemon went away")
        self.faults.update(dict.fromkeys(("signal", "remove", "facts", "create"), gone))
        for session in self.alive.values():
            session.lose(gone)

    def _fault(self, name: str) -> None:
        if name in self.faults:
            raise self.faults[name]


class FakeSession:
    """A container, and the connection to it."""

    def __init__(self, config: ContainerConfig, script: Script) -> None:
        self.config, self.script = config, script
        self._done = threading.Event()
        self._code = 0
        self._lost: HimlError | None = None

    def start(self) -> None:
        self.script.first(self.config)
        if self.script.exit_code is not None:
            self.finish(self.script.exit_code)

    def signal(self, signal: str) -> bool:
        """Return whether that ends it."""
        if signal in self.script.on:
            self.finish(self.script.on[signal])
        return signal in self.script.on

    def finish(self, code: int) -> None:
        if not self._done.is_set():
            self._code = code
            self._done.set()

    def lose(self, error: HimlError) -> None:
        self._lost = error
        self._done.set()

    def output(self) -> Iterator[tuple[Channel, bytes]]:
        self._done.wait(30) if self.script.exit_code is not None else None
        yield from self.script.output
        assert self._done.wait(30), "nobody ended the container"

    def send(self, data: bytes) -> None:
        pass

    def ended(self) -> Ended:
        if self._lost is not None:
            raise self._lost
        return Ended(self._code, self.script.oom_killed)

    def close(self) -> None:
        self.finish(137)


@dataclass
class Told:
    """A reporter that remembers."""

    infos: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def step(self, *_args: object, **_values: object) -> object:
        raise AssertionError("a run has no steps")

    def info(self, text: str) -> None:
        self.infos.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

"""Containers of a real Docker daemon, through the Engine API (https://docs.docker.com/reference/api/engine/)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from himl_container.errors import EngineError, LaunchError
from himl_container.image.docker_http import Answer, DockerHttp, Stream, segment
from himl_container.image.endpoint import Endpoint
from himl_container.launch.containers import (
    Channel,
    ContainerConfig,
    Ended,
    EngineFacts,
    ImageFacts,
    Session,
    Signal,
)

_FRAME_HEADER = 8
_READ_SIZE = 1 << 16
_CONTAINERD_STORE = ["driver-type", "io.containerd.snapshotter.v1"]


class DockerContainers:
    """See :class:`himl_container.launch.containers.Containers`."""

    def __init__(self, endpoint: Endpoint) -> None:
        if endpoint.url.startswith("ssh://"):
            raise EngineError(
                "runs cannot go through ssh: they mount folders of this machine",
                where=str(endpoint),
                hint="Use a daemon on this machine ('docker context use default').",
            )
        self._http = DockerHttp(endpoint)

    def image(self, reference: str) -> ImageFacts | None:
        """Return the image of a name or id; None when there is none."""
        answer = self._http.request("GET", f"/images/{segment(reference)}/json")
        if answer.status == 404:
            return None
        value = self._checked(answer, f"look up {reference!r}").json()
        labels = (value.get("Config") or {}).get("Labels") or {}
        return ImageFacts(value["Id"], tuple(value.get("RepoDigests") or ()), labels)

    def facts(self) -> EngineFacts:
        """Return what the daemon can do."""
        value = self._checked(self._http.request("GET", "/info"), "describe itself").json()
        options = value.get("SecurityOptions") or ()
        return EngineFacts(
            gpus="nvidia" in (value.get("Runtimes") or {}),
            rootless=any("name=rootless" in option for option in options),
            containerd_store=_CONTAINERD_STORE in (value.get("DriverStatus") or ()),
        )

    def create(self, config: ContainerConfig) -> None:
        """Create a container."""
        answer = self._http.request("POST", "/containers/create", query={"name": config.name}, body=_body(config))
        if answer.status != 201:
            raise _refusal(answer, f"the Docker daemon refused the container: {answer.message}")

    def open(self, name: str, *, tty: bool = False) -> Session:
        """Connect to a created container, for its output and its end."""
        base = f"/containers/{segment(name)}"
        query = {"stream": 1, "stdout": 1, "stderr": 1, "stdin": int(tty)}
        output = self._http.stream("POST", f"{base}/attach", query=query)
        try:
            self._checked_stream(output, "attach to the container")
            end = self._http.stream("POST", f"{base}/wait", query={"condition": "next-exit"})
            self._checked_stream(end, "wait for the container")
        except BaseException:
            output.close()
            raise
        return _DockerSession(self, name, output, end, tty)

    def start(self, name: str) -> None:
        """Start a created container."""
        answer = self._http.request("POST", f"/containers/{segment(name)}/start")
        if answer.status not in (204, 304):
            raise _refusal(answer, _why_not_started(answer.message))

    def signal(self, name: str, signal: Signal) -> None:
        """Send a signal to the main process; a container that is not there or not running is none's fault."""
        answer = self._http.request("POST", f"/containers/{segment(name)}/kill", query={"signal": signal})
        if answer.status not in (204, 404, 409):
            raise EngineError(f"the Docker daemon could not send {signal}: {answer.message}")

    def resize(self, name: str, rows: int, columns: int) -> None:
        """Tell a container's terminal its size; one that has just ended has none."""
        self._http.request("POST", f"/containers/{segment(name)}/resize", query={"h": rows, "w": columns})

    def remove(self, name: str) -> None:
        """Kill and remove a container, and its anonymous volumes."""
        answer = self._http.request("DELETE", f"/containers/{segment(name)}", query={"force": 1, "v": 1})
        if answer.status not in (204, 404, 409):  # 409: another request is removing it
            raise EngineError(f"the Docker daemon could not remove the container {name}: {answer.message}")

    def create_network(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a private network."""
        body = {"Name": name, "CheckDuplicate": True, "Driver": "bridge", "Labels": dict(labels)}
        answer = self._http.request("POST", "/networks/create", body=body)
        if answer.status != 201:
            raise _refusal(answer, f"the Docker daemon refused a network for the nodes: {answer.message}")

    def remove_network(self, name: str) -> None:
        """Remove a network."""
        answer = self._http.request("DELETE", f"/networks/{segment(name)}")
        if answer.status not in (204, 404):
            raise EngineError(f"the Docker daemon could not remove the network {name}: {answer.message}")

    def labelled(self, label: str, value: str) -> Mapping[str, Mapping[str, str]]:
        """Return the labels of the containers that have a label of this value, by container name."""
        query = {"all": 1, "filters": json.dumps({"label": [f"{label}={value}"]})}
        answer = self._http.request("GET", "/containers/json", query=query)
        found = self._checked(answer, f"list containers with the label {label}={value}").json()
        return {item["Names"][0].lstrip("/"): item.get("Labels") or {} for item in found if item.get("Names")}

    def oom_killed(self, name: str) -> bool:
        """Tell whether the kernel killed a process of an ended container because its memory ran out."""
        answer = self._http.request("GET", f"/containers/{segment(name)}/json")
        return answer.status == 200 and bool(answer.json()["State"].get("OOMKilled"))

    def _checked(self, answer: Answer, what: str) -> Answer:
        if answer.status != 200:
            raise EngineError(f"the Docker daemon refused to {what}: {answer.message}", where=str(self._http.endpoint))
        return answer

    def _checked_stream(self, stream: Stream, what: str) -> None:
        if stream.status not in (101, 200):
            answer = Answer(stream.status, stream.read_all())
            stream.close()
            self._checked(answer, what)


class _DockerSession:
    """See :class:`himl_container.launch.containers.Session`."""

    def __init__(self, engine: DockerContainers, name: str, output: Stream, end: Stream, tty: bool) -> None:
        self._engine, self._name, self._output, self._end, self._tty = engine, name, output, end, tty

    def output(self) -> Iterator[tuple[Channel, bytes]]:
        """Yield the container's output. A terminal has one channel; else each piece has a header that names it."""
        while self._tty:
            data = self._output.read_some(_READ_SIZE)
            if not data:
                return
            yield "stdout", data
        while len(header := self._output.read(_FRAME_HEADER)) == _FRAME_HEADER:
            channel: Channel = "stderr" if header[0] == 2 else "stdout"
            left = int.from_bytes(header[4:], "big")
            while left > 0 and (data := self._output.read(min(left, _READ_SIZE))):
                left -= len(data)
                yield channel, data

    def send(self, data: bytes) -> None:
        """Type into the container's terminal."""
        self._output.send(data)

    def ended(self) -> Ended:
        """Wait for the end, and ask what killed it where it did not end well."""
        try:
            value = json.loads(self._end.read_all())
            code = int(value["StatusCode"])
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError("the Docker daemon went away while the run was going on") from error
        problem = (value.get("Error") or {}).get("Message")
        if problem:
            raise EngineError(f"the Docker daemon lost the container: {problem}")
        return Ended(code, code != 0 and self._engine.oom_killed(self._name))

    def close(self) -> None:
        """Drop both connections."""
        self._output.close()
        self._end.close()


def _body(config: ContainerConfig) -> dict[str, Any]:
    """Return the request that creates a container.

    The image's entry point is replaced: AzureML does not run it either. A small init process passes signals on and
    collects orphans, as the job runtime does there. The daemon keeps no log of its own: the run folder has it.
    """
    host: dict[str, Any] = {
        "Init": True,
        "LogConfig": {"Type": "none"},
        "ShmSize": config.shm_size,
        "Mounts": [
            {"Type": "bind", "Source": str(item.source), "Target": item.target, "ReadOnly": item.read_only}
            for item in config.mounts
        ],
    }
    if config.memory:
        host.update(Memory=config.memory, MemorySwap=config.memory)
    if config.network:
        host["NetworkMode"] = config.network
    if config.ipc:
        host["IpcMode"] = config.ipc
    if config.host_users:
        host["UsernsMode"] = "host"
    if config.gpus != "none":
        count = -1 if config.gpus == "all" else int(config.gpus)
        host["DeviceRequests"] = [{"Driver": "", "Count": count, "Capabilities": [["gpu"]]}]
    return {
        "Image": config.image,
        "Entrypoint": [config.command[0]],
        "Cmd": list(config.command[1:]),
        "Env": [f"{name}={value}" for name, value in config.environment],
        "WorkingDir": config.working_dir,
        "User": config.user,
        "Hostname": config.hostname,
        "Labels": dict(config.labels),
        "Tty": config.tty,
        "OpenStdin": config.tty,
        "StdinOnce": config.tty,
        "AttachStdin": config.tty,
        "AttachStdout": True,
        "AttachStderr": True,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }


def _refusal(answer: Answer, text: str) -> LaunchError | EngineError:
    """Return the error for a refused request; a failure of the daemon itself is not the run's fault."""
    lower = answer.message.lower()
    if "could not select device driver" in lower or "nvidia-container-cli" in lower:
        return LaunchError(
            f"the Docker daemon has no GPU to give: {answer.message}",
            where="--gpus",
            hint="Install the NVIDIA container toolkit, or use '--gpus auto' or '--gpus none'.",
        )
    if "bind source path does not exist" in lower:
        return LaunchError(
            f"the Docker daemon does not see a folder of this machine: {answer.message}",
            hint="The daemon must run on this machine and share its file system.",
        )
    return LaunchError(text)


def _why_not_started(message: str) -> str:
    lower = message.lower()
    if "executable file not found" in lower or "no such file or directory" in lower:
        return f"the image has no such command: {message}"
    if "permission denied" in lower:
        return f"the command is not executable in the image: {message}"
    return f"the Docker daemon could not start the container: {message}"

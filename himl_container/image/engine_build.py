"""Executing a Dockerfile: by ``docker buildx`` (BuildKit) where it is installed, else through the Engine API."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from himl_container.errors import BuildError, EngineError
from himl_container.image.endpoint import config_folder
from himl_container.image.engine_client import RefusedError
from himl_container.progress import Reporter

if TYPE_CHECKING:
    from himl_container.image.engine_client import Client

TAIL_LINES = 30
"""Lines of a failed step's output that the error shows."""

_PLUGIN = "docker-buildx"
_PLUGIN_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
_STEP = re.compile(r"Step \d+/\d+ : ")
_BUILDKIT_STEP = re.compile(r"#\d+ (\[[^\]]*\d+/\d+\] .*)")
_BUILDKIT_OUTPUT = re.compile(r"#\d+ (?:\d+\.\d+ )?(.*)")


@dataclass(frozen=True)
class BuildRequest:
    """What to build; the fields are those of :meth:`himl_container.image.engine.Engine.build`."""

    context: Path
    tag: str
    dockerfile: str
    build_args: dict[str, str]


def run_build(client: Client, request: BuildRequest, *, environ: Mapping[str, str], reporter: Reporter) -> None:
    """Build an image and give it its tag.

    :raises BuildError: a step failed; the error carries the step and the end of its output.
    :raises EngineError: the daemon went away.
    """
    buildx = find_buildx(environ)
    log = _Log()
    with reporter.step("build", request.tag) as task:
        lines = _by_buildx(client, request, buildx, environ, log) if buildx else _by_engine(client, request, log)
        for line in lines:
            task.note(line)


def find_buildx(environ: Mapping[str, str]) -> Path | None:
    """Return the ``docker buildx`` plugin, looked for where the ``docker`` command looks; None where there is none."""
    folder = config_folder(environ)
    folders = [str(folder / "cli-plugins"), *_extra_folders(folder), *_PLUGIN_FOLDERS]
    found = (Path(name) / _PLUGIN for name in folders)
    return next((path for path in found if path.is_file() and os.access(path, os.X_OK)), None)


def _extra_folders(folder: Path) -> list[str]:
    try:
        value = json.loads((folder / "config.json").read_bytes()).get("cliPluginsExtraDirs") or []
    except (OSError, ValueError, AttributeError):
        return []
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


class _Log:
    """The step that is under way and the end of its output."""

    def __init__(self) -> None:
        self.step = ""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def begin(self, step: str) -> None:
        self.step = step
        self.tail.clear()

    def error(self, message: str) -> BuildError:
        text = "\n".join([message, *(f"  {line}" for line in self.tail)])
        return BuildError(f"a step of the Dockerfile failed: {text}", where=self.step)


def _by_buildx(
    client: Client, request: BuildRequest, buildx: Path, environ: Mapping[str, str], log: _Log
) -> Iterator[str]:
    command = [
        str(buildx),
        "build",
        "--load",
        "--progress=plain",
        f"--tag={request.tag}",
        f"--file={request.context / request.dockerfile}",
        *(f"--build-arg={name}" for name in request.build_args),
        str(request.context),
    ]
    with subprocess.Popen(
        command,
        env=_buildx_environ(client, request, environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        try:
            for raw in process.stderr:
                line = raw.decode(errors="replace").rstrip()
                step = _BUILDKIT_STEP.match(line)
                if step:
                    log.begin(step[1])
                output = _BUILDKIT_OUTPUT.match(line)
                text = output[1] if output else line
                if text and not step:
                    log.tail.append(text)
                yield text
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        type(client).connect(client.endpoint)  # a daemon that is gone is another error than a step that failed
        raise log.error(f"docker buildx ended with {process.returncode}")


def _buildx_environ(client: Client, request: BuildRequest, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the plugin's environment: the daemon that we talk to, its own BuildKit, no attestations.

    Values of build arguments go through the environment, where other users of the machine cannot read them.
    """
    dropped = ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
    return {
        **{name: value for name, value in environ.items() if name not in dropped},
        **client.endpoint.environ,
        # An attestation carries times and would turn the image into an index, another one on every build.
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        "BUILDX_BUILDER": "default",
        **request.build_args,
    }


def _by_engine(client: Client, request: BuildRequest, log: _Log) -> Iterator[str]:
    from himl_container.image.build_context import context_stream

    params = {
        "t": request.tag,
        "dockerfile": request.dockerfile,
        "rm": "1",
        "forcerm": "1",
        "buildargs": json.dumps(request.build_args),
    }
    headers = {"Content-Type": "application/x-tar", **_registry_headers(client)}
    data = context_stream(request.context, request.dockerfile)
    try:
        for message in client.messages("build the image", "/build", data=data, params=params, headers=headers):
            for line in str(message.get("stream") or message.get("status") or "").splitlines():
                if _STEP.match(line):
                    log.begin(line)
                elif line.strip():
                    log.tail.append(line)
                yield line
    except RefusedError as error:
        if error.hint:
            raise EngineError(error.what, where=error.where, hint=error.hint) from error
        raise log.error(error.what) from error


def _registry_headers(client: Client) -> dict[str, str]:
    """Return the header with the user's registry credentials, for a base image of a private registry."""
    import docker.auth
    import docker.errors

    # The SDK's own build() reads the same attribute; it is not used because it copies the context to a file first.
    configs = cast("Any", client.sdk)._auth_configs
    try:
        credentials = configs.get_all_credentials() if configs else {}
    except docker.errors.DockerException:
        credentials = {}  # a broken credential helper matters only when the base has to be pulled; that will tell
    return {"X-Registry-Config": docker.auth.encode_header(credentials).decode()} if credentials else {}

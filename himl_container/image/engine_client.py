"""Requests to one daemon: JSON answers, streams of messages, and errors that say what was being done."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from himl_container.errors import EngineError
from himl_container.image.docker_http import ANSWER_TIMEOUT, Answer, DockerHttp, Stream
from himl_container.image.endpoint import Endpoint
from himl_container.image.engine_errors import converted, failure, refused

if TYPE_CHECKING:
    import docker

OLDEST_API = (1, 41)
"""Engine 20.10: the oldest engine that is tested."""


class RefusedError(EngineError):
    """The daemon understood a request and said no, in contrast to going away."""


class Client:
    """One daemon. Paths of requests are made with :func:`himl_container.image.docker_http.segment`.

    :param api_version: the version of the Engine API that it speaks.
    """

    def __init__(self, http: DockerHttp, api_version: str) -> None:
        self._http = http
        self.api_version = api_version

    @classmethod
    def connect(cls, endpoint: Endpoint) -> Client:
        """Connect to a daemon.

        :raises EngineError: no daemon answers there, or one that is too old.
        """
        http = DockerHttp(endpoint)
        with converted(endpoint, "connect"):
            version = http.request("GET", "/_ping").headers.get("api-version", "")
        parts = version.split(".")
        if not all(part.isdecimal() for part in parts):
            raise EngineError("what answers is not a Docker daemon", where=str(endpoint))
        if tuple(int(part) for part in parts) < OLDEST_API:
            raise EngineError(
                f"the Docker daemon is too old: it speaks version {version} of the Engine API",
                where=str(endpoint),
                hint="Docker Engine 20.10 (API 1.41) or newer is needed.",
            )
        return cls(http, version)

    @property
    def endpoint(self) -> Endpoint:
        """Where this daemon is."""
        return self._http.endpoint

    @functools.cached_property
    def sdk(self) -> docker.APIClient:
        """Docker's own client (:mod:`himl_container.image.engine_sdk`), connected when it is first used."""
        from himl_container.image.engine_sdk import connect_sdk

        return connect_sdk(self.endpoint)

    def converting(self, doing: str) -> AbstractContextManager[None]:
        """Return a context in which a connection that breaks becomes EngineError."""
        return converted(self.endpoint, doing)

    def json(self, doing: str, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Return the JSON answer to a GET; None when the daemon says that there is no such thing."""
        with self.converting(doing):
            answer = self._http.request("GET", path, query=params)
        if answer.status == 404:
            return None
        return self._decoded(doing, self._checked(doing, answer).body)

    def post(
        self,
        doing: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        timeout: float | None = ANSWER_TIMEOUT,
    ) -> Any:
        """POST a JSON value and return the JSON answer; None where it is empty.

        :param timeout: seconds that the daemon may be silent; None for as long as it takes.
        :raises RefusedError: the daemon answered with an error.
        """
        with self.converting(doing):
            answer = self._http.request("POST", path, query=params, body=body, timeout=timeout)
        content = self._checked(doing, answer).body
        return self._decoded(doing, content) if content.strip() else None

    def delete(self, doing: str, path: str, params: Mapping[str, str] | None = None) -> None:
        """DELETE something; nothing happens when there is no such thing.

        :raises RefusedError: the daemon answered with an error.
        """
        with self.converting(doing):
            answer = self._http.request("DELETE", path, query=params)
        if answer.status != 404:
            self._checked(doing, answer)

    def open(self, doing: str, path: str, *, method: str = "GET", params: Mapping[str, str] | None = None) -> Stream:
        """Return the open stream of an answer; to be read inside ``converting`` and closed by the caller."""
        with self.converting(doing):
            stream = self._http.stream(method, path, query=params)
        if stream.status >= 400:
            with stream:
                self._checked(doing, Answer(stream.status, stream.read_all()))
        return stream

    def messages(
        self,
        doing: str,
        path: str,
        *,
        data: Iterable[bytes] | bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """POST and yield the progress messages of the answer as they arrive.

        There is no time limit: a daemon is silent while it unpacks a large layer.

        :param data: the body, whole or as an iterator of chunks.
        :raises RefusedError: the daemon answered with an error, at once or in a message.
        :raises EngineError: the daemon went away.
        """
        with (
            self.converting(doing),
            self._http.stream("POST", path, query=params, data=data, headers=headers, answer_timeout=None) as stream,
        ):
            if stream.status >= 400:
                self._checked(doing, Answer(stream.status, stream.read_all()))
            for line in stream.body:
                message = self._decoded(doing, line) if line.strip() else None
                if not isinstance(message, dict):
                    continue
                if failure(message):
                    raise self.refusal(doing, failure(message))
                yield message

    def refusal(self, doing: str, message: str) -> RefusedError:
        """Return the error for a request that the daemon answered with a failure."""
        error = refused(self.endpoint, doing, message)
        return RefusedError(error.what, where=error.where, hint=error.hint)

    def _checked(self, doing: str, answer: Answer) -> Answer:
        if answer.status >= 400:
            raise self.refusal(doing, answer.message)
        return answer

    def _decoded(self, doing: str, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            raise EngineError(
                f"cannot {doing}: what answers is not a Docker daemon, or it went away", where=str(self.endpoint)
            ) from error

"""Requests to the daemon over the Docker SDK's session: JSON answers, streams of messages, errors converted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from himl_container.errors import EngineError
from himl_container.image.endpoint import Endpoint
from himl_container.image.engine_errors import converted, failure, refused

if TYPE_CHECKING:
    import docker
    from requests import Response

OLDEST_API = (1, 41)
"""Engine 20.10: the oldest engine that is tested."""


class RefusedError(EngineError):
    """The daemon understood a request and said no, in contrast to going away."""


class Client:
    """One daemon. ``sdk`` is Docker's own client; its exceptions must not leave a ``with converting(...)`` block."""

    def __init__(self, sdk: docker.APIClient, endpoint: Endpoint) -> None:
        self.sdk = sdk
        self.endpoint = endpoint

    @classmethod
    def connect(cls, endpoint: Endpoint) -> Client:
        """Connect to a daemon.

        :raises EngineError: no daemon answers there, or one that is too old.
        """
        import docker

        with converted(endpoint, "connect"):
            tls = _tls(endpoint)
            sdk = docker.APIClient(
                base_url=endpoint.url,
                version="auto",
                timeout=60,
                tls=tls,
                use_ssh_client=endpoint.url.startswith("ssh://"),
            )
        version = sdk.api_version
        if tuple(int(part) for part in version.split(".")) < OLDEST_API:
            raise EngineError(
                f"the Docker daemon is too old: it speaks version {version} of the Engine API",
                where=str(endpoint),
                hint="Docker Engine 20.10 (API 1.41) or newer is needed.",
            )
        return cls(sdk, endpoint)

    def converting(self, doing: str) -> AbstractContextManager[None]:
        """Return a context in which everything that the SDK throws becomes EngineError."""
        return converted(self.endpoint, doing)

    def url(self, path: str) -> str:
        """Return the address of a path of the Engine API."""
        return f"{self.sdk.base_url}/v{self.sdk.api_version}{path}"

    def json(self, doing: str, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Return the JSON answer to a GET; None when the daemon says that there is no such thing."""
        with self.converting(doing):
            response = self.sdk.get(self.url(path), params=params, timeout=60)
            if response.status_code == 404:
                return None
            self._check(doing, response)
            return self._decoded(doing, response.content)

    def open(self, doing: str, path: str) -> Response:
        """Return the open stream of a GET; to be read inside ``converting`` and closed by the caller."""
        with self.converting(doing):
            response = self.sdk.get(self.url(path), stream=True, timeout=None)
            self._check(doing, response)
            return response

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
            self.sdk.post(
                self.url(path), data=data, params=params, headers=headers, stream=True, timeout=None
            ) as response,
        ):
            self._check(doing, response)
            for line in response.iter_lines(chunk_size=None):
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

    def _check(self, doing: str, response: Response) -> None:
        if response.status_code < 400:
            return
        try:
            message = str(json.loads(response.content)["message"])
        except (ValueError, KeyError, TypeError):
            message = response.text[:500] or response.reason
        raise self.refusal(doing, message)

    def _decoded(self, doing: str, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            raise EngineError(
                f"cannot {doing}: what answers is not a Docker daemon, or it went away", where=str(self.endpoint)
            ) from error


def _tls(endpoint: Endpoint) -> Any:
    import docker

    folder = endpoint.tls_folder
    if folder is None:
        return False
    pair = (folder / "cert.pem", folder / "key.pem")
    authority = folder / "ca.pem"
    return docker.tls.TLSConfig(
        client_cert=(str(pair[0]), str(pair[1])) if all(path.is_file() for path in pair) else None,
        ca_cert=str(authority) if authority.is_file() else None,
        verify=endpoint.tls_verify,
    )

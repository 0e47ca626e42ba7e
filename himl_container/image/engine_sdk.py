"""Docker's own client, for what has to do with registries: it knows the user's credentials and their helpers.

It takes a third of a second to import and to connect, so nothing else uses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from himl_container.environment.urls import scrub
from himl_container.errors import EngineError, HimlError
from himl_container.image.endpoint import Endpoint
from himl_container.image.engine_errors import gone, refused
from himl_container.image.probe import cannot_connect, causes

if TYPE_CHECKING:
    import docker


def connect_sdk(endpoint: Endpoint) -> docker.APIClient:
    """Connect to a daemon.

    :raises EngineError: no daemon answers there.
    """
    import docker

    with converted_sdk(endpoint, "connect"):
        return docker.APIClient(
            base_url=endpoint.url,
            version="auto",
            timeout=60,
            tls=_tls(endpoint),
            use_ssh_client=endpoint.url.startswith("ssh://"),
        )


@contextlib.contextmanager
def converted_sdk(endpoint: Endpoint, doing: str) -> Iterator[None]:
    """Turn everything that the SDK can throw into EngineError.

    :param doing: what is being done (``pull 'a:1'``), for the message.
    """
    import http.client

    import docker.errors
    import urllib3

    try:
        yield
    except HimlError:
        raise
    except docker.errors.APIError as error:
        raise refused(endpoint, doing, str(error.explanation or error)) from error
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
        if _never_connected(error):
            raise cannot_connect(endpoint, error) from error
        raise gone(endpoint, doing, error) from error
    except docker.errors.DockerException as error:
        if _never_connected(error):
            raise cannot_connect(endpoint, error) from error
        raise EngineError(f"cannot {doing}: {scrub(str(error))}", where=str(endpoint)) from error


def _never_connected(error: BaseException) -> bool:
    """Whether no connection came about at all, in contrast to one that broke."""
    kinds = (FileNotFoundError, ConnectionRefusedError, PermissionError, TimeoutError)
    return any(isinstance(cause, kinds) for cause in causes(error))


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

"""Asking registries and pulling, through the daemon, with the credentials of the user's Docker configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from himl_container.errors import RegistryError
from himl_container.image.engine_errors import failure
from himl_container.image.engine_sdk import converted_sdk
from himl_container.progress import Reporter
from himl_container.registry.reference import parse_reference

if TYPE_CHECKING:
    from himl_container.image.engine_client import Client


def pull(client: Client, reference: str, reporter: Reporter) -> None:
    """Pull ``repository:tag`` or ``repository@digest``.

    :raises RegistryError: the registry does not answer, refuses, or has no such image.
    :raises EngineError: the daemon went away.
    """
    import docker.errors

    name = parse_reference(reference)
    with (
        converted_sdk(client.endpoint, f"pull {reference!r}"),
        reporter.step("pull", reference, total=0, unit="bytes") as task,
    ):
        layers: dict[str, tuple[int, int]] = {}
        try:
            for message in _messages(client, name.repository, name.digest or name.tag or "latest"):
                if failure(message):
                    raise registry_error(reference, failure(message))
                detail = message.get("progressDetail") or {}
                if message.get("status") == "Downloading" and "total" in detail:
                    before, _ = layers.get(message["id"], (0, 0))
                    layers[message["id"]] = (int(detail["current"]), int(detail["total"]))
                    task.advance(int(detail["current"]) - before, total=sum(total for _, total in layers.values()))
        except docker.errors.APIError as error:
            raise registry_error(reference, str(error.explanation or error)) from error


def registry_digest(client: Client, reference: str) -> str:
    """Ask the reference's registry, through the daemon, for the manifest digest.

    :raises RegistryError: the registry does not answer, or has no such image.
    :raises EngineError: the daemon went away.
    """
    import docker.errors

    with converted_sdk(client.endpoint, f"ask the registry for {reference!r}"):
        try:
            answer = cast("Any", client.sdk).inspect_distribution(reference)
            return str(answer["Descriptor"]["digest"])
        except (docker.errors.APIError, KeyError, TypeError) as error:
            raise registry_error(reference, str(getattr(error, "explanation", None) or error)) from error


def registry_error(reference: str, message: str) -> RegistryError:
    """Return the error for a registry that does not answer or does not have an image."""
    from himl_container.environment.urls import scrub

    return RegistryError(
        f"the registry does not give the image: {scrub(message)}",
        where=reference,
        hint=(
            "Check the name and 'docker login'. Without a registry, 'himl-container base create' makes a base image "
            "from a Debian mirror, and 'himl-container base load' brings one from a file (docs/offline.md)."
        ),
    )


def _messages(client: Client, repository: str, tag: str) -> Iterator[dict[str, Any]]:
    yield from client.sdk.pull(repository, tag=tag, stream=True, decode=True)

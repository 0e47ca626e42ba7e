"""What a registry has under an image's tag: asked once, and never guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from himl_container.errors import InputError, RegistryError
from himl_container.progress import Reporter
from himl_container.publish.model import TESTED
from himl_container.registry.api import Repository, connect
from himl_container.registry.model import Descriptor, canonical_json
from himl_container.settings import Settings

if TYPE_CHECKING:
    from himl_container.image.smoke_verdict import SmokeCheck

TEST_TYPE = "application/vnd.himl.test.v1+json"
"""Artifact type and media type of what says that an image, pushed untested, has passed its tests later."""

_IMAGES = 64
"""Hexadecimal digits of a whole fingerprint; its first half is the tag."""

Connect = Callable[..., Repository]


@dataclass(frozen=True)
class RemoteImage:
    """An image that a registry has.

    :param name: ``host/repository:tag``.
    :param manifest: of the image, or of the index that lists it.
    :param tested: whether it was pushed as a tested one, or a passed test was attached to it since.
    """

    name: str
    manifest: Descriptor
    tested: bool

    @property
    def reference(self) -> str:
        """``host/repository@sha256:...``."""
        return f"{self.name.rpartition(':')[0]}@{self.manifest.digest}"


def open_repository(settings: Settings, reporter: Reporter, connect_to: Connect = connect) -> Repository:
    """Return the repository that images of these settings are pushed to. Nothing is asked of it.

    :raises InputError: no registry is set.
    """
    check_name(settings)
    return connect_to(settings.remote_name, reporter=reporter)


def check_name(settings: Settings) -> None:
    """See that a registry is set.

    :raises InputError: none is.
    """
    if not settings.remote_name:
        raise InputError(
            "no registry is set, so there is nowhere to push to",
            hint="Set 'registry' in [tool.himl-container], HIML_CONTAINER_REGISTRY or --registry: team.azurecr.io/himl",
        )


def find_remote(
    settings: Settings,
    fingerprint: str,
    *,
    reporter: Reporter,
    repository: Repository | None = None,
    later_tests: bool = True,
) -> RemoteImage | None:
    """Return the image that the registry has for a fingerprint; None where it says that it has none.

    One request for the manifest. An image that was pushed untested costs a second one: somebody may have tested it.

    :param repository: of the image; connected to where not given.
    :param later_tests: ask for those of an image that was pushed untested.
    :raises RegistryError: the registry cannot be asked, after retries. Never "there is none" then.
    """
    repository = repository or open_repository(settings, reporter)
    tag = fingerprint[: _IMAGES // 2]
    found = repository.manifest(tag)
    if found is None:
        return None
    annotations = found.content.get("annotations")
    tested = isinstance(annotations, dict) and annotations.get(TESTED) == "true"
    tested = tested or (later_tests and bool(repository.referrers(found.digest, TEST_TYPE)))
    return RemoteImage(f"{repository.host}/{repository.name}:{tag}", found.descriptor, tested)


def attach_test(repository: Repository, subject: Descriptor, fingerprint: str, checks: Iterable[SmokeCheck]) -> None:
    """Attach to an image that was pushed untested that it has passed its tests; its own digest stays as it is.

    :raises RegistryError: the registry does not take it.
    """
    names = [check.name for check in checks]
    data = canonical_json({"fingerprint": fingerprint, "passed": names})
    repository.attach(subject, data, artifact_type=TEST_TYPE, media_type=TEST_TYPE, annotations={TESTED: "true"})


def not_answered(error: RegistryError, name: str) -> RegistryError:
    """Return the error of a look-up with what it means for a build."""
    return RegistryError(
        error.what,
        where=error.where or name,
        hint="\n".join(filter(None, (error.hint, "Nothing was built: the registry may have this image."))),
    )

"""What a registry has under a tag: one request, and never a guess."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memory_registry import MemoryRepository, lone_repository

from himl_container.errors import InputError, RegistryError
from himl_container.image.smoke_verdict import SmokeCheck
from himl_container.progress import SilentReporter
from himl_container.publish.remote import RemoteImage, attach_test, find_remote, open_repository
from himl_container.registry.model import OCI_MANIFEST, sha256_of
from himl_container.settings import Settings

FINGERPRINT = "0123456789abcdef" * 4


def settings(registry: str = "registry.example") -> Settings:
    return Settings(Path(), (), Path("lock"), Path("cache"), image_name="team/train", registry=registry)


def with_image(annotations: dict[str, str]) -> MemoryRepository:
    repository = lone_repository()
    data = json.dumps({"schemaVersion": 2, "annotations": annotations, "layers": []}).encode()
    repository.manifests[sha256_of(data)] = (data, OCI_MANIFEST)
    repository.tags[FINGERPRINT[:32]] = sha256_of(data)
    return repository


def found(repository: MemoryRepository, *, later_tests: bool = True) -> RemoteImage | None:
    return find_remote(
        settings(), FINGERPRINT, reporter=SilentReporter(), repository=repository, later_tests=later_tests
    )


def test_image_that_is_not_there_costs_one_request() -> None:
    repository = lone_repository()
    assert found(repository) is None
    assert repository.registry.calls == [("manifest", FINGERPRINT[:32])]


def test_tested_image_costs_one_request() -> None:
    repository = with_image({"io.himl.tested": "true"})
    image = found(repository)
    assert image is not None
    assert image.tested
    assert image.name == f"registry.example/team/train:{FINGERPRINT[:32]}"
    assert image.reference == f"registry.example/team/train@{repository.tags[FINGERPRINT[:32]]}"
    assert repository.requests == 1


@pytest.mark.parametrize("annotations", [{}, {"io.himl.tested": "false"}, {"io.himl.tested": "yes"}])
def test_image_that_is_not_called_tested_is_not(annotations: dict[str, str]) -> None:
    repository = with_image(annotations)
    image = found(repository)
    assert image is not None
    assert not image.tested
    assert repository.requests == 2


def test_who_does_not_want_to_know_of_later_tests_makes_one_request() -> None:
    repository = with_image({"io.himl.tested": "false"})
    image = found(repository, later_tests=False)
    assert image is not None
    assert not image.tested
    assert repository.requests == 1


def test_passed_test_is_attached_and_leaves_the_image_as_it_is() -> None:
    repository = with_image({"io.himl.tested": "false"})
    image = found(repository)
    assert image is not None
    attach_test(repository, image.manifest, FINGERPRINT, [SmokeCheck("import numpy", True, "")])
    again = found(repository)
    assert again == RemoteImage(image.name, image.manifest, tested=True)


def test_registry_that_cannot_be_asked_is_an_error() -> None:
    repository = lone_repository()

    def refuse(method: str, argument: str) -> None:
        raise RegistryError("the registry answered 500")

    repository.registry.before = refuse
    with pytest.raises(RegistryError, match="500"):
        found(repository)


def test_without_a_registry_the_error_says_how_to_set_one() -> None:
    with pytest.raises(InputError) as caught:
        open_repository(settings(""), SilentReporter())
    assert "HIML_CONTAINER_REGISTRY" in caught.value.hint

"""The environment service (``_restclient/environment_client.py`` of the SDK), and the builds that it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from himl_container.emulator.http import Answer, Refusal, Request, json_answer, not_found
from himl_container.emulator.identity import Kind
from himl_container.emulator.images.ready import ImageFacts
from himl_container.emulator.installation import Installation
from himl_container.emulator.names import API_HOST, REGION
from himl_container.emulator.routes import How, Route
from himl_container.emulator.state.environments import Environment, Environments, ImageBuild
from himl_container.emulator.state.registry_account import RegistryAccount
from himl_container.emulator.state.run import iso
from himl_container.errors import HimlError
from himl_container.image.model import PREFIX

_TEST = "tests/emulator/test_environments.py::"
_BUILT = "tests/emulator/test_environment_images.py::test_conda_dependencies_and_a_private_wheel"
_BASE = "/environment/v1.0/{ws}/environments"
_V2 = "/environment/v2.0/{ws}/environments"


class Facts(Protocol):
    """What is known of images (:class:`himl_container.emulator.images.ready.Images`)."""

    def facts(self, environment: Mapping[str, Any], *, ask: bool = True) -> ImageFacts:
        """Return what is known of an environment's image."""


class Building(Protocol):
    """What builds images (:class:`himl_container.emulator.images.builds.Builds`)."""

    def begin(self, environment: Environment) -> ImageBuild:
        """Begin a build."""

    def log_url(self, build: ImageBuild) -> str:
        """Return the address of its log."""


class EnvironmentService:
    """Keeps environments, and builds their images when it is asked to."""

    def __init__(
        self,
        installation: Installation,
        environments: Environments,
        images: Facts,
        builds: Building,
        account: RegistryAccount,
    ) -> None:
        self._workspace, self._environments = installation.workspace, environments
        self._images, self._builds, self._account = images, builds, account

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        one, version = _BASE + "/{name}", _BASE + "/{name}/versions/{version}"
        kept, listed = "test_a_definition_is_kept", "test_lists"
        image = "test_image_details"
        near = "no vulnerability findings; the Dockerfile is shown for images that Docker built"
        return (
            _route("GET", _BASE, self._list, "List", listed),
            _route("GET", _BASE + "/", self._list, "ListAll", listed),
            _route("GET", one + "/versions", self._versions, "ListVersions", listed),
            _route("GET", one + "/image", self._image, "GetImageOfLatest", image, near=near),
            _route("GET", version + "/image", self._image, "GetImage", image, near=near),
            _route("GET", one + "/labels/{label}", self._labelled, "GetByLabel", "test_labels"),
            _route("PUT", version + "/metadata", self._label, "SetLabels", "test_labels"),
            _route("GET", version, self._get, "GetVersion", kept),
            _route("PUT", version, self._register, "RegisterVersion", "test_versions"),
            _route("GET", one, self._get, "Get", kept),
            _route("PUT", one, self._register, "Register", kept),
            _route("POST", _V2 + "/{name}/versions/{version}/image", self._build, "Build", _BUILT),
            _route(
                "POST",
                _V2 + "/{name}/versions/{version}/imageoncompute/{compute}",
                self._build,
                "BuildOnCompute",
                _BUILT,
                near="built by the emulator, whatever the compute target",
            ),
            _route("GET", _V2 + "/{name}/versions/{version}/image/{build}", self._status, "GetBuild", _BUILT),
        )

    # --- definitions ---

    def _register(self, request: Request) -> Answer:
        _only_user(request)
        document = request.document()
        found = self._environments.register(request.params["name"], document, request.params.get("version") or "")
        return json_answer(self._document(found, request))

    def _get(self, request: Request) -> Answer:
        return json_answer(self._document(self._find(request), request))

    def _labelled(self, request: Request) -> Answer:
        found = self._environments.labelled(request.params["name"], request.params["label"])
        return json_answer(self._document(found, request))

    def _label(self, request: Request) -> Answer:
        _only_user(request)
        document = request.document()
        labels = document.get("Labels", document.get("labels"))
        if not isinstance(labels, list) or len(labels) > 100:
            raise Refusal(400, "UserError", "Labels is not a list of at most 100.")
        self._environments.label(request.params["name"], request.params["version"], labels)
        return json_answer({})

    def _list(self, request: Request) -> Answer:
        found = [self._document(one, request) for one in self._environments.newest()]
        return json_answer({"value": found, "continuationToken": None})

    def _versions(self, request: Request) -> Answer:
        found = [self._document(one, request) for one in self._environments.versions(request.params["name"])]
        return json_answer({"value": found, "continuationToken": None})

    # --- images ---

    def _image(self, request: Request) -> Answer:
        found = self._find(request)
        try:
            facts = self._images.facts(found.definition)
        except HimlError as error:
            raise Refusal(400, "UserError", str(error)) from None
        host = self._workspace.registry_host
        own = facts.name.startswith(f"{host}/")
        registry: dict[str, Any] = {"address": None, "username": None, "password": None}
        if own:
            registry["address"] = host
            if request.identity.kind is Kind.USER:
                registry.update(username=self._account.username, password=self._account.passwords()[0])
        elif facts.spec.login is not None:
            login = facts.spec.login
            registry.update(address=login.address, username=login.username)
            if request.identity.kind is Kind.USER:
                registry["password"] = login.password
        name = facts.name.removeprefix(f"{registry['address']}/") if registry["address"] else facts.name
        managed = bool(facts.spec.conda)
        return json_answer(
            {
                "imageExistsInRegistry": facts.exists,
                "dockerImage": {"name": name, "registry": registry},
                "pythonEnvironment": {
                    "interpreterPath": facts.interpreter,
                    "condaEnvironmentName": None,
                    "condaEnvironmentPath": PREFIX if managed else None,
                },
                "ingredients": {
                    "dockerfile": facts.spec.dockerfile or None,
                    "condaSpecification": facts.spec.conda or None,
                    "baseImage": facts.spec.base_image or None,
                },
                "vulnerabilityFindings": None,
                "logUrl": None,
            }
        )

    def _build(self, request: Request) -> Answer:
        _only_user(request)
        build = self._builds.begin(self._find(request))
        path = f"environment/v2.0/{self._workspace.path}/environments/{build.name}/versions/{build.version}/image"
        location = f"https://{API_HOST}/{path}/{build.build_id}"
        return json_answer({"location": location, **self._build_document(build)}, 202, {"location": location})

    def _status(self, request: Request) -> Answer:
        build = self._environments.get_build(request.params["build"])
        if (build.name, build.version) != (request.params["name"], request.params["version"]):
            raise not_found("The build")
        return json_answer(self._build_document(build))

    def _build_document(self, build: ImageBuild) -> dict[str, Any]:
        error = {"code": "UserError", "message": build.error} if build.error else None
        return {
            "id": build.build_id,
            "environmentName": build.name,
            "environmentVersion": build.version,
            "status": build.status,
            "logUrl": self._builds.log_url(build),
            "error": error,
        }

    # --- parts ---

    def _find(self, request: Request) -> Environment:
        return self._environments.get(request.params["name"], request.params.get("version") or "")

    def _document(self, found: Environment, request: Request) -> dict[str, Any]:
        definition = dict(found.definition)
        if request.identity.kind is not Kind.USER:
            definition["docker"] = _without_password(definition.get("docker"))
        identity = f"{self._workspace.workspace_id}/environments/{found.name}/versions/{found.version}"
        # The parts that a client may leave out are null in the answer: it asks for them by name.
        empty = dict.fromkeys(("environmentVariables", "spark", "inferencingStackVersion", "r"))
        return {
            **empty,
            **definition,
            "name": found.name,
            "version": found.version,
            "assetId": f"azureml://locations/{REGION}/workspaces/{identity}",
            "createdTime": iso(found.created),
        }


def _without_password(docker: Any) -> Any:
    """Return ``docker`` as a job may see it."""
    registry = docker.get("baseImageRegistry") if isinstance(docker, Mapping) else None
    if not isinstance(registry, Mapping):
        return docker
    return {**docker, "baseImageRegistry": {**registry, "password": None}}


def _only_user(request: Request) -> None:
    if request.identity.kind is not Kind.USER:
        raise Refusal(403, "AuthorizationFailed", "A job may read environments, not change or build them.")


def _route(method: str, pattern: str, handler: Any, operation: str, test: str, *, near: str = "") -> Route:
    how: How = "approximated" if near else "imitated"
    where = test if "::" in test else _TEST + test
    return Route(method, pattern, handler, f"Environments.{operation}", where, how=how, note=near)

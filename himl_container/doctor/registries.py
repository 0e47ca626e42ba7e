"""Checks of the registry that the settings name: does it answer, and does it take our login?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from himl_container.doctor.model import Finding
from himl_container.errors import RegistryError
from himl_container.settings import Settings

_NO_SUCH_TAG = "himl-container-doctor-asks"
_LOGIN_HELP = (
    "See docs/registry-login.md: 'docker login HOST', 'az acr login', or HIML_CONTAINER_REGISTRY_USER and _PASSWORD."
)


def checks(
    settings: Settings, environ: Mapping[str, str], *, ask: Callable[[str], None] | None = None
) -> Iterator[Finding]:
    """Yield what is found of the project's registry.

    :param ask: asks the registry for an image of a repository; raises RegistryError.
    """
    name = settings.remote_name
    if name:
        yield registry("registry", name, environ, ask=ask)
        return
    means = "Images stay on this machine; 'submit' pushes to the workspace's own registry."
    fix = 'To share images: registry = "HOST" in [tool.himl-container].'
    yield Finding("registry", "skipped", "none is set", means, fix)


def registry(check: str, name: str, environ: Mapping[str, str], *, ask: Callable[[str], None] | None = None) -> Finding:
    """Check that a registry answers, and takes our login.

    :param name: of a repository in it, which need not exist.
    """
    from himl_container.registry.login import LoginRefusedError, LoginUnavailableError

    means = "Images can be neither pushed nor found there."
    try:
        (ask or _asker(environ))(name)
    except (LoginRefusedError, LoginUnavailableError) as error:
        return Finding(check, "error", f"{name}: {error.what}", means, error.hint or _LOGIN_HELP)
    except RegistryError as error:
        fix = error.hint or "See whether its name is right, and whether this machine reaches it."
        return Finding(check, "error", f"{name}: {error.what}", means, fix)
    return Finding(check, "ok", f"{name} answers, and lets us read")


def _asker(environ: Mapping[str, str]) -> Callable[[str], None]:
    def ask(name: str) -> None:
        from himl_container.registry.client import RegistryClient
        from himl_container.registry.retries import Patience

        client = RegistryClient.connect(name, environ=environ, patience=Patience(attempts=1))
        try:
            client.head(_NO_SUCH_TAG)  # None, an answer all the same: there is no such image
        finally:
            client.close()

    return ask

"""Logins that are there already: variables, a managed identity, an earlier login, the Azure CLI."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from himl_container.azureml.constants import ENV_TENANT_ID
from himl_container.azureml.failures import LoginFailed

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azureml.core.authentication import AbstractAuthentication

_LOG = logging.getLogger(__name__)

_SDK_VARIABLES = tuple(f"AZUREML_SERVICE_PRINCIPAL_{name}" for name in ("TENANT_ID", "ID", "PASSWORD"))
_IDENTITY_ENDPOINTS = ("IDENTITY_ENDPOINT", "MSI_ENDPOINT")


class Candidate(NamedTuple):
    """A login that may be there.

    :param named: the variables that name it exist, so that a refusal ends the search.
    :param told: a user expects it, and is told when it does not work.
    """

    name: str
    credential: Callable[[], TokenCredential]
    next_step: str
    named: bool = False
    told: bool = True


class Ambient(NamedTuple):
    """What was found: a login or none, and what each of those that did not work said."""

    login: AbstractAuthentication | None
    refusals: tuple[str, ...]


def ambient_login(environ: Mapping[str, str]) -> Ambient:
    """Return the first login that gives a token.

    :raises LoginFailed: variables name a login, and it was refused.
    """
    values = [environ.get(name) for name in _SDK_VARIABLES]
    if all(values):
        from azureml.core.authentication import ServicePrincipalAuthentication

        # As with the HIML variables, the first request says whether the secret is right.
        return Ambient(ServicePrincipalAuthentication(*values), ())
    refusals: list[str] = []
    for candidate in _before_remembered(environ):
        if (login := _try(candidate, refusals)) is not None:
            return Ambient(login, ())
    if (remembered := _remembered(environ, refusals)) is not None:
        return Ambient(remembered, ())
    for candidate in _after_remembered(environ):
        if (login := _try(candidate, refusals)) is not None:
            return Ambient(login, ())
    return Ambient(None, tuple(refusals))


def _try(candidate: Candidate, refusals: list[str]) -> AbstractAuthentication | None:
    from himl_container.azureml.credential import CredentialAuthentication

    try:
        login = CredentialAuthentication(candidate.credential(), candidate.name, candidate.next_step)
        with _unheard():
            login.get_authentication_header()
    except LoginFailed as error:
        if candidate.named:
            raise
        if candidate.told:
            refusals.append(error.what)
        return None
    _LOG.info("Logged in to Azure by %s.", candidate.name)
    return login


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keep azure-identity's own warnings away: that a login is not there is no news, and a refusal is told by us."""
    logger = logging.getLogger("azure.identity")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _before_remembered(environ: Mapping[str, str]) -> Iterator[Candidate]:
    if environ.get("AZURE_CLIENT_ID") and environ.get("AZURE_TENANT_ID"):
        secrets = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_USERNAME")
        if any(environ.get(name) for name in secrets):
            next_step = "check the variables AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET"
            yield Candidate("the AZURE_* variables", _environment, next_step, named=True)
        elif environ.get("AZURE_FEDERATED_TOKEN_FILE"):
            next_step = "check AZURE_FEDERATED_TOKEN_FILE and the identity's federated credentials"
            yield Candidate("workload identity", _workload, next_step, named=True)
    if any(environ.get(name) for name in _IDENTITY_ENDPOINTS):
        yield _managed_identity(told=True)


def _after_remembered(environ: Mapping[str, str]) -> Iterator[Candidate]:
    if shutil.which("az", path=environ.get("PATH")):
        tenant = environ.get(ENV_TENANT_ID, "")
        yield Candidate("the Azure CLI", lambda: _azure_cli(tenant), "az login")
    if not any(environ.get(name) for name in _IDENTITY_ENDPOINTS):
        yield _managed_identity(told=False)


def _managed_identity(*, told: bool) -> Candidate:
    next_step = "give this machine a managed identity that may use the workspace"
    return Candidate("managed identity", _managed, next_step, told=told)


def _environment() -> TokenCredential:
    from azure.identity import EnvironmentCredential

    return EnvironmentCredential()


def _workload() -> TokenCredential:
    from azure.identity import WorkloadIdentityCredential

    return WorkloadIdentityCredential()


def _azure_cli(tenant: str) -> TokenCredential:
    from azure.identity import AzureCliCredential

    return AzureCliCredential(tenant_id=tenant, process_timeout=60)


def _managed() -> TokenCredential:
    """Return a credential for the machine's own identity, which finds out within a second where there is none."""
    from azure.identity import DefaultAzureCredential

    # Only within this chain is the machine's endpoint probed before it is asked, and asked again, for a minute.
    return DefaultAzureCredential(
        exclude_environment_credential=True,
        exclude_workload_identity_credential=True,
        exclude_shared_token_cache_credential=True,
        exclude_cli_credential=True,
        exclude_powershell_credential=True,
        exclude_developer_cli_credential=True,
    )


def _remembered(environ: Mapping[str, str], refusals: list[str]) -> AbstractAuthentication | None:
    """Return what the SDK remembers of a login in a browser, or None."""
    folder = environ.get("AZUREML_AUTH_CONFIG_DIR") or Path.home() / ".azureml" / "auth"
    if not (Path(folder) / "azureProfile.json").is_file():
        return None
    from himl_container.azureml.credential import RememberedLogin
    from himl_container.azureml.retry import one_line

    try:
        return RememberedLogin(environ.get(ENV_TENANT_ID) or None)
    except Exception as error:  # noqa: BLE001  # whatever is wrong with what is remembered, the next one is tried
        refusals.append(f"an earlier login of the AzureML SDK: {one_line(error)}")
        return None

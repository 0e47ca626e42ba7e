"""What the SDK's exceptions mean to a user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from himl_container.errors import AzureMLError, HimlError


@contextlib.contextmanager
def explained(what: str, next_step: str = "") -> Iterator[None]:
    """Turn exceptions of the SDK and of the libraries below it into ours, with the next step; others pass.

    :param what: what was asked for: "the workspace research".
    :param next_step: what the user does when it was refused for another reason than the login or the network.
    :raises LoginFailed: the login was refused or has expired.
    :raises AzureMLError: anything else that AzureML or the network refused.
    """
    try:
        yield
    except HimlError:
        raise
    except Exception as error:
        found = explanation(what, error, next_step)
        if found is None:
            raise
        raise found from error


@contextlib.contextmanager
def sdk_needed() -> Iterator[None]:
    """Turn the failed import of the AzureML SDK into an error that says how to get it; the SDK is an extra.

    :raises MissingSdk: (a ModuleNotFoundError) it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "azureml" or isinstance(error, HimlError):
            raise
        from himl_container.azureml.failures import MissingSdk

        hint = "pip install 'himl-container[azure]'"
        raise MissingSdk(f"the AzureML SDK is not installed (there is no {error.name})", hint=hint) from error


def explanation(what: str, error: BaseException, next_step: str = "") -> AzureMLError | None:
    """Return our exception for one of the SDK's, or None where it is no failure of a service."""
    from himl_container.azureml.failures import LoginFailed
    from himl_container.azureml.login import HOW_TO_LOG_IN
    from himl_container.azureml.retry import is_transient, one_line, status_of

    kinds = [f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__]
    said = one_line(error)
    unknown_tenant = said.startswith(_UNKNOWN_TENANT)
    if not unknown_tenant and not any(kind.partition(".")[0] in _LIBRARIES for kind in kinds):
        return None
    said = said.removeprefix(f"{type(error).__name__}: ")
    if is_transient(error):
        hint = "look at the network (and a proxy, if there is one), and try again"
        return AzureMLError(f"AzureML does not answer: {said}", where=what, hint=hint)
    if unknown_tenant:
        return LoginFailed("Azure knows no such tenant", where=what, hint=HOW_TO_LOG_IN)
    if set(kinds) & _LOGIN or status_of(error) == 401 or "AADSTS" in said:
        return LoginFailed(f"Azure refused the login: {said}", where=what, hint=HOW_TO_LOG_IN)
    return AzureMLError(said, where=what, hint=next_step)


_UNKNOWN_TENANT = "ValueError: Unable to get authority configuration"
"""msal says so in a ValueError, for a tenant that Azure does not know."""
_LIBRARIES = {"azureml", "azure", "msrest", "msrestazure", "msal", "requests", "urllib3"}
_LOGIN = {
    "azureml.AuthenticationException",
    "azure.ClientAuthenticationError",
    "azure.CredentialUnavailableError",
    "msrest.AuthenticationError",
    "msrest.TokenExpiredError",
}

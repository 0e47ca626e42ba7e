"""Who we are to AzureML: a service principal, the login that is there already, or one that the user makes now.

The order: the three ``HIML_*`` variables of a service principal; those of the AzureML SDK and of azure-identity; a
managed identity; an earlier login of the SDK; the Azure CLI; and last, where somebody sits at a terminal or notebook, a
browser or a device code. Without a terminal nothing waits for anybody: the error says which variables to set.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from himl_container.azureml.constants import (
    ENV_SERVICE_PRINCIPAL_ID,
    ENV_SERVICE_PRINCIPAL_PASSWORD,
    ENV_TENANT_ID,
)
from himl_container.azureml.failures import LoginFailed, WrongValue

if TYPE_CHECKING:
    from azureml.core.authentication import AbstractAuthentication

_LOG = logging.getLogger(__name__)

HOW_TO_LOG_IN = (
    f"log in with 'az login', or set {ENV_SERVICE_PRINCIPAL_ID}, {ENV_SERVICE_PRINCIPAL_PASSWORD} and {ENV_TENANT_ID} "
    "for a service principal"
)
"""The next step for somebody who is not logged in."""


def get_secret_from_environment(name: str, allow_missing: bool = False) -> str | None:
    """Return the value of the environment variable that has this name in capitals.

    :param allow_missing: return None for a variable that is not set, and an empty value as it is.
    :raises WrongValue: (a ValueError) it is not set, or is empty.
    """
    name = name.upper()
    value = os.environ.get(name)
    if value or allow_missing:
        return value
    raise WrongValue(f"There is no value stored for the secret named '{name}'")


def get_authentication() -> AbstractAuthentication:
    """Return a login to AzureML, in the order that this module's docstring gives.

    :raises LoginFailed: there is none, and nobody can be asked.
    """
    principal = _service_principal(os.environ)
    if principal is not None:
        return principal
    from himl_container.azureml.ambient import ambient_login
    from himl_container.azureml.interactive import can_ask, interactive_login

    found, refusals = ambient_login(os.environ)
    if found is not None:
        return found
    if can_ask(sys.modules, sys.stdin, sys.stderr):
        _LOG.info("Using interactive login to Azure. To do without: %s.", HOW_TO_LOG_IN)
        return interactive_login(os.environ)
    tried = "; ".join(refusals)
    what = "nobody is logged in to Azure, and there is no terminal to ask at" + (f" ({tried})" if tried else "")
    raise LoginFailed(what, hint=HOW_TO_LOG_IN)


def _service_principal(environ: Mapping[str, str]) -> AbstractAuthentication | None:
    values = [environ.get(name) for name in (ENV_TENANT_ID, ENV_SERVICE_PRINCIPAL_ID, ENV_SERVICE_PRINCIPAL_PASSWORD)]
    if not all(values):
        return None
    from azureml.core.authentication import ServicePrincipalAuthentication

    tenant, identity, password = values
    return ServicePrincipalAuthentication(
        tenant_id=tenant, service_principal_id=identity, service_principal_password=password
    )

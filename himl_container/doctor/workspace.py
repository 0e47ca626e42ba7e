"""Checks of the AzureML workspace: the SDK, where the workspace is named, the login, and its clusters.

Nothing here ever opens a browser: who is not logged in reads how to.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from himl_container.azureml.constants import (
    ENV_EMULATOR_CONFIG,
    ENV_RESOURCE_GROUP,
    ENV_SERVICE_PRINCIPAL_ID,
    ENV_SERVICE_PRINCIPAL_PASSWORD,
    ENV_SUBSCRIPTION_ID,
    ENV_TENANT_ID,
    ENV_WORKSPACE_NAME,
    WORKSPACE_CONFIG_JSON,
)
from himl_container.doctor.model import Finding
from himl_container.errors import HimlError

if TYPE_CHECKING:
    from himl_container.azureml.workspace import WorkspaceNames

_NO_SUBMISSION = "Nothing can be submitted to Azure; building and local runs work."
_NEED_SDK = "pip install 'himl-container[azure]'"
_MOST_CLUSTERS = 20


def checks(
    environ: Mapping[str, str],
    *,
    has_sdk: Callable[[], bool] | None = None,
    login: Callable[[], str] | None = None,
    open_workspace: Callable[[WorkspaceNames], Any] | None = None,
    registry: Callable[[Any], Finding] | None = None,
) -> Iterator[Finding]:
    """Yield what is found of the workspace that a submission from this folder would go to.

    :param login: returns how one is logged in, or an empty text; never asks anybody.
    :param open_workspace: returns the SDK's workspace.
    :param registry: checks the workspace's own registry; None where the project has another.
    """
    from himl_container.azureml.workspace import workspace_names

    principal = service_principal(environ)
    if principal is not None:
        yield principal
    try:
        names = workspace_names()
    except HimlError as error:
        yield _nowhere(error)
        return
    yield Finding("workspace named", "ok", f"{names.workspace_name}, in {where_named(environ)}")
    if not (has_sdk or _has_sdk)():
        yield Finding("azureml sdk", "error", "azureml-core is not installed", _NO_SUBMISSION, _NEED_SDK)
        return
    try:
        who = (login or _login)()
    except HimlError as error:
        yield Finding("azure login", "error", error.what, _NO_SUBMISSION, error.hint or _how_to_log_in())
        return
    if not who:
        means = "'submit' asks you to log in, in a browser or with a code; without a terminal it cannot submit."
        yield Finding("azure login", "warning", "nobody is logged in", means, _how_to_log_in())
        return
    yield Finding("azure login", "ok", who)
    try:
        workspace = (open_workspace or _open)(names)
    except HimlError as error:
        fix = error.hint or "See whether the names are right, and whether you may use the workspace."
        yield Finding("workspace", "error", error.what, _NO_SUBMISSION, fix)
        return
    yield Finding("workspace", "ok", f"{workspace.name} in {workspace.location}")
    yield clusters(workspace)
    if registry is not None:
        yield registry(workspace)


def own_registry(workspace: Any, environ: Mapping[str, str]) -> Finding:
    """Check that the workspace has a registry, and that it opens; images go there unless the settings name another."""
    from himl_container.azureml.workspace_registry import registry_of
    from himl_container.doctor.registries import registry

    check = "workspace's registry"
    try:
        host = registry_of(workspace)
    except HimlError as error:
        return Finding(check, "warning", error.what, "There is nowhere to push images to.", error.hint)
    return registry(check, f"{host}/himl-container-doctor", environ)


def service_principal(environ: Mapping[str, str]) -> Finding | None:
    """Check that the three variables of a service principal are all set; None where neither its id nor its secret is.

    The tenant alone is no principal: it chooses the tenant of any other login.
    """
    names = (ENV_SERVICE_PRINCIPAL_ID, ENV_SERVICE_PRINCIPAL_PASSWORD, ENV_TENANT_ID)
    missing = [name for name in names if not environ.get(name)]
    if ENV_SERVICE_PRINCIPAL_ID in missing and ENV_SERVICE_PRINCIPAL_PASSWORD in missing:
        return None
    if not missing:
        return Finding("service principal", "ok", f"all of {', '.join(names)}")
    means = "With one missing, the service principal is not used at all."
    fix = f"Set {' and '.join(missing)} too, or neither id nor password."
    return Finding("service principal", "error", f"{', '.join(missing)} not set", means, fix)


def where_named(environ: Mapping[str, str]) -> str:
    """Return where the workspace is named, as :func:`himl_container.azureml.workspace.workspace_names` looks for it."""
    from himl_container.azureml.workspace import find_file

    if emulated := environ.get(ENV_EMULATOR_CONFIG):
        return f"{emulated} (the emulator's)"
    found = find_file(WORKSPACE_CONFIG_JSON)
    return str(found) if found else f"{ENV_WORKSPACE_NAME} and its two companions"


def clusters(workspace: Any) -> Finding:
    """Check that the workspace has a cluster to run on, and say what state each is in."""
    found = [(name, target) for name, target in sorted(workspace.compute_targets.items()) if _is_cluster(target)]
    if not found:
        means = "Nothing can run there."
        fix = "Make a cluster in the studio (Compute, Compute clusters)."
        return Finding("clusters", "warning", "the workspace has none", means, fix)
    shown = ", ".join(f"{name} ({_state(target)})" for name, target in found[:_MOST_CLUSTERS])
    rest = len(found) - _MOST_CLUSTERS
    broken = [name for name, target in found if _provisioning(target) not in ("", "Succeeded")]
    text = shown + (f" and {rest} more" if rest > 0 else "")
    if broken:
        means = "Jobs for such a cluster wait until it is ready."
        return Finding("clusters", "warning", text, means, f"See {', '.join(broken)} in the studio.")
    return Finding("clusters", "ok", text)


def _nowhere(error: HimlError) -> Finding:
    if error.where:  # a file that is there, and wrong
        return Finding("workspace named", "error", f"{error.where}: {error.what}", _NO_SUBMISSION, error.hint)
    three = f"{ENV_SUBSCRIPTION_ID}, {ENV_RESOURCE_GROUP} and {ENV_WORKSPACE_NAME}"
    fix = (
        f"Put the config.json of your workspace (Azure portal, its overview) into this folder or one above, or set "
        f"{three}. Without Azure: 'himl-container submit --azureml --emulator'."
    )
    return Finding("workspace named", "skipped", "no config.json, and no variables", _NO_SUBMISSION, fix)


def _has_sdk() -> bool:
    try:
        return importlib.util.find_spec("azureml.core") is not None
    except ModuleNotFoundError:
        return False


def _how_to_log_in() -> str:
    from himl_container.azureml.login import HOW_TO_LOG_IN

    return HOW_TO_LOG_IN[0].upper() + HOW_TO_LOG_IN[1:] + "."


def _login() -> str:
    """Return the login that is there, or an empty text; asks nobody."""
    from himl_container.azureml.ambient import ambient_login

    if all(os.environ.get(name) for name in (ENV_SERVICE_PRINCIPAL_ID, ENV_SERVICE_PRINCIPAL_PASSWORD, ENV_TENANT_ID)):
        return "service principal of the HIML_ variables"
    found, _ = ambient_login(os.environ)
    return "" if found is None else _spoken(found)


def _open(names: WorkspaceNames) -> Any:
    from himl_container.azureml.workspace import open_workspace

    return open_workspace(names)


def _spoken(login: Any) -> str:
    """Return a login in words: those of :mod:`himl_container.azureml.credential` have a name."""
    known = {
        "ServicePrincipalAuthentication": "service principal of the AZUREML_ variables",
        "RememberedLogin": "an earlier login of the AzureML SDK",
    }
    kind = type(login).__name__
    return known.get(kind) or str(getattr(login, "name", kind))


def _is_cluster(target: Any) -> bool:
    return str(getattr(target, "type", "")) == "AmlCompute"


def _provisioning(target: Any) -> str:
    return str(getattr(target, "provisioning_state", "") or "")


def _state(target: Any) -> str:
    parts = [_provisioning(target).lower() or "state unknown"]
    size = getattr(target, "vm_size", None)
    priority = str(getattr(target, "vm_priority", None) or "")
    parts += [str(size)] if size else []
    parts += ["low priority"] if priority.lower() == "lowpriority" else []
    return ", ".join(parts)

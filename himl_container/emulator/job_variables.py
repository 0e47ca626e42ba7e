"""What a job is told of the emulator: names, addresses, its token (``core/run.py`` and ``core/authentication.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from himl_container.emulator.access import Access
from himl_container.emulator.job_network import Way
from himl_container.emulator.names import API_HOST, Workspace
from himl_container.emulator.state.runs import Runs

CERTIFICATES = "/etc/himl-emulator/certificates.pem"
"""Where a container finds whom to trust."""


class EmulatorVariables:
    """See :class:`himl_container.emulator.compute.model.JobVariables`.

    :param way: how containers reach the emulator (:meth:`himl_container.emulator.job_network.JobNetwork.way`).
    :param bundle: file of the certificates that jobs trust.
    """

    def __init__(self, workspace: Workspace, runs: Runs, access: Access, way: Callable[[], Way], bundle: Path) -> None:
        self._workspace, self._runs, self._access = workspace, runs, access
        self._way, self._bundle = way, bundle

    def variables(self, run_id: str) -> dict[str, str]:
        """Return the variables of a run's job, as seen from a container.

        :raises Refusal: 404, there is no such run.
        """
        run, workspace = self._runs.get(run_id), self._workspace
        token, expires = self._access.job_token(run_id)
        scope, proxy = f"/{workspace.path}", self._way().proxy
        return {
            "AZUREML_ARM_SUBSCRIPTION": workspace.subscription_id,
            "AZUREML_ARM_RESOURCEGROUP": workspace.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": workspace.name,
            "AZUREML_ARM_PROJECT_NAME": run.experiment,
            "AZUREML_WORKSPACE_ID": workspace.workspace_id,
            "AZUREML_WORKSPACE_SCOPE": scope,
            "AZUREML_EXPERIMENT_ID": run.experiment_id,
            "AZUREML_EXPERIMENT_SCOPE": f"{scope}/experiments/{run.experiment}",
            "AZUREML_RUN_ID": run.run_id,
            "AZUREML_ROOT_RUN_ID": run.root_id,
            "AZUREML_RUN_TOKEN": token,
            "AZUREML_RUN_TOKEN_EXPIRY": str(expires),
            "AZUREML_SERVICE_ENDPOINT": f"https://{API_HOST}",
            "AZUREML_RUN_HISTORY_SERVICE_ENDPOINT": f"https://{API_HOST}",
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"https://{API_HOST}/discovery",
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), proxy),
            # rslex heeds https_proxy only where no_proxy is set too.
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
            **dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"), CERTIFICATES),
        }

    def mounts(self) -> Mapping[Path, str]:
        """Return the file of certificates and where it lies in the container."""
        return {self._bundle: CERTIFICATES}

    def network(self) -> str:
        """Return the network from which a container reaches the emulator; made where there is none."""
        return self._way().network

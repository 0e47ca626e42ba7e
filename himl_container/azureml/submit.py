"""From a plan to a run in AzureML: image, environment, snapshot, one submission, and a record of where it went."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himl_container.azureml.failures import WrongValue
from himl_container.azureml.records import Record, Records, now
from himl_container.azureml.service_failures import explained
from himl_container.azureml.staging import staged
from himl_container.cache import Cache
from himl_container.errors import StorageError

if TYPE_CHECKING:
    from azureml.core import Environment, Run, RunConfiguration, Workspace

    from himl_container.azureml.reach import Way
    from himl_container.azureml.request import SubmitPlan
    from himl_container.launch.spec import ImageRef
    from himl_container.progress import Reporter
    from himl_container.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submitted:
    """A run that AzureML has taken.

    :param run: the SDK's own object. :param image: None where AzureML builds the environment.
    :param environment: name and version of the AzureML environment.
    """

    run: Run
    record: Record
    image: ImageRef | None
    environment: str

    def to_json(self) -> dict[str, object]:
        """Return where the run went, as JSON values."""
        return {**self.record.to_json(), "environment": self.environment}


def submit(
    plan: SubmitPlan,
    way: Way,
    *,
    environ: MutableMapping[str, str],
    reporter: Reporter,
    locked: bool = False,
    test: bool = True,
    quiet: bool = False,
) -> Submitted:
    """Submit a plan once.

    Cluster and datasets are looked for before an image is built: a name that is misspelt should not cost the build.

    :param way: to the workspace. :param environ: gets the variables of the emulator; ``os.environ`` but for tests.
    :param test: without, an image that was never tested will do.
    :param quiet: what hi-ml prints of a submission goes to standard error, because standard output is spoken for.
    :raises InputError: the cluster or a dataset does not exist. :raises LoginFailed: nobody is logged in.
    :raises AzureMLError: AzureML does not answer, or refuses the run.
    :raises HimlError: as :func:`himl_container.azureml.images.pushed_image`.
    """
    from himl_container.azureml.reach import emulator_of, go, open_quickly
    from himl_container.azureml.request import what_runs
    from himl_container.azureml.toolbox import warn_without_toolbox
    from himl_container.azureml.workspace_registry import default_cache

    emulator = emulator_of(way, environ)
    settings = plan.settings
    names = go(way, environ, reporter)
    workspace = open_quickly(names)
    _check_cluster(workspace, plan.target.compute)
    with _sdk_prints(sys.stderr if quiet else sys.stdout), staged(plan.snapshot, environ) as snapshot:
        configuration = _configuration(plan, workspace)
        image, environment = _environment(settings, workspace, reporter, locked=locked, test=test)
        configuration.environment = environment
        if image is not None and plan.spec.command[-1].endswith(".py"):
            warn_without_toolbox(plan.snapshot.root / plan.spec.command[-1], settings.lock_file, reporter)
        with snapshot.described(environ):
            run = _queue(plan, snapshot.folder, configuration, workspace)
    record = Record(
        run=run.id,
        experiment=run.experiment.name,
        subscription_id=names.subscription_id,
        resource_group=names.resource_group,
        workspace=names.workspace_name,
        emulator=emulator,
        folder=str(Path.cwd()),
        script=what_runs(plan.spec),
        image=image.digest if image else "",
        fingerprint=image.fingerprint if image else "",
        lock=image.lock if image else "",
        portal=run.get_portal_url(),
        submitted=now(),
    )
    try:
        Records(default_cache()).add(record)
    except StorageError as error:  # the run is on its way, and most_recent_run.txt has its id
        reporter.warn(f"where the run went cannot be written down: {error}")
    return Submitted(run, record, image, f"{environment.name}:{environment.version}")


def is_built_there(settings: Settings) -> bool:
    """Whether AzureML builds the environment, as with hi-ml."""
    return settings.azureml_environment == "build"


def _check_cluster(workspace: Workspace, name: str) -> None:
    from himl_container.azureml.configuration import check_cluster

    try:
        check_cluster(workspace, name)
    except WrongValue as error:
        raise WrongValue(
            error.what, where="--cluster", hint="Choose one of these, or create it in the portal."
        ) from None


def _environment(
    settings: Settings, workspace: Workspace, reporter: Reporter, *, locked: bool, test: bool
) -> tuple[ImageRef | None, Environment]:
    """Return the image of a run and its environment; no image where AzureML is to build it."""
    if is_built_there(settings):
        from himl_container.azureml.configuration import environment_built_by_azureml

        return None, environment_built_by_azureml(settings, workspace)
    from himl_container.azureml.environments import environment_of
    from himl_container.azureml.images import pushed_image

    image = pushed_image(settings, workspace, reporter, locked=locked, test=test)
    by_tag = settings.azureml_environment == "image-by-tag"
    with explained("the environment of the image"):
        return image, environment_of(image, workspace, by_tag=by_tag, cache=Cache(settings.cache_dir))


def _configuration(plan: SubmitPlan, workspace: Workspace) -> RunConfiguration:
    """Return the run as AzureML takes it, but for its environment."""
    from himl_container.azureml.translate import run_configuration

    with explained("the datasets of the run"):
        return run_configuration(plan.spec, plan.target, None, workspace)


def _queue(plan: SubmitPlan, folder: Path, configuration: RunConfiguration, workspace: Workspace) -> Run:
    from himl_container.azureml.submission import queue_run
    from himl_container.azureml.translate import script_run

    config: Any = script_run(configuration, str(folder))
    if plan.search is not None:
        from himl_container.azureml.search import hyperdrive_config

        config = hyperdrive_config(plan.search, config)
    return queue_run(workspace, plan.target.experiment, config, plan.target.tags)


@contextlib.contextmanager
def _sdk_prints(stream: Any) -> Iterator[None]:
    """Have what the SDK and hi-ml's functions print go to a stream."""
    with contextlib.redirect_stdout(stream):
        yield


def quieten() -> None:
    """Keep the SDK's warnings, which speak to its developers, off the screen unless ``HIML_CONTAINER_DEBUG=1``."""
    if os.environ.get("HIML_CONTAINER_DEBUG", "") in ("", "0"):
        for name in ("azureml", "azure", "msrest", "urllib3", "adal-python", "msal"):
            logging.getLogger(name).setLevel(logging.ERROR)

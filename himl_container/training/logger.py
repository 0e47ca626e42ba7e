"""A logger of Lightning that writes into a run of AzureML."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from himl_container.training.families import Logger
from himl_container.training.hyperparameters import flat, flat_metrics

if TYPE_CHECKING:
    from azureml.core import Run, Workspace

HYPERPARAMETERS_TABLE = "hyperparams"


class CallableText(str):
    """A text that may be called: Lightning 2 reads ``logger.name``, scripts written for hi-ml call it."""

    __slots__ = ()

    def __call__(self) -> str:
        """Return the text."""
        return str(self)


class CallableNumber(int):
    """A number that may be called, see :class:`CallableText`."""

    __slots__ = ()

    def __call__(self) -> int:
        """Return the number."""
        return int(self)


class RunHandle:
    """A run, or nothing, as ``logger.experiment``: it has the run's attributes, and may be called to get the run.

    Where nothing is logged (outside AzureML, or in a process that is not the first), each method does nothing, so that
    ``self.logger.experiment.log_text(...)`` needs no question before it.
    """

    def __init__(self, run: Run | None) -> None:
        self._run = run

    def __call__(self) -> Run | None:
        """Return the run, or None."""
        return self._run

    def __bool__(self) -> bool:
        return self._run is not None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _do_nothing if self._run is None else getattr(self._run, name)


def _do_nothing(*_arguments: Any, **_words: Any) -> None:
    """Stand in for a method of a run that is not there."""


class AzureMLLogger(Logger):
    """Writes metrics, hyperparameters and figures into the AzureML run that the script is; rank zero only.

    Outside AzureML nothing is logged, unless a run is given or ``enable_logging_outside_azure_ml`` is set: then a run
    is made when there is something to write, and ended when the process ends.

    :param enable_logging_outside_azure_ml: make a run where the script is not one.
    :param experiment_name: of that run; characters that AzureML does not take become ``_``.
    :param run_name: its display name.
    :param workspace: where it is made; default: the one that :func:`himl_container.get_workspace` finds.
    :param workspace_config_path: a ``config.json`` that names the workspace.
    :param run: an AzureML run to write into, from wherever the script runs. The logger does not end it.
    """

    def __init__(
        self,
        enable_logging_outside_azure_ml: bool = False,
        experiment_name: str = "azureml_logger",
        run_name: str | None = None,
        workspace: Workspace | None = None,
        workspace_config_path: Path | str | None = None,
        *,
        run: Run | None = None,
    ) -> None:
        super().__init__()
        from himl_container.azureml.context import is_running_in_azure_ml

        self.is_running_in_azure_ml: bool = is_running_in_azure_ml()
        self.enable_logging_outside_azure_ml = enable_logging_outside_azure_ml
        self.experiment_name = experiment_name
        self.run_name = run_name
        self._workspace = workspace
        self._workspace_config_path = workspace_config_path
        self._given = run
        self._made: Run | None = None
        self._failed = False
        self._hyperparameters: dict[str, Any] = {}

    # Scripts written for hi-ml call these three; for Lightning 2 they must be properties. With methods it would write
    # checkpoints to a folder called "<bound method ...".

    @property
    def name(self) -> CallableText:
        """The name of the folder of Lightning's own checkpoints: none."""
        return CallableText("")

    @property
    def version(self) -> CallableNumber:
        """The version that Lightning puts into the path of its own checkpoints: 0."""
        return CallableNumber(0)

    @property
    def experiment(self) -> RunHandle:
        """The run that is written into."""
        return RunHandle(self._run())

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write each metric with its step.

        :param step: Lightning's, or None. Kept for all metrics: Lightning adds ``epoch`` to every record, so that its
            presence does not tell which ones belong to an epoch.
        """
        run = self._run()
        if run is None:
            return
        for name, value in flat_metrics(metrics).items():
            run.log(name, value, step=step)

    def log_hyperparams(self, params: Any, *_arguments: Any, **_words: Any) -> None:
        """Write hyperparameters as one table, nested ones as ``outer/inner``; nothing where there are none, or no new.

        :param params: a mapping or an :class:`argparse.Namespace`.
        """
        table = flat(params)
        # Lightning passes them at each fit, validate, test and predict.
        if not table or table == self._hyperparameters:
            return
        run = self._run()
        if run is None:
            return
        run.log_table(HYPERPARAMETERS_TABLE, table)
        self._hyperparameters = table

    def log_figure(self, name: str, figure: Any, step: int | None = None) -> None:
        """Write a figure.

        :param figure: what has ``savefig`` (matplotlib's figures and its pyplot), or the path of an image.
        :param step: becomes part of the description: AzureML's images have no steps.
        """
        run = self._run()
        if run is None:
            return
        description = "" if step is None else f"step {step}"
        if hasattr(figure, "savefig"):
            run.log_image(name, plot=figure, description=description)
        else:
            run.log_image(name, path=str(figure), description=description)

    def finalize(self, status: str) -> None:
        """Wait until what was logged has arrived.

        :param status: how the training ended. A run of this logger's own fails with ``failed``.
        """
        run = self._run(start=False)
        if run is None:
            return
        self._failed = status == "failed"
        run.flush()

    def close(self) -> None:
        """End the run that this logger made; it is called at the end of the process too."""
        atexit.unregister(self.close)
        made, self._made = self._made, None
        if made is None:
            return
        if self._failed:
            made.fail()
        else:
            made.complete()

    def __enter__(self) -> AzureMLLogger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> Literal[False]:
        self._failed = self._failed or kind is not None
        self.close()
        return False

    def _run(self, *, start: bool = True) -> Run | None:
        if not _is_rank_zero():
            return None
        from himl_container.azureml.context import RUN_CONTEXT, is_running_in_azure_ml

        if self._given is not None:
            return self._given if is_running_in_azure_ml(self._given) else None
        if self.is_running_in_azure_ml:
            return RUN_CONTEXT
        if self.enable_logging_outside_azure_ml and self._made is None and start:
            self._made = self._start()
            atexit.register(self.close)
        return self._made

    def _start(self) -> Run:
        from azureml.core import Experiment

        from himl_container.azureml.names import azure_experiment_name
        from himl_container.azureml.workspace import get_workspace

        config = None if self._workspace_config_path is None else Path(self._workspace_config_path)
        workspace = get_workspace(self._workspace, config)
        experiment = Experiment(workspace, azure_experiment_name(self.experiment_name))
        # No folder is tracked and no snapshot taken: a script that runs elsewhere keeps its files there.
        return experiment.start_logging(outputs=False, snapshot_directory=None, display_name=self.run_name)


def _is_rank_zero() -> bool:
    from lightning_utilities.core.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0

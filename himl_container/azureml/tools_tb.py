"""``himl-tb``: shows runs in TensorBoard."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from himl_container.azureml.failures import WrongValue
from himl_container.azureml.tool_arguments import add_run_arguments, selected_runs, told

if TYPE_CHECKING:
    from himl_container.azureml.tensorboard import WrappedTensorboard

_LOOK = 0.5
_LARGEST_PORT = 65535


def main(argv: Sequence[str] | None = None) -> None:
    """Show runs until Enter or Ctrl-C, or, where no terminal is read, until the runs have ended.

    :param argv: arguments; those of the process by default.
    :raises WrongValue: (a ValueError) the arguments name no run, or there is none.
    """
    args = _parser().parse_args(argv)
    if not 0 <= args.port <= _LARGEST_PORT:
        raise WrongValue(f"{args.port} is not a port.", where="--port")
    remote, local = log_folders(args.log_dir)
    runs = selected_runs(args)
    for run in runs:
        print(f"Run {run.id} of experiment {run.experiment.name}", flush=True)  # noqa: T201
    from himl_container.azureml.tensorboard import WrappedTensorboard

    board = WrappedTensorboard(remote, runs=runs, local_root=local, port=args.port)
    with _Signals() as signals:
        try:
            print(f"TensorBoard is at {board.start()}", flush=True)  # noqa: T201
            _wait(board, signals, threading.Event())
        except KeyboardInterrupt:
            pass
        finally:
            board.stop()


def console() -> NoReturn:
    """Be the program ``himl-tb``."""
    told(main)


def log_folders(log_dir: Path) -> tuple[str, Path]:
    """Return the folder of the event files in the runs, and the one here for the copies.

    Both have the same path below the runs' folder and the current one. A folder elsewhere has only its last part in
    the runs: ``/scratch/logs`` is for what is in ``logs`` there.

    :raises WrongValue: it has no name.
    """
    here = Path.cwd()
    local = Path(os.path.normpath(here / log_dir))
    if local == here:
        return "", local
    remote = local.relative_to(here).as_posix() if local.is_relative_to(here) else local.name
    if not remote:
        raise WrongValue(f"'{log_dir}' cannot be a folder of runs", where="--log_dir")
    return remote, local


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="himl-tb",
        description="Show runs of AzureML in TensorBoard, while they run or afterwards. "
        "One of --experiment, --latest_run_file, --run_recovery_ids and --run_ids is needed.",
    )
    add_run_arguments(parser)
    parser.add_argument("--num_runs", type=int, default=1, help="with --experiment: how many runs (default: 1)")
    parser.add_argument("--port", type=int, default=6006, help="where TensorBoard listens (default: 6006; 0: any)")
    parser.add_argument(
        "--log_dir",
        type=Path,
        default=Path("logs"),
        help="the folder of the event files in the runs; they are copied to a folder of that name here (default: logs)",
    )
    return parser


def _wait(board: WrappedTensorboard, signals: _Signals, ended: threading.Event) -> None:
    """Return when somebody has pressed Enter; without a terminal, when everything is here; when told to end.

    :param ended: is set by Enter.
    :raises AzureMLError: TensorBoard ended by itself.
    """
    from himl_container.errors import AzureMLError

    interactive = sys.stdin is not None and sys.stdin.isatty()
    if interactive:
        print("Press Enter to end.", flush=True)  # noqa: T201
        threading.Thread(target=_read_line, args=(ended,), daemon=True).start()
    while not signals.asked and not ended.wait(_LOOK):
        if not board.is_running:
            raise AzureMLError(f"TensorBoard ended by itself:\n{board.last_words}".rstrip())
        if not interactive and board.is_complete:
            return


def _read_line(ended: threading.Event) -> None:
    sys.stdin.readline()
    ended.set()


class _Signals:
    """Lets ``SIGTERM`` end the program in good order; a second one ends it at once.

    It is noted without a lock: one that the main thread has at that moment, as in ``Event.wait``, would never be free.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._end)
        return self

    def __exit__(self, *error: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)

    def _end(self, number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.asked = True


if __name__ == "__main__":
    console()

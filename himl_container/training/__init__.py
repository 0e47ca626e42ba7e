"""What training scripts use with PyTorch Lightning: loggers, progress, timers, recovery checkpoints.

Importing it imports neither PyTorch nor Lightning; the first object that is made does.
"""

from himl_container.azureml.distributed import (
    is_global_rank_zero,
    is_local_rank_zero,
    set_environment_variables_for_multi_node,
    torch_barrier,
)
from himl_container.training.diagnostics import BatchTimeCallback, EpochTimers
from himl_container.training.logger import AzureMLLogger
from himl_container.training.metrics import log_learning_rate, log_on_epoch
from himl_container.training.progress_bar import AzureMLProgressBar
from himl_container.training.recovery import (
    RECOVERY_CHECKPOINT_FOLDER,
    RECOVERY_CHECKPOINT_PREFIX,
    RecoveryCheckpoint,
    get_latest_recovery_checkpoint,
)

__all__ = [
    "RECOVERY_CHECKPOINT_FOLDER",
    "RECOVERY_CHECKPOINT_PREFIX",
    "AzureMLLogger",
    "AzureMLProgressBar",
    "BatchTimeCallback",
    "EpochTimers",
    "RecoveryCheckpoint",
    "get_latest_recovery_checkpoint",
    "is_global_rank_zero",
    "is_local_rank_zero",
    "log_learning_rate",
    "log_on_epoch",
    "set_environment_variables_for_multi_node",
    "torch_barrier",
]

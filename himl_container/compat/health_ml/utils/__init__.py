"""hi-ml's helpers for training with PyTorch Lightning; himl_container.training has them."""

from health_ml.utils.diagnostics import BatchTimeCallback
from health_ml.utils.logging import AzureMLLogger, AzureMLProgressBar, log_learning_rate, log_on_epoch

__all__ = ["AzureMLLogger", "AzureMLProgressBar", "BatchTimeCallback", "log_learning_rate", "log_on_epoch"]

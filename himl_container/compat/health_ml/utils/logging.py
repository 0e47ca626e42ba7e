"""hi-ml's module of what logs."""

from himl_container.training.logger import AzureMLLogger
from himl_container.training.metrics import log_learning_rate, log_on_epoch
from himl_container.training.progress_bar import AzureMLProgressBar

__all__ = ["AzureMLLogger", "AzureMLProgressBar", "log_learning_rate", "log_on_epoch"]

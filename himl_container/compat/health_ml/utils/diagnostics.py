"""hi-ml's module of what measures."""

from himl_container.training.diagnostics import BatchTimeCallback, EpochTimers

__all__ = ["BatchTimeCallback", "EpochTimers"]

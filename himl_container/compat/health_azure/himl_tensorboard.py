"""hi-ml's module behind ``himl-tb``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from health_azure._lazy import exports

if TYPE_CHECKING:
    from himl_container.azureml.tensorboard import WrappedTensorboard
    from himl_container.azureml.tools_tb import main

_PLACES = {
    "himl_container.azureml.tensorboard": ("WrappedTensorboard",),
    "himl_container.azureml.tools_tb": ("main",),
}

__all__ = ["WrappedTensorboard", "main"]

__getattr__, __dir__ = exports(__name__, _PLACES)

ROOT_DIR = Path.cwd()
OUTPUT_DIR = ROOT_DIR / "outputs"
TENSORBOARD_DIR = ROOT_DIR / "tensorboard_logs"

if __name__ == "__main__":
    from himl_container.azureml import tools_tb

    tools_tb.main()

"""hi-ml's module behind ``himl-download``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from health_azure._lazy import exports

if TYPE_CHECKING:
    from himl_container.azureml.tools_download import determine_output_dir_name, main

_PLACES = {
    "himl_container.azureml.tools_download": ("determine_output_dir_name", "main"),
}

__all__ = ["determine_output_dir_name", "main"]

__getattr__, __dir__ = exports(__name__, _PLACES)

if __name__ == "__main__":
    from himl_container.azureml import tools_download

    tools_download.main()

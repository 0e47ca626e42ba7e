"""himl-container: from Conda files and private wheels to a tested image that runs the same here and in AzureML."""

__version__ = "0.1.0"

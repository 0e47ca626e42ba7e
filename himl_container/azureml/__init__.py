"""AzureML through its SDK: login, workspace, submission, datasets, transfers.

The SDK (``azureml.core``) is imported inside the functions that use it, so that importing anything from here costs
milliseconds and works where the SDK is not installed. Modules here run inside AzureML jobs too, in images that have
neither Docker nor the solver: what builds and pushes images is imported only by the functions that submit.
"""

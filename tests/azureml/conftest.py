"""Tests of our AzureML rooms on a real emulator, which :mod:`emulator_fixtures` starts once for all folders.

This folder and ``tests/unit/azureml`` have no ``__init__.py``: as packages they would be ``azureml``, and hide the SDK.
"""

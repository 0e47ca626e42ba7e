"""Hyperparameter search: sampling, early termination, and the controller of a search."""

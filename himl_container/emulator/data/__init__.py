"""Datastores and datasets of jobs: what goes into a job, and what comes out and is registered."""

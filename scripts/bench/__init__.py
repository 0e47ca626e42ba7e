"""The benchmark: a Dockerfile that a user would write against himl-container, in the same run."""

"""The environment: reading and merging what was declared, and locking it."""

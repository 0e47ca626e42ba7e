"""Making a Conda channel folder from what this machine has. Entry point: ``scripts/make_channel.py``."""

"""An example that comes with the package."""

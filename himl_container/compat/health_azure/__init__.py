"""hi-ml's ``health_azure`` under its own name."""

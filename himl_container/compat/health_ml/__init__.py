"""hi-ml's ``health_ml`` under its own name: what training scripts import."""

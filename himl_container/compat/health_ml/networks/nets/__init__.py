"""hi-ml's empty place for whole networks."""

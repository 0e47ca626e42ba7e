"""hi-ml's empty place for networks."""

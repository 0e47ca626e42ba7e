"""hi-ml's empty place for layers of networks."""

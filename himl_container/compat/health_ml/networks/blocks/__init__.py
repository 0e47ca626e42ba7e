"""hi-ml's empty place for blocks of networks."""

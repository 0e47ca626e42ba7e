"""hi-ml's empty place for data sets."""

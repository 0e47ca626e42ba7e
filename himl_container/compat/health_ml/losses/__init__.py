"""hi-ml's empty place for losses."""

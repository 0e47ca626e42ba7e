"""Running: one description of a run, its source snapshot, and the launcher on this machine."""

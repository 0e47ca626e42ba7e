"""The parts of reading settings: their sources (files, variables, flags) and the rules of each value."""
